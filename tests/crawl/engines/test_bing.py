"""Bing: what it is asked, and what its pages say, in every layout that was seen."""

import html
import json
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import pytest

from kd3_pipeline.crawl.engines.bing import LICENCES, Bing
from kd3_pipeline.crawl.engines.engine import NotNow, Query, Result, Unreadable
from kd3_pipeline.demo.server import DemoWeb
from tests.crawl.engines.playing import LONG, asked, read, refuses_licences, walk
from tests.crawl.searching import page


def results_page(numbers, following=None, asked_for="", before=""):
    """A page as Bing gives it to a browser; `following` is its `data-nextUrl`."""
    records = (
        html.escape(json.dumps({"murl": f"http://0.test/{n}.jpg", "t": f"cat {n}"}))
        for n in numbers
    )
    items = "".join(
        f'<li data-idx="{n}"><div class="iuscp isv"><div class="imgpt"><a class="iusc" m="{one}"'
        ' href="/images/search?view=detailV2"><img class="mimg"></a></div></div></li>'
        for n, one in enumerate(records)
    )
    stated = "" if following is None else f' data-nextUrl="{html.escape(following)}" data-iid=""'
    script = f'Bnp.Global.RawRequestURL ="{asked_for}"; Bnp.Global.Referer =null;'
    return (
        f'{before}<div class="dg_b isvctrl"><div id="mmComponent_images_1" class="dgControl hover"'
        f'{stated}><ul class="dgControl_list">{items}</ul></div></div><script>{script}</script>'
    ).encode()


def plain_page(*items):
    """The layout without scripts, for clients that Bing does not take for a browser."""
    rows = "".join(
        f'<div class="item"><a href="{html.escape(url)}" class="thumb" target="_blank">'
        f'<div class="cico"><img width="230" src="http://tse.test/th?id={n}&amp;w=230"/></div></a>'
        f'<div class="meta"><a href="http://page.test/{n}" class="tit">page.test</a>'
        f'<div class="des">{title}</div><div class="fileInfo">1024 x 681 jpeg</div></div></div>'
        for n, (url, title) in enumerate(items)
    )
    return f'<div id="b_content"><div class="content"><div class="row">{rows}</div></div>'.encode()


def test_every_result_is_read_whole():
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


def test_a_page_without_scripts_is_read_too():
    found = read(
        Bing(),
        plain_page(
            ("http://0.test/a'b_(c).jpg", "Botta's <b>Pocket</b>  Gopher &amp; co ..."),
            ("javascript:alert(1)", "no address"),
            (LONG, "too long"),
            ("HTTPS://0.test/2.JPG?a=1&b=2", ""),
        ),
    )
    assert found.results == [
        Result(
            "http://0.test/a'b_(c).jpg",
            "http://page.test/0",
            "Botta's Pocket  Gopher & co ...",
            "http://tse.test/th?id=0&w=230",
        ),
        Result(
            "HTTPS://0.test/2.JPG?a=1&b=2",
            "http://page.test/3",
            thumbnail="http://tse.test/th?id=3&w=230",
        ),
    ]
    assert found.next == 4


def test_a_query_is_sent_encoded_for_one_market_and_without_sexual_images():
    assert asked(Bing(), "AT&T ü #1+", 70) == {
        "q": "AT&T ü #1+",
        "first": "70",
        "count": "35",
        "adlt": "strict",
        "mkt": "en-US",
        "setlang": "en-US",
    }


@pytest.mark.parametrize(
    ("licence", "code"),
    [
        ("creative-commons", "licenseType-Any"),
        ("commercial", "license-L2_L3_L4"),
        ("modify", "license-L2_L3_L5_L6"),
        ("public-domain", "license-L1"),
    ],
)
def test_licence_and_variant_are_filters_that_combine(licence, code):
    def sent(**more):
        return Bing().address(Query("cat", **more), 0).partition("&qft=")[2]

    assert sent() == ""
    assert sent(licence=licence) == f"+filterui:{code}"
    assert sent(variant="color-red") == "+filterui:color2-FGcls_RED"
    both = "+filterui:age-lt525600+filterui:" + code
    assert sent(licence=licence, variant="date-pastyear") == both


def test_every_variant_is_a_filter_of_its_own():
    variants = Bing.variants
    sent = {Bing().address(Query("cat", variant=one), 0) for one in variants}
    assert len(sent) == len(variants) == len(set(variants)) >= 25
    assert variants[0] == "type-photo"
    assert {one.partition("-")[0] for one in variants} == {
        *("type", "size", "color", "layout", "date")
    }
    assert all("qft=+filterui:" in one for one in sent)


def test_the_demo_has_pages_and_no_filters_of_its_own():
    with DemoWeb(50) as web:
        engine = Bing("demo", web.search_url, 0.0)
        found, start, direct = [], 0, build_opener(ProxyHandler({}))
        while start is not None:
            with direct.open(engine.address(Query("star"), start)) as answer:
                page = engine.read(answer.read(), Query("star"), start)
            assert len(page.results) <= engine.budget.page_results
            found, start = [*found, *page.results], page.next
    assert len({one.url for one in found}) == 50
    assert any(one.licence for one in found)
    assert engine.pages_for(50) == 3
    assert engine.variants == ()


def test_a_licence_that_is_no_filter_is_refused():
    refuses_licences(Bing(), ", ".join(LICENCES))


def test_the_next_page_begins_after_what_this_one_holds():
    def answer(fields):
        first = int(fields["first"])
        return results_page(range(first, min(first + 35, 120)), "/images/async?q=cat&mmasync=1")

    def unstated(fields):
        first = int(fields["first"])
        return results_page(range(first, min(first + 20, 50)))

    found, sent = walk(Bing(), answer)
    assert [one.url for one in found] == [f"http://0.test/{n}.jpg" for n in range(120)]
    assert [one["first"] for one in sent] == ["0", "35", "70", "105", "120"]
    found, sent = walk(Bing(), unstated)
    assert [one["first"] for one in sent] == ["0", "20", "40", "50"]
    assert len(found) == 50


def test_a_result_that_cannot_be_read_has_its_place_all_the_same():
    assert read(Bing(), page({"murl": "http://0.test/1"}, "{", "")).next == 3


@pytest.mark.parametrize(
    ("following", "start", "expected"),
    [
        (None, 0, 3),
        ("", 0, None),
        (" \n", 0, None),
        ("x", 0, 3),
        ("/images/async?q=cat&first=37&count=35", 0, 37),
        ("/images/async?q=cat&amp;first=37", 0, 3),  # encoded twice: another field's name
        ("https://evil.test/x?first=40", 0, 40),  # the number alone is believed
        ("/images/async?q=cat&first=35", 35, 38),  # not larger: the page repeats itself
        ("/images/async?q=cat&first=10", 35, 38),
        ("/images/async?q=cat&first=-5", 0, 3),
        ("/images/async?q=cat&first=900", 35, 38),  # past all that lies between
        ("/images/async?q=cat&first=1e2", 0, 3),
        ("/images/async?q=cat&first=%D9%A3%D9%A5", 0, 3),  # Arabic digits
        ("/images/async?q=cat&first=" + "9" * 5000, 0, 3),
        ("/images/async?q=cat&first=999999", 0, 3),
        ("/images/async?q=cat&first=", 0, 3),
        ("javascript:location='?first=50'", 0, 3),
        ("data:text/html,?first=50", 0, 50),
        ("//[::1?first=50", 0, 3),
        ("?" + "&".join(["first=50"] * 500), 0, 3),
        ("?first=50&first=60", 0, 50),
        (None, 990, 993),
        (None, 998, None),  # Bing repeats itself from 1,000 on
        ("?first=1000", 990, 993),
    ],
)
def test_of_the_address_of_the_next_page_only_its_number_is_taken(following, start, expected):
    assert read(Bing(), results_page(range(3), following), start).next == expected


@pytest.mark.parametrize(("stated", "expected"), [(1, 35), (16, 35), (17, 17), (70, 70), (71, 35)])
def test_a_next_page_is_near_the_end_of_this_one(stated, expected):
    assert read(Bing(), results_page(range(35), f"?first={stated}"), 0).next == expected


def test_a_page_without_results_is_one_and_the_end_unless_it_says_more():
    assert read(Bing(), page()).results == []
    assert read(Bing(), page()).next is None
    assert read(Bing(), results_page([], "")).next is None
    assert read(Bing(), results_page([], "?first=70"), 35).next == 70


def test_a_page_tells_the_query_that_it_answers():
    following = "/images/async?q=%e6%8a%98%e7%ba%bf%e5%9b%be&first=35"
    raw = r"/images/async?q=caf%C3%A9%20%22x%22\u0026first=0\u0026count=20"
    assert read(Bing(), results_page([1], following, raw)).query == "折线图"
    assert read(Bing(), results_page([1], "", raw)).query == 'café "x"'
    assert read(Bing(), results_page([1], "")).query == ""
    for nonsense in (r"\u00", "x" * 9000, "//[::1?q=x", "?q="):
        assert read(Bing(), results_page([1], "", nonsense)).query == ""
    long = read(Bing(), results_page([1], f"?q={'x' * 3000}"))
    assert long.query == "x" * 2000


def test_a_title_cannot_say_where_the_next_page_begins_or_what_was_asked():
    forged = f'x data-nextUrl="" RawRequestURL ="?q={quote("dog")}"'
    title = {"murl": "http://0.test/1", "t": forged}
    found = read(Bing(), page(title) + f"<p>{forged}</p>".encode())
    assert (found.next, found.query, found.results[0].title) == (1, "", forged)


@pytest.mark.parametrize("empty", [b"", b"  \n"])
def test_an_empty_page_is_a_refusal_for_now(empty):
    with pytest.raises(NotNow, match="empty"):
        read(Bing(), empty)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html><h1>One last step</h1>Solve the challenge</html>", "neither results nor the mark"),
        (b"<html>Before you continue: cookies</html>", "neither results nor the marks"),
        (b'<html><script>location="/turing/captcha"</script>', "neither results nor the marks"),
        (b'{"error": "x"}', "neither results nor the marks"),
        (b"\0\0", "neither results nor the marks"),
        (b"\xff\xfe\x00", "neither results nor the marks"),
        (page("{new layout", "{}"), "none of its 2 results can be read"),
        (plain_page(("", "x")), "none of its 1 results can be read"),
    ],
)
def test_a_page_of_another_kind_is_no_page_without_results(body, reason):
    with pytest.raises(Unreadable, match=reason):
        read(Bing(), body)


def test_a_page_of_any_depth_is_read():
    for before in ("<div>" * 50_000, "<a><b>" * 50_000, "\0", '<?xml encoding="utf-16"?>'):
        assert len(read(Bing(), results_page(range(35), before=before)).results) == 35, before[:9]
