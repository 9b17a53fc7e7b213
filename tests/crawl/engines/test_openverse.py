"""Openverse: what it is asked, what its answers say, and the two budgets that it gives."""

import pytest

from kd3_pipeline.crawl.engines.engine import NoMore, NotNow, Refused, Unreadable
from kd3_pipeline.crawl.engines.openverse import LICENCES, Openverse
from tests.crawl.engines.playing import asked, body, read, refuses_licences, walk


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("OPENVERSE_TOKEN", raising=False)


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("OPENVERSE_TOKEN", "tok")


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


def answer_of(works, page=1, last=1):
    return {"result_count": 9, "page_count": last, "page_size": 20, "page": page, "results": works}


def endless(fields):
    number = int(fields["page"])
    return answer_of([work(20 * number + n) for n in range(20)], number, 164)


def test_it_is_searched_page_by_page():
    def answer(fields):
        number = int(fields["page"])
        works = [work(n) for n in range(20 * number - 20, min(20 * number, 50))]
        return answer_of(works, number, 3)

    found, sent = walk(Openverse(), answer, "AT&T logo", licence="modify")
    assert [one.url for one in found] == [f"https://img.test/{n}.jpg" for n in range(50)]
    first = found[0]
    assert (first.page_url, first.thumbnail) == (
        "https://page.test/0",
        "https://api.test/0/thumb/",
    )
    assert (first.title, first.creator, first.licence) == ("work 0", "Bo", "CC BY-NC 2.0")
    assert first.licence_url == "https://creativecommons.org/licenses/by-nc/2.0/"
    assert [one["page"] for one in sent] == ["1", "2", "3"]
    assert {(one["q"], one["page_size"], one["license_type"]) for one in sent} == {
        ("AT&T logo", "20", "modification")
    }


def test_the_anonymous_have_twelve_pages_of_a_query_and_twenty_a_minute():
    found, sent = walk(Openverse(), endless)
    assert (len(found), len(sent)) == (240, 12)
    engine = Openverse()
    assert engine.page_gap == 3.0
    assert (engine.budget.per_minute, engine.budget.per_day) == (20, 200)
    assert engine.headers == {}


def test_a_token_gives_more_and_is_sent_in_a_header(token):
    found, sent = walk(Openverse(), endless)
    assert (len(found), len(sent)) == (400, 20)
    engine = Openverse()
    assert engine.page_gap == 0.6
    assert (engine.budget.per_minute, engine.budget.per_day) == (100, 10_000)
    assert engine.headers == {"Authorization": "Bearer tok"}


@pytest.mark.parametrize(
    ("start", "last", "expected"),
    [(1, 3, 2), (3, 3, None), (1, 0, None), (1, None, 2), (1, "x", 2), (1, -1, 2), (1, "9", 2)],
)
def test_the_pages_end_where_it_says(start, last, expected):
    assert read(Openverse(), answer_of([work(1)], start, last), start).next == expected
    assert read(Openverse(), answer_of([], start, last), start).next is None


def test_the_thumbnail_is_not_taken_since_it_is_a_request_to_the_api():
    (found,) = read(Openverse(), answer_of([work(1)]), side=128).results
    assert (found.url, found.original) == ("https://img.test/1.jpg", "")
    assert not Openverse.sized


def test_licences_are_mapped_both_ways():
    sent = {
        licence: {
            name: value
            for name, value in asked(Openverse(), licence=licence).items()
            if name.startswith("license")
        }
        for licence in ("any", *LICENCES)
    }
    assert sent == {
        "any": {},
        "creative-commons": {"license_type": "all-cc"},
        "commercial": {"license_type": "commercial"},
        "modify": {"license_type": "modification"},
        "public-domain": {"license": "cc0,pdm"},
    }
    refuses_licences(Openverse(), ", ".join(LICENCES))
    rows = [
        work(1, license="cc0", license_version="1.0"),
        work(2, license="pdm", license_version="1.0"),
        work(3, license=None, license_version=None),
        {"url": None},
        3,
    ]
    found = read(Openverse(), answer_of(rows)).results
    assert [one.licence for one in found] == ["CC0 1.0", "Public Domain Mark 1.0", ""]


THROTTLED = "Request was throttled. Expected available in 3600 seconds."
DEPTH = "anonymous requests may not exceed a total of 240 results"


@pytest.mark.parametrize(
    ("status", "detail", "kind", "pause"),
    [
        (429, THROTTLED, NotNow, 3600.0),
        (429, "Request was throttled. Expected available in 1 second.", NotNow, 1.0),
        (429, "Request was throttled.", NotNow, None),
        (429, f"throttled, available in {'9' * 500} seconds", NotNow, None),
        (401, DEPTH, NoMore, None),
        (400, "Deep pagination is not allowed.", NoMore, None),
        (404, "Invalid page.", NoMore, None),
        (401, "The access token has expired.", Refused, None),
        (401, "page_size may not exceed 20 for anonymous requests", Refused, None),
        (400, "Invalid input given for fields.", Refused, None),
        (403, "Forbidden", Refused, None),
    ],
)
def test_a_refusal_is_told_by_what_it_says(status, detail, kind, pause):
    found = Openverse().refusal(status, body({"detail": detail}))
    assert type(found) is kind
    assert str(found).startswith(detail)
    assert getattr(found, "pause", None) == pause
    assert ("OPENVERSE_TOKEN" in str(found)) == (kind is Refused and status == 401)


def test_a_refusal_under_status_200_is_one_all_the_same():
    for detail, kind in ((THROTTLED, NotNow), (DEPTH, NoMore)):
        with pytest.raises(kind, match=detail):
            read(Openverse(), {"detail": detail})


def test_a_refusal_without_a_reason_means_what_http_says():
    for status in (400, 401, 403, 404, 429, 500, 503):
        for said in (b"", b"[]", b"<h1>Bad gateway</h1>", b'{"detail": ["x"]}', b"[" * 100_000):
            assert Openverse().refusal(status, said) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"detail": "Not what you think."}, "Not what you think"),
        ({}, "no list"),
        ({"results": {}}, "no list"),
        ([], "no JSON object"),
    ],
)
def test_an_answer_of_another_kind_is_unreadable(answer, reason):
    with pytest.raises(Unreadable, match=reason):
        read(Openverse(), answer)


def test_an_empty_answer_is_a_refusal_for_now():
    with pytest.raises(NotNow, match="empty"):
        read(Openverse(), b"")
