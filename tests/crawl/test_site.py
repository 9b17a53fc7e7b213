import asyncio
import time
from email.utils import formatdate

import pytest

from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.site import site_candidates
from kd3_pipeline.errors import ExternalError, UserError
from tests.crawl.hosts import Host, redirect, reply, serving
from tests.crawl.listener import Listener

US = "kd3-pipeline/1.0 (+https://example.com)"
HTML = {"Content_Type": "text/html; charset=utf-8"}


def page(body, head="", **headers):
    text = f"<!doctype html><title>A page</title>{head}<body>{body}"
    return reply(text.encode(), **(HTML | headers))


def crawled(routes, start="http://0.test/", depth=1, gap=0.0, advance=no_progress, others=()):
    """What is found, and the host, whose `requests` say what was asked."""
    host = Host(routes)
    with serving(host, *others) as hosts:
        found = site_candidates(start, depth, gap, Web(US, hosts), advance)
    return found, host


def urls(routes, **options):
    return [one.url for one in crawled(routes, **options)[0]]


def test_images_are_found_in_all_their_places():
    body = """
      <img src="a.jpg" alt=" A red
        car "> <img src=/b/b.png title="a title"><img src="a.jpg#again">
      <img src="small.jpg" srcset="middle.jpg 400w, large.jpg 800w" alt="">
      <img src="once.jpg" srcset="once.jpg, twice.jpg 2x">
      <picture><source type="image/heic" srcset="p.heic 2000w">
        <source type="image/webp" srcset="p.webp 900w, q.webp 1800w"><img src="p.jpg"></picture>
      <img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" data-src="late.webp">
      <a href="full.JPEG?size=1"><img src="thumb.gif" alt="a boat"></a>
      <a href=full.bmp title="a hill">full</a><a href="full.AVIF">best</a><a href=f.heic>no</a>
      <img src="//cdn.example/c.jpg"><img src="https://other.example/d e.jpg">
      <img src=""><img><img src="http://["><img src="javascript:x"><img src="file:///x.png">
    """
    head = '<link rel="icon image_src" href="/link.png"><meta property=og:image content="og.jpg">'
    found, _ = crawled({"/sub/": page(body, head)}, "http://0.test/sub/#part")
    assert [(one.url.replace("http://0.test", ""), one.title) for one in found] == [
        ("/link.png", "A page"),
        ("/sub/og.jpg", "A page"),
        ("/sub/a.jpg", "A red car"),
        ("/b/b.png", "a title"),
        ("/sub/large.jpg", ""),
        ("/sub/twice.jpg", ""),
        ("/sub/q.webp", ""),
        ("/sub/late.webp", ""),
        ("/sub/full.JPEG?size=1", "a boat"),
        ("/sub/thumb.gif", "a boat"),
        ("/sub/full.bmp", "a hill"),
        ("/sub/full.AVIF", ""),
        ("http://cdn.example/c.jpg", ""),
        ("https://other.example/d%20e.jpg", ""),
    ]
    assert [one.rank for one in found] == list(range(14))
    assert {one.page_url for one in found} == {"http://0.test/sub/"}
    assert {(one.label, one.class_name, one.engine) for one in found} == {(-1, "", "site")}


TREE = {
    "/": page('<a href="/x">x</a> <a href="/y#z">y</a> <a href="/y">y</a><img src=0.jpg>'),
    "/x": page('<a href="/x/deep">deep</a><a href="/">up</a><img src=1.jpg>'),
    "/y": page('<a href="/x">x</a><img src=2.jpg><img src=0.jpg>'),
    "/x/deep": page("<img src=/3.jpg><a href=/x/deep/er>more</a>"),
    "/x/deep/er": page("<img src=/4.jpg>"),
}


@pytest.mark.parametrize("depth, images, pages", [(0, 1, 1), (1, 3, 3), (2, 4, 4), (8, 5, 5)])
def test_links_are_followed_breadth_first_to_their_depth(depth, images, pages):
    found, host = crawled(TREE, depth=depth)
    assert [one.url for one in found] == [f"http://0.test/{n}.jpg" for n in range(images)]
    assert host.images_asked() == pages
    assert set(host.requests.values()) == {1}  # robots.txt too
    assert crawled(TREE, depth=depth)[0] == found


def test_no_other_host_is_asked():
    other = Listener({"/": page("<img src=secret.jpg>")})
    links = (
        "http://1.test/ //1.test/ http://0.test.1.test/ http://0.test@1.test/ http://1.test/0.test"
    )
    links += f" http://127.0.0.1:{other.server_port}/ http://localhost:{other.server_port}/"
    links += " ftp://0.test/ mailto:x@0.test javascript:void(0) http://[ http://0.test:22/ # ?"
    body = "<img src=a.jpg>" + "".join(f'<a href="{link}">x</a>' for link in links.split())
    body += "<a href=/away>x</a><a href=/home>x</a>"
    routes = {"/": page(body), "/away": redirect("http://1.test/"), "/home": redirect("/in")}
    found, host = crawled(routes | {"/in": page("<img src=in.jpg>")}, others=[other])
    assert [one.url for one in found] == ["http://0.test/a.jpg", "http://0.test/in.jpg"]
    assert found[1].page_url == "http://0.test/in"
    assert other.connections == 0
    assert host.requests["/away"] == host.requests["/in"] == 1


def test_the_host_is_where_the_start_leads_to():
    other = Host({"/": page("<img src=a.jpg><a href=/b>b</a>"), "/b": page("<img src=b.jpg>")})
    found, _ = crawled({"/": redirect("http://1.test/")}, others=[other])
    assert [one.url for one in found] == ["http://1.test/a.jpg", "http://1.test/b.jpg"]


def test_base_changes_where_links_lead():
    routes = {
        "/": page("<img src=a.jpg><a href=b>b</a>", "<base href=/sub/>"),
        "/sub/b": page("<img src=b.jpg>"),
    }
    assert urls(routes) == ["http://0.test/sub/a.jpg", "http://0.test/sub/b.jpg"]


def wiki(*names):
    """Pages of a wiki: thumbnails that lead to the pages of their files, and those pages."""
    thumbs = "".join(f'<a href="/wiki/{n}.jpg"><img src="/t/{i}.jpg"></a>' for i, n in names)
    files = {
        f"/wiki/{name}.jpg": page(f'<a href="/images/full{index}.jpg">original</a>')
        for index, name in names
    }
    return {
        "/wiki/Cat": page(thumbs),
        "/images/full0.jpg": reply(b"x", Content_Type="image/jpeg"),
    } | files


NAME_SPACES = (
    *("File:Cat", "Datei:Cat", "Fichier:Le_chat", "%D0%A4%D0%B0%D0%B9%D0%BB:Cat", "File%3ACat"),
    *("Image:Cat", "Wikipedia_talk:Cat", "%E3%83%95%E3%82%A1%E3%82%A4%E3%83%AB:Cat", "File:12:30"),
)


@pytest.mark.parametrize("name", NAME_SPACES)
def test_the_page_of_a_wikis_file_is_no_image_and_is_followed(name):
    routes = wiki((0, name))
    start = "http://0.test/wiki/Cat"
    assert urls(routes, start=start, depth=0) == ["http://0.test/t/0.jpg"]
    found, host = crawled(routes, start=start, depth=1)
    assert [one.url for one in found] == ["http://0.test/t/0.jpg", "http://0.test/images/full0.jpg"]
    assert host.requests[f"/wiki/{name}.jpg"] == 1


@pytest.mark.parametrize(
    "name", ["12:30.jpg", "Screenshot_12:30.jpg", "a:.jpg", "x:y.jpg", ":a.jpg"]
)
def test_a_colon_alone_makes_no_page(name):
    routes = {
        "/": page(f"<a href=./{name}>x</a>"),
        f"/{name}": reply(b"x", Content_Type="image/jpeg"),
    }
    assert urls(routes) == [f"http://0.test/{name}"]


def test_a_wikis_file_elsewhere_is_no_image():
    assert urls({"/": page("<img src=a.jpg><a href=http://1.test/wiki/File:X.jpg>x</a>")}) == [
        "http://0.test/a.jpg"
    ]


def test_a_fragment_that_ends_as_an_image_is_none():
    routes = {"/": page("<img src=a.jpg><a href='/cat#/media/File:X.jpg'>x</a>"), "/cat": page("x")}
    found, host = crawled(routes)
    assert [one.url for one in found] == ["http://0.test/a.jpg"]
    assert host.requests["/cat"] == 1


def test_pages_named_as_images_are_followed_and_one_of_a_kind_tells():
    links = "".join(f"<a href=/photo/{n}/page.jpg>x</a>" for n in range(4))
    links += "".join(f"<a href=/full/{n}.jpg>x</a>" for n in range(4))
    routes = {"/": page(links)}
    routes |= {f"/photo/{n}/page.jpg": page(f"<img src=/i/{n}.png>") for n in range(4)}
    routes |= {f"/full/{n}.jpg": reply(b"x", Content_Type="image/jpeg") for n in range(4)}
    full = [f"http://0.test/full/{n}.jpg" for n in range(4)]
    found, host = crawled(routes, depth=0)
    assert [one.url for one in found] == full
    asked = [path for path in host.requests if path.endswith(".jpg")]
    assert asked == ["/photo/0/page.jpg", "/full/0.jpg"]
    found, host = crawled(routes, depth=1)
    assert [one.url for one in found] == full + [f"http://0.test/i/{n}.png" for n in range(4)]
    assert host.requests["/full/1.jpg"] == 0


def test_an_image_among_pages_named_so_is_taken():
    routes = {
        "/": page("<a href=/photo/0.jpg>x</a><a href=/photo/1.jpg>x</a>"),
        "/photo/0.jpg": page("<img src=/a.png>"),
        "/photo/1.jpg": reply(b"x", Content_Type="image/jpeg"),
    }
    assert urls(routes) == ["http://0.test/a.png", "http://0.test/photo/1.jpg"]


def test_a_link_that_cannot_be_had_says_nothing_of_its_kind():
    routes = {
        "/": page("".join(f"<a href=/photo/{n}.jpg>x</a>" for n in range(3))),
        "/photo/0.jpg": reply(b"", 404),
        "/photo/1.jpg": page("<img src=/a.png>"),
        "/photo/2.jpg": page("<img src=/b.png>"),
    }
    found = urls(routes)
    assert found == ["http://0.test/photo/0.jpg", "http://0.test/a.png", "http://0.test/b.png"]


def test_a_link_to_what_the_page_shows_is_not_asked_for():
    _, host = crawled({"/": page("<a href=/a/1.jpg><img src=/a/1.jpg></a>")})
    assert host.requests["/a/1.jpg"] == 0


def test_a_link_that_robots_txt_closes_is_not_asked_for():
    rules = robots("User-agent: *", "Disallow: /photo")
    _, host = crawled({"/": page("<a href=/photo/1.jpg>x</a>"), "/robots.txt": rules})
    assert host.requests["/photo/1.jpg"] == 0


def test_few_links_are_asked_for_to_know_their_kind(monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.site.MOST_TRIED", 3)
    links = "".join(f"<a href=/{letter}/1.jpg>x</a>" for letter in "abcdefgh")
    found, host = crawled({"/": page(links)}, depth=0)
    assert len(found) == 8
    assert sum(count for path, count in host.requests.items() if path.endswith(".jpg")) == 3


def robots(*lines):
    return reply("\n".join(lines).encode(), Content_Type="text/plain")


@pytest.mark.parametrize("name", ["*", "kd3-pipeline", "KD3-Pipeline"])
def test_robots_txt_is_obeyed(name):
    rules = robots(f"User-agent: {name}", "Disallow: /x", "Allow: /x/deep$")
    found, host = crawled(TREE | {"/robots.txt": rules}, depth=8)
    assert [one.url[-5:] for one in found] == ["0.jpg", "2.jpg"]
    assert host.requests["/x"] == 0


def test_rules_for_others_do_not_bind():
    rules = robots("User-agent: otherbot", "Disallow: /")
    assert len(urls(TREE | {"/robots.txt": rules}, depth=8)) == 5


@pytest.mark.parametrize(
    "status, read", [(404, True), (403, True), (429, False), (500, False), (503, False)]
)
def test_a_missing_robots_txt_allows_and_an_ill_one_forbids(status, read):
    routes = TREE | {"/robots.txt": reply(b"", status, Retry_After="60")}
    if read:
        assert len(urls(routes)) == 3
        return
    with pytest.raises(ExternalError, match=r"robots\.txt cannot be read"):
        crawled(routes)


@pytest.mark.parametrize("status", [203, 206, 300, 302])
def test_a_robots_txt_forbids_whatever_its_answer_calls_itself(status):
    rules = reply(b"User-agent: *\nDisallow: /\n", status)
    with pytest.raises(ExternalError, match=r"robots\.txt disallows it"):
        crawled(TREE | {"/robots.txt": rules})


@pytest.mark.parametrize("gap, delay", [(0.1, 0), (0.0, 0.1)])
def test_pages_are_asked_for_apart(gap, delay):
    rules = robots("User-agent: *", f"Crawl-delay: {delay}")
    _, host = crawled(TREE | {"/robots.txt": rules}, gap=gap)
    assert len(host.starts) == 5
    gaps = [later - one for one, later in zip(host.starts, host.starts[1:], strict=False)]
    assert min(gaps) > 0.05


OPTED_OUT = [
    ({"X_Robots_Tag": "noai"}, ""),
    ({"X_Robots_Tag": "kd3-pipeline: noimageindex"}, ""),
    ({"TDM_Reservation": "1"}, ""),
    ({}, '<meta name="robots" content="NoIndex, follow">'),
    ({}, '<META NAME=ROBOTS CONTENT="noimageai">'),
    ({}, '<meta name="kd3-pipeline" content="noml">'),
    ({}, '<meta name="tdm-reservation" content="1">'),
]


@pytest.mark.parametrize("headers, head", OPTED_OUT)
def test_images_of_a_page_that_opts_out_are_left_its_links_followed(headers, head):
    body = "<img src=no.jpg><a href=no.png>x</a><a href=/y>y</a>"
    routes = {"/": page(body, head, **headers), "/y": TREE["/y"]}
    assert urls(routes) == ["http://0.test/2.jpg", "http://0.test/0.jpg"]


@pytest.mark.parametrize(
    "headers, head, link",
    [
        ({"X_Robots_Tag": "nofollow"}, "", "<a href=/y>y</a>"),
        ({}, '<meta name="robots" content="index,nofollow">', "<a href=/y>y</a>"),
        ({}, "", '<a href=/y rel="external NoFollow">y</a>'),
    ],
)
def test_links_that_are_not_to_be_followed_are_not(headers, head, link):
    routes = {"/": page("<img src=a.jpg>" + link, head, **headers), "/y": TREE["/y"]}
    found, host = crawled(routes)
    assert [one.url for one in found] == ["http://0.test/a.jpg"]
    assert host.requests["/y"] == 0


def test_none_means_neither_images_nor_links():
    routes = {"/": page("<img src=a.jpg><a href=/y>y</a>", "<meta name=robots content=none>")}
    with pytest.raises(ExternalError, match=r"no image found on 0\.test"):
        crawled(routes)


def test_what_binds_others_binds_not_us():
    head = '<meta name="googlebot" content="noindex"><meta name="robots" content="noarchive">'
    routes = {"/": page("<img src=a.jpg>", head, X_Robots_Tag="otherbot: noai, nofollow")}
    assert urls(routes) == ["http://0.test/a.jpg"]


@pytest.mark.parametrize(
    "route, reason",
    [
        (reply(b"", 404, **HTML), "it answered 404"),
        (reply(b"x", Content_Type="image/jpeg"), "it is no HTML page but 'image/jpeg'"),
        (reply(b"x" * (5 * 2**20 + 1), **HTML), "more than 5,242,880 bytes"),
        (redirect("/"), "more than 5 redirects"),
        (redirect("http://127.0.0.1/"), "127.0.0.1 is not a public address"),
        (redirect("http://[/"), "Invalid IPv6 URL"),
        (lambda request: setattr(request, "close_connection", True), "the connection broke off"),
        (page("<p>text alone"), "no image found"),
        (reply(b"", **HTML), "no image found"),
    ],
)
def test_a_start_that_cannot_be_read_is_told(route, reason):
    with pytest.raises(ExternalError) as caught:
        crawled({"/": route})
    assert "http://0.test/" in str(caught.value) and reason in str(caught.value)


@pytest.mark.parametrize("start", ["", "example.com", "ftp://example.com/", "http://127.0.0.1/"])
def test_a_start_that_is_no_web_address_is_the_users_mistake(start):
    with pytest.raises(UserError, match=r"crawl\.source"):
        crawled({}, start)


def test_pages_behind_the_start_may_fail_and_are_told():
    notes = []
    links = "".join(f"<a href=/{n}>x</a>" for n in (404, "big", "pdf", "gone", "y"))
    routes = {
        "/": page("<img src=a.jpg>" + links),
        "/big": reply(b"x" * (5 * 2**20 + 1), **HTML),
        "/pdf": reply(b"%PDF-", Content_Type="application/pdf"),
        "/gone": lambda request: setattr(request, "close_connection", True),
        "/y": TREE["/y"],
    }
    found, host = crawled(routes, advance=lambda n=1, note="": notes.append((n, note)))
    assert len(found) == 3
    # aiohttp asks twice where a connection just ends
    assert sum(n for n, _ in notes) == host.images_asked() - 1 == 6
    assert any("404" in note for _, note in notes)


def test_pages_that_could_not_be_read_are_told_with_reasons():
    bomb = b"<img " + b" ".join(b"a%d=1" % number for number in range(100_000)) + b">"
    links = "".join(f"<a href=/{n}>x</a>" for n in ("404", "405", "pdf", "bomb", "y"))
    routes = {
        "/": page("<img src=a.jpg>" + links),
        "/pdf": reply(b"%PDF-", Content_Type="application/\x1b[2Jpdf"),
        "/bomb": reply(bomb, **HTML),
        "/y": TREE["/y"],
    }
    lines, host = [], Host(routes)
    with serving(host) as hosts, pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd3_pipeline.crawl.pagereader.SECONDS", 1.0)
        start = "http://0.test/"
        found = site_candidates(start, 1, 0.0, Web(US, hosts), no_progress, lines=lines)
    assert len(found) == 3
    (line,) = lines
    assert line.startswith("4 pages could not be read: 2 (it answered 404), ")
    assert "1 (it is no HTML page but 'application/[2jpdf')" in line
    assert "1 (it takes more than 1 s to read)" in line


def test_a_backslash_in_a_link_does_not_get_around_robots_txt():
    rules = robots("User-agent: *", "Disallow: /x/")
    links = r"<a href='/x\y'>x</a><a href='/x\y.jpg'>x</a><img src=a.jpg>"
    _, host = crawled({"/": page(links), "/robots.txt": rules})
    assert [path for path in host.requests if path.startswith("/x")] == []


def test_a_busy_server_is_asked_once_more():
    def busy(request):
        first = request.asked() == 1
        request.reply(b"", 503, {"Retry-After": "0"}) if first else TREE["/y"](request)

    links = "<a href=/busy>x</a><a href=/ill>x</a><a href=/later>x</a>"
    routes = {
        "/": page("<img src=a.jpg>" + links),
        "/busy": busy,
        "/ill": reply(b"", 429, Retry_After="0"),
        "/later": reply(b"", 429, Retry_After="9" * 400),
    }
    start = time.monotonic()
    found, host = crawled(routes)
    assert len(found) == 3 and time.monotonic() - start < 3
    assert (host.requests["/busy"], host.requests["/ill"], host.requests["/later"]) == (2, 2, 1)


@pytest.mark.parametrize("as_date", [False, True])
def test_a_busy_server_says_when_to_come_back(as_date, monkeypatch):
    slept, sleep = [], asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds: slept.append(seconds) or sleep(0))

    def busy(request):
        wait = formatdate(time.time() + 20, usegmt=True) if as_date else "20"
        first = request.asked() == 1
        request.reply(b"", 503, {"Retry-After": wait}) if first else TREE["/y"](request)

    found, host = crawled({"/": busy})
    assert len(found) == 2 and host.requests["/"] == 2
    assert 18 < max(slept) <= 20


def test_pages_asked_for_have_an_end(monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.site.MOST_PAGES", 30)
    host = Host()
    host.otherwise = lambda request: page(
        "<img src=a.jpg>" + "".join(f"<a href={request.path}{n}/>x</a>" for n in range(20))
    )(request)
    host.routes["/robots.txt"] = reply(b"", 404)
    with serving(host) as hosts:
        found = site_candidates("http://0.test/", 8, 0.0, Web(US, hosts), no_progress)
    assert host.images_asked() == len(found) == 30


@pytest.mark.parametrize("charset", ["utf-8", "shift_jis", "euc-jp"])
@pytest.mark.parametrize("where", ["header", "meta"])
def test_titles_are_read_in_their_encoding(charset, where):
    head = f'<meta charset="{charset}">' if where == "meta" else ""
    text = f"<html><head>{head}<title>x</title></head><img src=a.jpg alt=日本の猫>"
    kind = "text/html" + (f"; charset={charset}" if where == "header" else "")
    found, _ = crawled({"/": reply(text.encode(charset), Content_Type=kind)})
    assert found[0].title == "日本の猫"


HOSTILE = {
    "deep": b"<div>" * 200_000 + b"<img src=a.jpg>",
    "links": b"".join(b"<a href=//%d.test/>" % number for number in range(50_000)),
    "images": b"".join(b"<img src=%d.jpg>" % number for number in range(50_000)),
    "pictures": b"<picture><source srcset=x>" * 30_000 + b"<img src=a.jpg>" * 1000,
    "srcset of commas": b"<img srcset='" + b"," * 1_000_000 + b"'>",
    "srcset of words": b"<img srcset='" + b"x " * 500_000 + b"'>",
    "srcset of one word": b"<img srcset='" + b"x," * 500_000 + b"'>",
    "attributes": b"<img " + b"a=b " * 300_000 + b"src=a.jpg>",
    "entities": b"&" * 1_000_000,
    "zeros": bytes(1_000_000),
    "half a tag": b"<img src='" + b"x" * 1_000_000,
    "bad text": b"\xff\xfe<img src=\xff\xff.jpg alt='\xed\xa0\x80'>",
    "unknown encoding": b"<meta charset=none><img src=\xe4.jpg>",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pages_are_survived_quickly(case):
    start = time.process_time()
    odd = reply(HOSTILE[case], Content_Type="text/html; charset=punycode")
    found, _ = crawled({"/": page("<img src=a.jpg><a href=/odd>x</a>"), "/odd": odd})
    assert found[0].url == "http://0.test/a.jpg"
    assert time.process_time() - start < 5
