"""Every engine over HTTP, by the crawl's own search: pages in order, and secrets that stay."""

import json

import pytest

from kd3_pipeline.crawl.engines.commons import Commons
from kd3_pipeline.crawl.engines.engine import Engine
from kd3_pipeline.crawl.engines.flickr import Flickr
from kd3_pipeline.crawl.engines.openverse import Openverse
from kd3_pipeline.errors import ExternalError
from tests.crawl.engines import test_commons, test_flickr, test_openverse
from tests.crawl.engines.playing import fields
from tests.crawl.hosts import Host, serving
from tests.crawl.searching import find

SECRET = "0123456789abcdef+/key"
TOKEN = "tok-0123456789abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", SECRET)
    monkeypatch.setenv("OPENVERSE_TOKEN", TOKEN)


def fast(engine: Engine) -> Engine:
    engine.page_gap = 0.0
    return engine


def playing(answer):
    """A host whose every path answers `answer(fields of the query)`: JSON, or a status."""
    host = Host()

    def route(request):
        found = answer(fields(f"http://0.test{request.path}"))
        status = found if isinstance(found, int) else 200
        said = b"no" if isinstance(found, int) else json.dumps(found).encode()
        request.reply(said, status, {"Content-Type": "application/json"})

    host.otherwise = route
    return host


def commons(asked):
    start = int(asked["gsroffset"])
    rows = [test_commons.file(n, n) for n in range(start, min(start + 50, 120))]
    return test_commons.answer_of(rows) if rows else {"batchcomplete": True}


def flickr(asked):
    page = int(asked["page"])
    rows = [test_flickr.photo(n) for n in range(100 * page - 100, min(100 * page, 120))]
    return test_flickr.answer_of(rows, page, 2)


def openverse(asked):
    page = int(asked["page"])
    rows = [test_openverse.work(n) for n in range(20 * page - 20, min(20 * page, 120))]
    return test_openverse.answer_of(rows, page, 6)


@pytest.mark.parametrize(
    ("kind", "answer", "pages"),
    [(Commons, commons, 3), (Flickr, flickr, 2), (Openverse, openverse, 6)],
)
def test_a_search_reads_all_pages_of_a_query_once(tmp_path, kind, answer, pages):
    with serving(host := playing(answer)) as hosts:
        engine = fast(kind("http://0.test/api/"))
        found = find(hosts, engine, ["C# & ü"], 120, tmp_path)
        assert len(host.targets) == pages
        assert find(hosts, engine, ["C# & ü"], 120, tmp_path) == found
        assert len(host.targets) == pages
    assert len({one.url for one in found}) == 120
    assert {one.licence for one in found} <= {"CC BY-SA 4.0", "CC BY 2.0", "CC BY-NC 2.0"}
    sent = fields(f"http://0.test{host.targets[0]}")
    assert sent.get("api_key") == (SECRET if kind is Flickr else None)
    token = host.headers[0].get("Authorization")
    assert token == (f"Bearer {TOKEN}" if kind is Openverse else None)
    assert kept_secrets(tmp_path) == []


def test_no_message_and_no_kept_page_holds_the_key(tmp_path):
    failed = {"stat": "fail", "code": 100, "message": f"Invalid API Key {SECRET}"}
    with serving(playing(lambda asked: failed)) as hosts, pytest.raises(ExternalError) as caught:
        find(hosts, fast(Flickr("http://0.test/rest/")), ["cat"], 10, tmp_path)
    assert "Invalid API Key ***" in str(caught.value)
    assert "FLICKR_API_KEY" in str(caught.value)
    for query, table in (("refused", {"0.test": ("127.0.0.1", 1)}), ("unresolved", {})):
        with pytest.raises(ExternalError) as caught:
            find(table, fast(Flickr("http://0.test/rest/")), [query], 10, tmp_path)
        assert "0123456789abcdef" not in str(caught.value)
    with (
        serving(host := playing(lambda asked: 403)) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, fast(Flickr("http://0.test/rest/")), ["cat"], 10, tmp_path)
    assert host.targets
    assert "0123456789abcdef" not in str(caught.value)
    assert any(path.is_file() for path in tmp_path.iterdir())
    assert kept_secrets(tmp_path) == []


def kept_secrets(folder):
    """Files that hold a key or a token."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and b"0123456789abcdef" in path.read_bytes()
    ]
