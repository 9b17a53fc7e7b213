"""Wikimedia Commons: what it is asked, what its answers say, and which of its pictures is taken."""

import random

import pytest

from kd3_pipeline.crawl.engines.commons import WIDTHS, Commons
from kd3_pipeline.crawl.engines.engine import NoMore, NotNow, Refused, Unreadable
from tests.crawl.engines.playing import asked, body, read, refuses_licences, walk


def file(number, index, mime="image/jpeg", thumb=(500, 375), **metadata):
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
                "thumbwidth": thumb[0],
                "thumbheight": thumb[1],
                "mime": mime,
                "extmetadata": {name: {"value": value} for name, value in names.items()},
            }
        ],
    }


def answer_of(files, **more):
    return {"batchcomplete": True, "query": {"pages": files}} | more


def test_it_is_searched_by_offset_and_keeps_every_licence():
    def answer(fields):
        offset = int(fields["gsroffset"])
        numbers = range(offset, min(offset + 50, 120))
        files = [
            file(n, n + 1, Artist='<a href="//x.test">Ann &amp; <b>Bo</b></a>') for n in numbers
        ]
        random.Random(0).shuffle(files)
        return answer_of(files)

    found, sent = walk(Commons(), answer, "../x 日本")
    assert [one.url for one in found] == [f"https://up.test/{n}.jpg" for n in range(120)]
    first = found[0]
    assert first.page_url == "https://commons.test/wiki/File:0"
    assert first.thumbnail == "https://up.test/thumb/0.jpg"
    assert (first.title, first.creator) == ("Cat 0.jpg", "Ann & Bo")
    assert (first.licence, first.licence_url) == ("CC BY-SA 4.0", "https://cc.test/by-sa")
    assert [one["gsroffset"] for one in sent] == ["0", "50", "100"]
    assert {one["gsrsearch"] for one in sent} == {"../x 日本 filetype:bitmap"}
    assert {(one["generator"], one["gsrnamespace"]) for one in sent} == {("search", "6")}
    assert {one["iiprop"] for one in sent} == {"url|size|mime|extmetadata"}


@pytest.mark.parametrize(
    ("more", "start", "files", "expected"),
    [
        ({"continue": {"gsroffset": 50, "continue": "gsroffset||"}}, 0, 4, 50),
        ({"continue": {"gsroffset": "75"}}, 0, 50, 75),
        ({}, 0, 50, 50),  # it does not say
        ({}, 0, 49, None),
        ({}, 0, 0, None),
        ({"continue": {"gsroffset": 50}}, 50, 50, 100),  # not larger
        ({"continue": {"gsroffset": -50}}, 0, 4, None),
        ({"continue": {"gsroffset": True}}, 0, 4, None),
        ({"continue": {"gsroffset": 1e9}}, 0, 4, None),
        ({"continue": {"gsroffset": 10**4000}}, 0, 4, None),
        ({"continue": ["gsroffset"]}, 0, 4, None),
        ({"continue": {"gsroffset": 10_000}}, 9_950, 50, None),  # a limit of its search
    ],
)
def test_the_next_page_begins_where_the_answer_says(more, start, files, expected):
    pages = [file(n, n) for n in range(files)]
    assert read(Commons(), answer_of(pages, **more), start).next == expected


def test_only_images_are_results():
    kinds = ["image/png", "image/tiff", "application/pdf", "video/webm", "image/gif"]
    files = [file(n, n, mime) for n, mime in enumerate(kinds)]
    files += [{"index": 9}, {"imageinfo": []}, {"imageinfo": [{"url": "u"}]}, "x", None]
    found = read(Commons(), answer_of(files)).results
    assert [(one.url, one.original) for one in found] == [
        ("https://up.test/0.jpg", ""),
        ("https://up.test/thumb/1.jpg", "https://up.test/1.jpg"),
        ("https://up.test/4.jpg", ""),
    ]


@pytest.mark.parametrize(
    ("side", "width"),
    [(0, 500), (1, 20), (10, 20), (11, 40), (128, 330), (256, 960), (896, 1920), (5000, 3840)],
)
def test_a_thumbnail_is_asked_for_in_a_width_that_wikimedia_keeps(side, width):
    assert asked(Commons(), side=side)["iiurlwidth"] == str(width)
    assert width in WIDTHS


@pytest.mark.parametrize(
    ("thumb", "side", "small"),
    [
        ((330, 248), 0, False),
        ((330, 248), 128, True),
        ((330, 128), 128, True),
        ((330, 127), 128, False),  # a panorama
        ((100, 330), 128, False),  # an original of 100 pixels
        ((None, None), 128, False),
        (("330", "248"), 128, True),
        ((-330, -248), 128, False),
        ((True, True), 1, False),
        (([330], {}), 128, False),
    ],
)
def test_the_thumbnail_is_taken_only_if_it_is_large_enough(thumb, side, small):
    (found,) = read(Commons(), answer_of([file(1, 1, thumb=thumb)]), side=side).results
    original = "https://up.test/1.jpg"
    assert found.url == ("https://up.test/thumb/1.jpg" if small else original)
    assert found.original == (original if small else "")


def test_it_filters_what_it_can_and_refuses_the_rest():
    words = {
        licence: asked(Commons(), licence=licence)["gsrsearch"]
        for licence in ("any", "commercial", "modify", "public-domain")
    }
    assert words == {
        "any": "cat filetype:bitmap",
        "commercial": "cat filetype:bitmap",
        "modify": "cat filetype:bitmap",
        "public-domain": "cat filetype:bitmap haslicense:unrestricted",
    }
    refuses_licences(Commons(), "commercial, modify, public-domain", "creative-commons")


@pytest.mark.parametrize(
    ("code", "info", "kind"),
    [
        ("cirrussearch-too-busy-error", "Search is currently too busy.", NotNow),
        ("cirrussearch-too-busy-for-you-anonymous-error", "Too many searches.", NotNow),
        ("cirrussearch-backend-error", "a temporary problem", NotNow),
        ("ratelimited", "You've exceeded your rate limit.", NotNow),
        ("maxlag", "Waiting for 10.64.16.7: 6.2 seconds lagged.", NotNow),
        ("readonly", "The wiki is currently in read-only mode.", NotNow),
        ("internal_api_error_DBQueryError", "[a1b2] Caught exception of type X.", NotNow),
        ("new-code", "Please try again later.", NotNow),
        ("badvalue", 'Unrecognized value for parameter "action": x.', Refused),
        ("blocked", "You have been blocked from editing.", Refused),
        ("cirrussearch-query-too-long", "Search request is longer than 300.", Refused),
        ("cirrussearch-offset-too-large", "Up to 10000 search results are supported", NoMore),
    ],
)
def test_an_error_of_the_api_is_told_by_its_code(code, info, kind):
    answer = {"error": {"code": code, "info": info}}
    with pytest.raises(kind) as caught:
        read(Commons(), answer)
    assert str(caught.value) == f"{info} ({code})"
    for status in (200, 400, 429, 503):
        refusal = Commons().refusal(status, body(answer))
        assert type(refusal) is kind
        assert str(refusal) == f"{info} ({code})"


@pytest.mark.parametrize("answer", [{"batchcomplete": True}, {"batchcomplete": "", "limits": {}}])
def test_an_answer_without_error_and_query_is_a_page_without_results(answer):
    page = read(Commons(), answer)
    assert (page.results, page.next) == ([], None)
    assert read(Commons(), answer | {"continue": {"gsroffset": 50}}).next == 50


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": 3}, "an error without a name"),
        ({"error": {"code": 3, "info": []}}, "an error without a name"),
        ({"warnings": {}}, "no answer to a query"),
        ({"query": {"pages": {}}}, "no list of pages"),
        ({"query": 3}, "no list of pages"),
        (b"<html>Too many requests</html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"query": {"pages": [' + b"9" * 5000 + b"]}}", "no JSON"),
    ],
)
def test_an_answer_of_another_kind_is_unreadable(answer, reason):
    with pytest.raises(Unreadable, match=reason):
        read(Commons(), answer)


def test_an_empty_answer_is_a_refusal_for_now():
    with pytest.raises(NotNow, match="empty"):
        read(Commons(), b"\n")


def test_a_robot_without_a_contact_is_told_what_wikimedia_says():
    said = b"\nPlease set a user-agent and respect our robot policy https://w.test/4.\nMore.\n"
    refusal = Commons().refusal(403, said)
    assert isinstance(refusal, Refused)
    assert str(refusal).startswith("Please set a user-agent and respect our robot policy https://")
    assert "crawl.contact" in str(refusal) and "More" not in str(refusal)
    assert Commons.budget.contact
    assert isinstance(Commons().refusal(403, b""), Refused)
    assert Commons().refusal(429, said) is None
    assert Commons().refusal(503, b"\xff" * 9) is None
