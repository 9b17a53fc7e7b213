"""Flickr: what it is asked, what its answers say, and which size of a photo is taken."""

import pytest

from kd3_pipeline.crawl.engines.engine import NotNow, Refused, Unreadable
from kd3_pipeline.crawl.engines.flickr import LICENCES, NAMES, Flickr
from kd3_pipeline.errors import UserError
from tests.crawl.engines.playing import LONG, asked, body, read, refuses_licences, walk

SECRET = "0123456789abcdef+/key"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", SECRET)


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


def answer_of(photos, number=1, last=1):
    listed = {"page": number, "pages": last, "perpage": 100, "total": "9", "photo": photos}
    return {"photos": listed, "stat": "ok"}


def test_it_is_searched_page_by_page_with_one_call_each():
    def answer(fields):
        number = int(fields["page"])
        photos = [photo(n) for n in range(100 * number - 100, min(100 * number, 250))]
        return answer_of(photos, number, 3)

    found, sent = walk(Flickr(), answer, "C# & co", licence="commercial")
    assert len(found) == 250
    first = found[0]
    assert (first.url, first.thumbnail) == (
        "https://live.test/0_o.jpg",
        "https://live.test/0_m.jpg",
    )
    assert first.page_url == "https://www.flickr.com/photos/7702423@N04/0"
    assert (first.title, first.creator) == ("photo 0", "Ann")
    assert first.licence == "CC BY 2.0"
    assert first.licence_url == "https://creativecommons.org/licenses/by/2.0/"
    assert [one.pop("page") for one in sent] == ["1", "2", "3"]
    assert (
        sent[0]
        == sent[1]
        == sent[2]
        == {
            "method": "flickr.photos.search",
            "format": "json",
            "nojsoncallback": "1",
            "text": "C# & co",
            "sort": "relevance",
            "media": "photos",
            "safe_search": "1",
            "extras": "license,owner_name,url_s,url_n,url_m,url_z,url_c,url_l,url_o",
            "per_page": "100",
            "license": "4,5,6,9,10,11,12,13",
        }
    )


def test_the_key_is_no_part_of_an_address():
    assert Flickr().secrets == {"api_key": SECRET}
    assert SECRET not in "".join(asked(Flickr()).values())


def test_without_a_key_it_says_where_it_belongs(monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", "  ")
    with pytest.raises(UserError, match="FLICKR_API_KEY"):
        Flickr()


@pytest.mark.parametrize(
    ("start", "number", "last", "expected"),
    [
        (1, 1, 3, 2),
        (3, 3, 3, None),
        (2, "2", "3", 3),
        (2, None, None, 3),
        (2, 2, True, 3),
        (40, 40, 99, None),  # 4,000 results of a query
        (1, 1, -4, 2),
        (1, 1, 10**12, 2),
    ],
)
def test_the_pages_end_where_it_says(start, number, last, expected):
    page = read(Flickr(), answer_of([photo(1)], number, last), start)
    assert len(page.results) == 1
    assert page.next == expected


def test_a_page_that_it_gives_again_holds_nothing():
    for start, number, last in ((5, 4, 4), (5, 5, 4), (1, 1, 0)):
        page = read(Flickr(), answer_of([photo(1)], number, last), start)
        assert (page.results, page.next) == ([], None)
    assert read(Flickr(), answer_of([], 1, 3)).next is None


def test_it_takes_the_best_size_that_there_is():
    rows = [
        photo(1, url_o=None),
        photo(2, url_o="", url_l=3, url_c="c"),
        {"id": "3", "url_m": "m", "owner": "a/../b?", "license": 99},
        {"id": "4"},
        "no photo",
        photo(5, url_l=LONG, url_o=LONG, url_c=LONG, url_m=LONG),
    ]
    found = read(Flickr(), answer_of(rows)).results
    assert [one.url for one in found] == ["https://live.test/1_l.jpg", "c", "m"]
    assert [one.original for one in found] == ["", "", ""]
    assert found[2].page_url == "https://www.flickr.com/photos/a%2F..%2Fb%3F/3"
    assert found[2].licence == ""


SIZES = {  # of a landscape; numbers come as texts too
    **{"width_s": 240, "height_s": 160, "url_s": "s"},
    **{"width_m": "500", "height_m": "333", "url_m": "m"},
    **{"width_l": 1024, "height_l": 683, "url_l": "l"},
    **{"width_o": "6000", "height_o": "4000", "url_o": "o"},
}


@pytest.mark.parametrize(
    ("side", "more", "url", "original"),
    [
        (0, {}, "o", ""),
        (1, {}, "s", "o"),
        (160, {}, "s", "o"),
        (161, {}, "m", "o"),
        (333, {}, "m", "o"),
        (334, {}, "l", "o"),
        (684, {}, "o", ""),
        (9999, {}, "o", ""),
        (334, {"url_o": None}, "l", ""),
        (100, {"url_o": None}, "s", "l"),
        (684, {"url_o": None}, "l", ""),
        (100, {"height_s": None}, "m", "o"),  # a size that is not stated
        (100, {"height_s": -160, "width_m": [500], "width_l": 10**30}, "o", ""),
    ],
)
def test_the_smallest_size_that_is_large_enough_is_taken(side, more, url, original):
    (found,) = read(Flickr(), answer_of([photo(1) | SIZES | more]), side=side).results
    assert (found.url, found.original) == (url, original)


def test_its_licences_are_those_of_its_list():
    kinds = ("by-nc-sa", "by-nc", "by-nc-nd", "by", "by-sa", "by-nd")
    for number, kind in enumerate(kinds, 1):
        name = f"CC {kind.upper()} 2.0"
        assert NAMES[str(number)] == (name, f"https://creativecommons.org/licenses/{kind}/2.0/")
    fourth = {11: "by", 12: "by-sa", 13: "by-nd", 14: "by-nc", 15: "by-nc-sa", 16: "by-nc-nd"}
    for number, kind in fourth.items():
        assert NAMES[str(number)][1] == f"https://creativecommons.org/licenses/{kind}/4.0/"
    assert NAMES["9"][1] == "https://creativecommons.org/publicdomain/zero/1.0/"
    assert NAMES["10"][1] == "https://creativecommons.org/publicdomain/mark/1.0/"
    assert set(NAMES) == {str(number) for number in range(17)}


def test_a_licence_filter_holds_just_the_licences_that_allow_it():
    def allowed(test):
        numbers = (number for number, (_, url) in NAMES.items() if test(url))
        return set(numbers)

    creative = allowed(lambda url: "creativecommons.org/licenses" in url) | {"9"}
    free = allowed(lambda url: "creativecommons.org" in url)
    assert set(LICENCES["creative-commons"].split(",")) == creative
    sold = allowed(lambda url: "creativecommons.org" in url and "-nc" not in url)
    assert set(LICENCES["commercial"].split(",")) == sold
    changed = {number for number in free if "-nd" not in NAMES[number][1]}
    assert set(LICENCES["modify"].split(",")) == changed
    assert LICENCES["public-domain"] == "9,10"
    refuses_licences(Flickr(), ", ".join(LICENCES))


def test_variants_sort_otherwise():
    sent = {one: asked(Flickr(), variant=one)["sort"] for one in Flickr.variants}
    assert sent == {"sort-interesting": "interestingness-desc", "sort-newest": "date-posted-desc"}


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (105, "Service currently unavailable", NotNow),
        ("105", "Service currently unavailable (Site Disabled)", NotNow),
        (106, "Write operation failed", NotNow),
        (10, "Sorry, the Flickr search API is not currently available.", NotNow),
        (0, "Sorry, the Flickr API service is not currently available.", NotNow),
        (201, "Sorry, the Flickr API service is not currently available.", NotNow),
        (999, "Sorry, it is not currently available.", NotNow),
        (100, "Invalid API Key (Key has invalid format)", Refused),
        (3, "Parameterless searches have been disabled.", Refused),
        (112, 'Method "x" not found', Refused),
    ],
)
def test_a_failure_is_told_by_its_code(code, message, kind):
    answer = {"stat": "fail", "code": code, "message": message}
    with pytest.raises(kind) as caught:
        read(Flickr(), answer)
    assert str(caught.value).startswith(f"{message} (code {code})")
    assert ("FLICKR_API_KEY" in str(caught.value)) == (code == 100)
    assert type(Flickr().refusal(400, body(answer))) is kind


def test_an_answer_of_another_status_is_believed_when_it_says_not_now():
    down = b"Sorry, the Flickr API service is not currently available."
    for status in (400, 418, 500):
        assert isinstance(Flickr().refusal(status, down), NotNow)
    assert isinstance(Flickr().refusal(401, b"<h1>Unauthorized</h1>"), Refused)
    for status, said in ((429, b"Too many"), (503, b""), (404, b"[]"), (401, b"")):
        assert Flickr().refusal(status, said) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"stat": "fail"}, "a failure without a name"),
        ({"stat": "fail", "code": [], "message": {}}, "a failure without a name"),
        ({"stat": "ok"}, "no list of photos"),
        ({"stat": "ok", "photos": {"photo": {}}}, "no list of photos"),
        ([], "no JSON object"),
        (b"jsonFlickrApi({})", "no JSON"),
    ],
)
def test_an_answer_of_another_kind_is_unreadable(answer, reason):
    with pytest.raises(Unreadable, match=reason):
        read(Flickr(), answer)


def test_an_empty_answer_is_a_refusal_for_now():
    with pytest.raises(NotNow, match="empty"):
        read(Flickr(), b"")
