import gzip
import time

import pytest

from kd3_pipeline.crawl.robots import MAX_BYTES, rules_of
from tests.crawl.hosts import (
    Host,
    candidates_of,
    chunks,
    crawl,
    image,
    outcomes,
    raw,
    redirect,
    reply,
    serving,
    silent,
)


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("User-agent: *\nDisallow: /a", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /a", "/b/a.jpg", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b.jpg", True),  # the longest match
        ("User-agent: *\nAllow: /a\nDisallow: /a/b", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a.jpg", True),  # of equals, the kinder one
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg?size=1", True),
        ("User-agent: *\nDisallow: /a%C3%A4", "/aä.jpg", False),
        ("User-agent: *\nDisallow: /?q=", "/?q=1", False),
        ("User-agent: *\nDisallow:", "/a.jpg", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: kd3-pipeline\nDisallow: /b", "/a.jpg", True),
        ("User-agent: KD3-Pipeline/2.0 # ours\nDisallow: /", "/a.jpg", False),
        ("User-agent: x\nUser-agent: kd3-pipeline\nDisallow: /", "/a.jpg", False),
        ("User-agent: kd3\nDisallow: /", "/a.jpg", True),  # somebody else
        ("User-agent: pipeline\nDisallow: /", "/a.jpg", True),
        ("User-agent: kd3-pipeline-2\nDisallow: /", "/a.jpg", True),
        ("User-agent: kd3-pipeline\nDisallow: /a\nUser-agent: x\nDisallow: /b", "/b.jpg", True),
        (
            "User-agent: kd3-pipeline\nAllow: /c\n\nUser-agent: kd3-pipeline\nDisallow: /b",
            "/b.jpg",
            False,
        ),
        ("\ufeffUser-agent: *\r\nDisallow: /", "/a.jpg", False),
        ("User-agent: *\rDisallow: /\r", "/a.jpg", False),  # of an old Macintosh
        ("\0" * 5000, "/a.jpg", True),
        ("User-agent: *\nDisallow: /%61.jpg", "/a.jpg", False),
        ("User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /", "/a.jpg", True),
        ("User-agent: Googlebot-Image\nDisallow: /", "/a.jpg", True),
        ("User-agent: *\n\n  \nDisallow: /", "/a.jpg", False),  # a blank line means nothing
        ("Disallow: /", "/a.jpg", True),  # nobody's
        ("User-agent: *bot\nDisallow: /", "/a.jpg", True),  # a name, and no star for everybody
        ("User-agent: * # all\nDisallow: /", "/a.jpg", False),
        ("<html>", "/a.jpg", True),
        ("", "/a.jpg", True),
    ],
)
def test_rules_are_read_as_the_standard_says(text, path, allowed):
    assert rules_of(text.encode()).allow(f"http://0.test{path}") is allowed


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2.5", 2.5), ("3600", 30), ("nan", 0), ("inf", 0), ("-1", 0), ("soon", 0), ("", 0)],
)
def test_a_delay_between_requests_is_believed_up_to_half_a_minute(text, seconds):
    assert rules_of(f"User-agent: *\nCrawl-delay: {text}".encode()).delay == seconds


@pytest.mark.parametrize(
    "line",
    [
        "User-agent: {n}\n",
        "Disallow: /{n}*a\n",
        "User-agent: {n}\nDisallow: /{n}\n",
        "Useragent {n}\n",
        "Disallow: " + "/*" * 400 + "\n",
    ],
)
def test_half_a_megabyte_of_rules_takes_no_time(line):
    half = "".join(line.format(n=n) for n in range(MAX_BYTES // 2 // len(line)))
    text = half + "User-agent: *\n" + "Disallow: /x\n" * (MAX_BYTES // 26)
    start = time.process_time()
    rules = rules_of(text.encode())
    assert rules.allow("http://0.test/" + "a" * 2000 + ".jpg")
    assert time.process_time() - start < 2


def test_a_rule_that_is_cut_in_half_is_none():
    text = b"User-agent: *\nAllow: /\n".ljust(MAX_BYTES - 11, b"#") + b"\nDisallow: /private\n"
    assert rules_of(text).allow("http://0.test/a.jpg")


FORBIDS = b"User-agent: *\nDisallow: /\n"
ROBOTS = {  # robots.txt -> what its images give, and how often it is asked for
    "missing": (reply(b"", 404), "ok", 1),
    "empty": (reply(b""), "ok", 1),
    "no_content": (reply(b"", 204), "ok", 1),
    "refused": (reply(b"", 403), "ok", 1),
    "allows": (reply(b"User-agent: *\nDisallow: /private/\n"), "ok", 1),
    "other": (reply(b"User-agent: somebody\nDisallow: /\n"), "ok", 1),
    "disallows": (reply(b"User-agent: *\nDisallow: /\n"), "robots", 1),
    "longer_than_read": (reply(b"User-agent: *\nDisallow: /\n" + b"#\n" * 400_000), "robots", 1),
    "endless": (chunks(b"User-agent: *\nDisallow: /\n" * 900), "robots", 1),
    "garbage": (reply(bytes(range(256)) * 20), "ok", 1),
    "second_hand": (reply(FORBIDS, 203), "robots", 1),
    "partial": (reply(FORBIDS, 206), "robots", 1),
    "choices": (reply(FORBIDS, 300), "robots", 1),
    "leads_nowhere": (reply(FORBIDS, 302), "robots", 1),
    "busy": (reply(b"", 429, Retry_After="3"), "not_now", 1),
    "refused_for_now": (reply(b"", 408), "not_now", 3),
    "gzip": (reply(gzip.compress(FORBIDS), Content_Encoding="gzip"), "robots", 1),
    "said_to_be_gzip": (reply(FORBIDS, Content_Encoding="gzip"), "robots", 1),
    "said_to_be_utf_8": (reply(FORBIDS, Content_Encoding="UTF-8"), "robots", 1),
    "unknown_encoding": (reply(bytes(range(256)), Content_Encoding="br"), "not_now", 1),
    "gzip_bomb": (
        reply(gzip.compress(FORBIDS + b"#\n" * 9_000_000), Content_Encoding="gzip"),
        "robots",
        1,
    ),
    "packed": (reply(b"\x1f\x8b", Content_Encoding="gzip"), "not_now", 1),
    "ill": (reply(b"oops", 500), "not_now", 3),
    "silent": (silent(2.0), "not_now", 2),
    # what came of it may end before the line that forbids
    "cut_short": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nUser-agent: *\nDisallow:\n"),
        "not_now",
        3,
    ),
    "broken": (raw(b""), "not_now", 6),  # aiohttp asks twice where one just ends
    "recovers": (
        lambda request: reply(b"", 500 if request.asked() == 1 else 404)(request),
        "ok",
        2,
    ),
    "moved": (redirect("/elsewhere.txt"), "robots", 1),
    "far": (redirect("http://0.test/robots-of-another.txt"), "robots", 1),
    "loop": (redirect("/robots.txt"), "not_now", 6),
    "spaced": (redirect("/not found"), "ok", 1),
    "to_a_page": (redirect("/home"), "ok", 1),
    "to_file": (redirect("file:///etc/passwd"), "forbidden_address", 1),
}


@pytest.fixture(scope="module")
def robots(tmp_path_factory):
    servers = {name: Host({"/robots.txt": route}) for name, (route, _, _) in ROBOTS.items()}
    for number, server in enumerate(servers.values()):
        server.routes |= {f"/i/{n}.jpg": image(3 * number + n) for n in range(3)}
    servers["moved"].routes["/elsewhere.txt"] = reply(b"User-agent: *\nDisallow: /i/\n")
    servers["to_a_page"].routes["/home"] = reply(b"<!doctype html>Disallow: /")
    another = reply(b"User-agent: *\nDisallow: /i/\n")
    servers["missing"].routes["/robots-of-another.txt"] = another
    with serving(*servers.values()) as hosts:
        named = {name: f"{number}.test" for number, name in enumerate(servers)}
        urls = [f"http://{host}/i/{n}.jpg" for host in named.values() for n in range(3)]
        folder = tmp_path_factory.mktemp("robots")
        got = outcomes(crawl(folder, candidates_of(urls), hosts, timeout=1.5))
    return {
        name: ({got[f"http://{named[name]}/i/{n}.jpg"] for n in range(3)}, servers[name])
        for name in named
    }


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_txt_is_obeyed(robots, name):
    found, server = robots[name]
    _, outcome, asked = ROBOTS[name]
    assert found == {outcome}
    images = [path for path in server.requests if path.startswith("/i/")]  # some twice, if slow
    assert len(images) == (3 if outcome == "ok" else 0)
    assert server.requests["/robots.txt"] == asked


def test_who_does_not_want_robots_txt_does_not_ask_for_it(tmp_path):
    host = Host({"/robots.txt": reply(b"User-agent: *\nDisallow: /"), "/1.jpg": image(1)})
    with serving(host) as hosts:
        urls = candidates_of(["http://0.test/1.jpg"])
        assert set(outcomes(crawl(tmp_path, urls, hosts)).values()) == {"robots"}
        free = {"robots": False, "opt_outs": "none"}
        assert set(outcomes(crawl(tmp_path, urls, hosts, **free)).values()) == {"ok"}
    assert host.requests == {"/robots.txt": 1, "/1.jpg": 1}


def test_nothing_is_asked_of_an_origin_before_its_robots_txt_is_read(tmp_path):
    slow, quick = Host(), Host({f"/{n}.jpg": image(n) for n in range(100, 170)})

    def rules(request):
        time.sleep(0.4)
        assert slow.images_asked() == 0
        reply(b"User-agent: *\nDisallow: /1")(request)

    slow.routes = {"/robots.txt": rules} | {f"/{n}.jpg": image(n) for n in range(80)}
    with serving(slow, quick) as hosts:
        # more than there are workers wait for it, and none of them is in the others' way
        urls = [f"http://0.test/{n}.jpg" for n in range(80)]
        urls += [f"http://1.test{path}" for path in quick.routes]
        got = outcomes(crawl(tmp_path, candidates_of(urls), hosts))
    assert sum(start < slow.starts[1] for start in quick.starts) > 20
    assert [url for url, outcome in got.items() if outcome != "ok"] == [
        url for url in urls if url.startswith("http://0.test/1")
    ]
    assert slow.requests["/robots.txt"] == 1


def test_crawl_delay_is_the_gap_of_the_host(tmp_path):
    host = Host({f"/{n}.jpg": image(n) for n in range(3)})
    host.routes["/robots.txt"] = reply(b"User-agent: *\nCrawl-delay: 0.3")
    with serving(host) as hosts:
        crawl(tmp_path, candidates_of([f"http://0.test/{n}.jpg" for n in range(3)]), hosts)
    gaps = [later - earlier for earlier, later in zip(host.starts, host.starts[1:], strict=False)]
    assert len(gaps) == 4
    assert min(gaps) > 0.25
