"""Every engine against a server that plays its interface: what is asked, and what is read."""

import json
import random
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.crawl.engines import ENGINES
from pipeline.crawl.engines.baidu import Baidu
from pipeline.crawl.engines.bing import Bing
from pipeline.crawl.engines.commons import Commons
from pipeline.crawl.engines.engine import Result, Unreadable
from pipeline.crawl.engines.flickr import Flickr
from pipeline.crawl.engines.google import Google
from pipeline.crawl.engines.openverse import Openverse
from pipeline.errors import ExternalError, UserError
from tests.crawl.hosts import Host, serving
from tests.crawl.searching import find, page

SECRET = "0123456789abcdef+/key"
LONG = "http://0.test/" + "x" * 2000


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    monkeypatch.delenv("OPENVERSE_TOKEN", raising=False)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", SECRET)


def fast(engine):
    engine.page_gap = 0.0
    return engine


def playing(answer):
    """A host whose every path answers `answer(fields of the query)`: JSON, bytes, or a status."""
    host = Host()

    def route(request):
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        found = answer({name: values[0] for name, values in query.items()})
        if isinstance(found, int):
            request.reply(b"no", found)
        else:
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            request.reply(body, 200, {"Content-Type": "application/json"})

    host.otherwise = route
    return host


def queries(host):
    return [
        {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        for target in host.targets
    ]


def addresses(engine, wanted, licence="any", query="cat"):
    return list(engine.pages(query, wanted, licence))


# Bing


def test_bing_reads_the_whole_record_of_every_result():
    found = Bing().results(
        page(
            {
                "murl": "http://0.test/1.png",
                "t": " a \"b\" & 'c' <d> ",
                "purl": "p",
                "turl": "t",
                "lic": "CC0",
            },
            "{malformed",
            '{"murl": "http://0.test/cut.jpg"',
            "",
            "null",
            "[]",
            "3",
            "[" * 5000,
            "1" * 5000,
            {"purl": "no murl"},
            {"murl": ""},
            {"murl": None},
            {"murl": 3},
            {"murl": ["http://0.test/x.jpg"]},
            {"murl": LONG},
            {"murl": "http://0.test/2.webp?a=1&amp=2", "t": 5, "purl": LONG},
            {"murl": " http://0.test/no-suffix ", "t": "x" * 9000},
        )
        + b'<a class="iusc">no m</a><a class="other" m=\'{"murl": "x"}\'>x</a><p>'
    )
    assert found == [
        Result("http://0.test/1.png", "p", "a \"b\" & 'c' <d>", "t", "CC0"),
        Result("http://0.test/2.webp?a=1&amp=2"),
        Result("http://0.test/no-suffix", title="x" * 2000),
    ]


@pytest.mark.parametrize(
    ("licence", "suffix"),
    [
        ("any", ""),
        ("creative-commons", "&qft=+filterui:licenseType-Any"),
        ("commercial", "&qft=+filterui:license-L2_L3_L4"),
        ("modify", "&qft=+filterui:license-L2_L3_L5_L6"),
        ("public-domain", "&qft=+filterui:license-L1"),
    ],
)
def test_bing_filters_with_icrawlers_codes(licence, suffix):
    assert addresses(Bing(), 21, licence, "AT&T ü") == [
        f"https://www.bing.com/images/async?q=AT%26T+%C3%BC&first={first}{suffix}"
        for first in (0, 20)
    ]


def test_bing_is_asked_for_a_thousand_results_at_most():
    assert len(addresses(Bing(), 5000)) == 50


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is empty"),
        (b"  \n", "it is empty"),
        (
            b"<html><h1>One last step</h1>Solve the challenge</html>",
            "neither results nor the marks",
        ),
        (b"<html>Before you continue: cookies</html>", "neither results nor the marks"),
        (b'{"error": "x"}', "neither results nor the marks"),
        (page("{new layout", "{}"), "none of its 2 results can be read"),
    ],
)
def test_bing_tells_a_page_that_is_none_from_the_end(body, reason):
    with pytest.raises(Unreadable, match=reason):
        Bing().results(body)
    assert Bing().results(page()) == []


# Flickr


def photo(number, **more):
    return {
        "id": str(number),
        "owner": "7702423@N04",
        "secret": "s",
        "title": f"photo {number}",
        "license": "4",
        "ownername": "Ann",
        "url_o": f"https://live.test/{number}_o.jpg",
        "url_l": f"https://live.test/{number}_l.jpg",
        "url_m": f"https://live.test/{number}_m.jpg",
    } | more


def flickr_page(photos, number=1, last=1):
    listed = {"page": number, "pages": last, "perpage": 100, "total": 9, "photo": photos}
    return {"photos": listed, "stat": "ok"}


def test_flickr_is_searched_page_by_page_with_one_call_each(tmp_path, key):
    def answer(fields):
        number = int(fields["page"])
        photos = [photo(n) for n in range(100 * number - 100, min(100 * number, 250))]
        return flickr_page(photos, number, 3)

    with serving(host := playing(answer)) as hosts:
        found = find(
            hosts, fast(Flickr("http://0.test/rest/")), ["C# & co"], 1000, tmp_path, "commercial"
        )
    assert len(found) == 250
    first = found[0]
    assert (first.url, first.thumbnail) == (
        "https://live.test/0_l.jpg",
        "https://live.test/0_m.jpg",
    )
    assert first.page_url == "https://www.flickr.com/photos/7702423@N04/0"
    assert (first.title, first.creator) == ("photo 0", "Ann")
    assert (first.licence, first.licence_filter) == ("CC BY 2.0", "commercial")
    assert first.licence_url == "https://creativecommons.org/licenses/by/2.0/"
    asked = queries(host)
    assert [one["page"] for one in asked] == ["1", "2", "3", "4"]
    assert {one["text"] for one in asked} == {"C# & co"}
    assert {one["method"] for one in asked} == {"flickr.photos.search"}
    assert {(one["format"], one["nojsoncallback"]) for one in asked} == {("json", "1")}
    assert {one["extras"] for one in asked} == {"license,owner_name,url_o,url_l,url_c,url_m"}
    assert {one["license"] for one in asked} == {"4,5,6,9,10,11,12,13"}
    assert {one["api_key"] for one in asked} == {SECRET}
    assert "0123456789abcdef" not in (tmp_path / "pages.jsonl").read_text()


def test_flickr_takes_the_best_size_that_there_is(key):
    rows = [
        photo(1, url_l=None),
        photo(2, url_l="", url_o=3, url_c="c"),
        {"id": "3", "url_m": "m", "owner": "a/../b?", "license": 99},
        {"id": "4"},
        "no photo",
        photo(5, url_l=LONG, url_o=LONG, url_c=LONG, url_m=LONG),
    ]
    found = Flickr().results(json.dumps(flickr_page(rows)).encode())
    assert [one.url for one in found] == ["https://live.test/1_o.jpg", "c", "m"]
    assert found[2].page_url == "https://www.flickr.com/photos/a%2F..%2Fb%3F/3"
    assert found[2].licence == ""


def test_flickr_without_a_key_says_where_it_belongs():
    with pytest.raises(UserError, match="FLICKR_API_KEY"):
        Flickr()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"stat": "fail", "code": 100, "message": "Invalid API Key"}, "Invalid API Key"),
        ({"stat": "fail"}, "no reason"),
        ({"stat": "ok"}, "no list of photos"),
        ({"stat": "ok", "photos": {"photo": {}}}, "no list of photos"),
        ([], "no JSON object"),
        (b"jsonFlickrApi({})", "no JSON"),
        (b"", "it is empty"),
    ],
)
def test_flickr_says_why_a_page_is_none(key, body, reason):
    with pytest.raises(Unreadable, match=reason):
        Flickr().results(body if isinstance(body, bytes) else json.dumps(body).encode())


def test_no_message_and_no_kept_page_holds_the_key(tmp_path, key):
    said = {"stat": "fail", "message": f"Invalid API Key {SECRET}"}
    with serving(playing(lambda fields: said)) as hosts, pytest.raises(ExternalError) as caught:
        find(hosts, Flickr("http://0.test/rest/"), ["cat"], 10, tmp_path)
    assert "Invalid API Key ***" in str(caught.value)
    assert "Invalid API Key ***" in (tmp_path / "unreadable.html").read_text()
    for name, where in (("refused", ("127.0.0.1", 1)), ("unresolved", None)):
        table = {"0.test": where} if where else {}
        with pytest.raises(ExternalError) as caught:
            find(table, Flickr("http://0.test/rest/"), [name], 10, tmp_path)
        assert "0123456789abcdef" not in str(caught.value)
    with (
        serving(host := playing(lambda fields: 403)) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, Flickr("http://0.test/rest/"), ["cat"], 10, tmp_path)
    assert host.targets
    assert "0123456789abcdef" not in str(caught.value)
    for path in tmp_path.iterdir():
        assert "0123456789abcdef" not in path.read_text()


# Wikimedia Commons


def file(number, index, mime="image/jpeg", **metadata):
    names = {"LicenseShortName": "CC BY-SA 4.0", "LicenseUrl": "https://cc.test/by-sa", **metadata}
    return {
        "pageid": number,
        "ns": 6,
        "title": f"File:Cat {number}.jpg",
        "index": index,
        "imageinfo": [
            {
                "url": f"https://up.test/{number}.jpg",
                "descriptionurl": f"https://commons.test/wiki/File:{number}",
                "thumburl": f"https://up.test/thumb/{number}.jpg",
                "mime": mime,
                "extmetadata": {name: {"value": value} for name, value in names.items()},
            }
        ],
    }


def test_commons_is_searched_by_offset_and_keeps_every_licence(tmp_path):
    def answer(fields):
        offset = int(fields["gsroffset"])
        numbers = range(offset, min(offset + 50, 120))
        files = [
            file(n, n + 1, Artist='<a href="//x.test">Ann &amp; <b>Bo</b></a>') for n in numbers
        ]
        random.Random(0).shuffle(files)
        return {"batchcomplete": True} | ({"query": {"pages": files}} if files else {})

    with serving(host := playing(answer)) as hosts:
        engine = fast(Commons("http://0.test/w/api.php"))
        found = find(hosts, engine, ["../x 日本"], 400, tmp_path)
    assert [one.url for one in found] == [f"https://up.test/{n}.jpg" for n in range(120)]
    first = found[0]
    assert first.page_url == "https://commons.test/wiki/File:0"
    assert first.thumbnail == "https://up.test/thumb/0.jpg"
    assert (first.title, first.creator) == ("Cat 0.jpg", "Ann & Bo")
    assert (first.licence, first.licence_url) == ("CC BY-SA 4.0", "https://cc.test/by-sa")
    asked = queries(host)
    assert [one["gsroffset"] for one in asked] == ["0", "50", "100", "150"]
    assert {one["gsrsearch"] for one in asked} == {"../x 日本 filetype:bitmap"}
    assert {(one["generator"], one["gsrnamespace"]) for one in asked} == {("search", "6")}
    assert {one["iiprop"] for one in asked} == {"url|size|mime|extmetadata"}


def test_commons_gives_images_only():
    kinds = ["image/png", "image/tiff", "application/pdf", "video/webm", "image/gif"]
    files = [file(n, n, mime) for n, mime in enumerate(kinds)]
    files += [{"index": 9}, {"imageinfo": []}, {"imageinfo": [{"url": "u"}]}, "x", None]
    found = Commons().results(json.dumps({"query": {"pages": files}}).encode())
    assert [one.url for one in found] == [
        "https://up.test/0.jpg",
        "https://up.test/thumb/1.jpg",
        "https://up.test/4.jpg",
    ]


def test_commons_filters_what_it_can_and_refuses_the_rest():
    words = {
        licence: parse_qs(urlsplit(addresses(Commons(), 1, licence)[0]).query)["gsrsearch"][0]
        for licence in ("any", "commercial", "modify", "public-domain")
    }
    assert words == {
        "any": "cat filetype:bitmap",
        "commercial": "cat filetype:bitmap",
        "modify": "cat filetype:bitmap",
        "public-domain": "cat filetype:bitmap haslicense:unrestricted",
    }
    with pytest.raises(UserError, match=r"it can: any, commercial, modify, public-domain"):
        addresses(Commons(), 1, "creative-commons")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"code": "maxlag", "info": "Waiting for a database"}}, "Waiting for a database"),
        ({"error": 3}, "no reason"),
        ({"warnings": {}}, "no answer to a query"),
        ({"query": {"pages": {}}}, "no list of pages"),
        ({"query": 3}, "no list of pages"),
        (b"<html>Too many requests</html>", "no JSON"),
    ],
)
def test_commons_says_why_a_page_is_none(body, reason):
    with pytest.raises(Unreadable, match=reason):
        Commons().results(body if isinstance(body, bytes) else json.dumps(body).encode())


# Openverse


def work(number, **more):
    return {
        "id": f"u-{number}",
        "title": f"work {number}",
        "url": f"https://img.test/{number}.jpg",
        "foreign_landing_url": f"https://page.test/{number}",
        "thumbnail": f"https://api.test/{number}/thumb/",
        "creator": "Bo",
        "license": "by-nc",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-nc/2.0/",
    } | more


def test_openverse_is_searched_page_by_page_with_the_token_in_a_header(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENVERSE_TOKEN", "tok")

    def answer(fields):
        number = int(fields["page"])
        if number > 3:
            return 404
        rows = [work(n) for n in range(20 * number - 20, min(20 * number, 50))]
        return {"result_count": 50, "page_count": 3, "page": number, "results": rows}

    with serving(host := playing(answer)) as hosts:
        engine = fast(Openverse("http://0.test/v1/images/"))
        found = find(hosts, engine, ["AT&T logo"], 200, tmp_path, "modify")
        assert find(hosts, engine, ["AT&T logo"], 200, tmp_path, "modify") == found
    assert [one.url for one in found] == [f"https://img.test/{n}.jpg" for n in range(50)]
    first = found[0]
    assert (first.page_url, first.thumbnail) == (
        "https://page.test/0",
        "https://api.test/0/thumb/",
    )
    assert (first.title, first.creator, first.licence) == ("work 0", "Bo", "CC BY-NC 2.0")
    assert first.licence_url == "https://creativecommons.org/licenses/by-nc/2.0/"
    asked = queries(host)
    assert [one["page"] for one in asked] == ["1", "2", "3", "4"]
    assert {(one["q"], one["page_size"], one["license_type"]) for one in asked} == {
        ("AT&T logo", "20", "modification")
    }
    assert {headers["Authorization"] for headers in host.headers} == {"Bearer tok"}
    assert "tok" not in (tmp_path / "pages.jsonl").read_text()


def test_openverse_is_asked_for_twenty_pages_at_most_and_without_a_token_by_nobody():
    assert len(addresses(Openverse(), 5000)) == 20
    assert Openverse().headers == {}


def test_openverse_maps_licences_both_ways():
    fields = {
        licence: urlsplit(addresses(Openverse(), 1, licence)[0]).query.partition("page_size=20")[2]
        for licence in ("any", "creative-commons", "commercial", "modify", "public-domain")
    }
    assert fields == {
        "any": "",
        "creative-commons": "&license_type=all-cc",
        "commercial": "&license_type=commercial",
        "modify": "&license_type=modification",
        "public-domain": "&license=cc0%2Cpdm",
    }
    rows = [
        work(1, license="cc0", license_version="1.0"),
        work(2, license="pdm", license_version="1.0"),
        work(3, license=None, license_version=None),
        {"url": None},
        3,
    ]
    found = Openverse().results(json.dumps({"results": rows}).encode())
    assert [one.licence for one in found] == ["CC0 1.0", "Public Domain Mark 1.0", ""]


@pytest.mark.parametrize(
    ("body", "reason"),
    [({"detail": "Request was throttled."}, "throttled"), ({}, "no list"), (b"", "it is empty")],
)
def test_openverse_says_why_a_page_is_none(body, reason):
    with pytest.raises(Unreadable, match=reason):
        Openverse().results(body if isinstance(body, bytes) else json.dumps(body).encode())


# Google and Baidu, by icrawler


class LocalGoogle(Google):
    """Google over plain HTTP."""

    page_gap = 0.0

    def pages(self, query, wanted, licence):
        for one in super().pages(query, wanted, licence):
            yield one.replace("https://www.google.com/", "http://0.test/")


def google_page(numbers):
    links = ",".join(f'["http://img.test/{n}.jpg",480,640]' for n in numbers)
    return f"<html><script>AF_initDataCallback({{data:[{links}]}});</script></html>".encode()


def test_google_is_read_by_icrawler(tmp_path):
    with serving(host := playing(lambda f: google_page(range(int(f["start"]), 150)))) as hosts:
        found = find(hosts, LocalGoogle(), ["C# & co"], 150, tmp_path, "commercial")
    assert [one.url for one in found] == [f"http://img.test/{n}.jpg" for n in range(150)]
    assert [(one["q"], one["start"], one["tbs"]) for one in queries(host)] == [
        ("C# & co", "0", "sur:fc")
    ]


@pytest.mark.parametrize(
    "body", [b"", b"<html>unusual traffic</html>", rb"<script>http://x\ud.jpg"]
)
def test_a_google_page_without_addresses_is_an_error_and_no_dead_thread(tmp_path, body):
    with serving(playing(lambda fields: body)) as hosts, pytest.raises(ExternalError) as caught:
        find(hosts, LocalGoogle(), ["cat"], 150, tmp_path)
    assert "google: no page of results for 'cat': icrawler's parser" in str(caught.value)


def baidu_page(numbers):
    rows = [{"hoverURL": f"http://img.test/{n}.jpg"} for n in numbers]
    return {"data": [*rows, {}]}


def test_baidu_is_read_by_icrawler(tmp_path):
    def answer(fields):
        first = int(fields["pn"])
        return baidu_page(range(first, min(first + 30, 40)))

    with serving(host := playing(answer)) as hosts:
        table = {"image.baidu.com": hosts["0.test"]}
        found = find(table, fast(Baidu()), ["AT&T #1 日本"], 100, tmp_path)
    assert [one.url for one in found] == [f"http://img.test/{n}.jpg" for n in range(40)]
    assert [(one["word"], one["pn"]) for one in queries(host)] == [
        ("AT&T #1 日本", "0"),
        ("AT&T #1 日本", "30"),
        ("AT&T #1 日本", "60"),
    ]


@pytest.mark.parametrize(
    "body", [b"", b"<html>verify</html>", {"antiFlag": 1}, {"data": 3}, {"data": [{"objURL": 3}]}]
)
def test_a_baidu_answer_that_icrawler_cannot_read_is_an_error(tmp_path, body):
    with serving(playing(lambda fields: body)) as hosts, pytest.raises(ExternalError) as caught:
        find({"image.baidu.com": hosts["0.test"]}, fast(Baidu()), ["cat"], 100, tmp_path)
    assert "baidu: no page of results for 'cat': icrawler's parser" in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "licence"),
    [(Google, "public-domain"), (Google, "creative-commons"), (Baidu, "modify")],
)
def test_a_filter_that_an_engine_has_not_is_refused(engine, licence):
    with pytest.raises(UserError, match=f"cannot filter by '{licence}'"):
        addresses(engine(), 10, licence)


# all of them


def mutated(good, rng):
    broken = bytearray(good)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(broken))
        if rng.random() < 0.7:
            broken[at] = (
                rng.choice(b'\x00"{}[]<>&;:,\\\xff0ae')
                if rng.random() < 0.6
                else rng.randrange(256)
            )
        else:
            del broken[at : at + rng.randint(1, 30)]
        broken = broken or bytearray(b"x")
    return bytes(broken[: rng.randrange(len(broken))] if rng.random() < 0.2 else broken)


@pytest.mark.filterwarnings("ignore:invalid escape")  # icrawler decodes Google's escapes
def test_no_page_brings_anything_but_results_or_unreadable(key):
    metadata = {"Artist": "<i>A &amp; B</i>"}
    pages = {
        "bing": page(
            {"murl": "http://0.test/1.jpg", "t": "é <b> \u202e", "purl": "x", "lic": "CC"}
        ),
        "flickr": json.dumps(flickr_page([photo(1)])).encode(),
        "commons": json.dumps({"query": {"pages": [file(1, 1, **metadata)]}}).encode(),
        "openverse": json.dumps({"results": [work(1)]}).encode(),
        "google": google_page(range(2)),
        "baidu": json.dumps({"data": [{"objURL": "ippr_z2C$qAzdH3FAzdH3Fa"}, {}]}).encode(),
    }
    assert pages.keys() == ENGINES.keys()
    rng = random.Random(0)
    read = unreadable = 0
    for name, good in pages.items():
        engine = ENGINES[name]()
        assert len(engine.results(good)) >= 1
        for _ in range(2000):
            try:
                results = engine.results(mutated(good, rng))
            except Unreadable:
                unreadable += 1
                continue
            for result in results:
                read += 1
                texts = [getattr(result, field) for field in Result.__slots__]
                assert result.url
                assert all(isinstance(text, str) and len(text) <= 2100 for text in texts)
    assert read > 1000
    assert unreadable > 1000
