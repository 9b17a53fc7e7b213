import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from kd3_pipeline.demo import server, world
from kd3_pipeline.demo.server import DemoWeb
from kd3_pipeline.errors import UserError

PER_QUERY = 300
PLAN = world.plan(3, PER_QUERY, 0)


@pytest.fixture(scope="module")
def web() -> Iterator[DemoWeb]:
    with DemoWeb(PER_QUERY, named=False) as running:
        yield running


def get(url: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def found(web: DemoWeb, query: str, offset: int) -> list[dict[str, str]]:
    status, body, _ = get(f"{web.search_url}?q={query}&first={offset}")
    assert status == 200
    divs = BeautifulSoup(body, "html.parser").find_all("div", class_="imgpt")
    return [json.loads(div.find("a", class_="iusc")["m"]) for div in divs]


def address(web: DemoWeb, image: world.WebImage, shift: int = 0) -> str:
    host = 1 + (image.host + shift) % web.hosts
    return "http://{}:{}".format(*web.addresses[host]) + image.path


def planned(kind: str) -> world.WebImage:
    return next(image for image in PLAN if image.kind == kind)


def test_pages_of_twenty_results_in_rank_order(web):
    pages = [found(web, "star", offset) for offset in range(0, PER_QUERY + 40, 20)]
    assert [len(page) for page in pages] == [20] * 15 + [0, 0]
    results = [result for page in pages for result in page]
    assert [result["murl"] for result in results] == [address(web, image) for image in PLAN]
    assert [result["t"] for result in results] == [image.title for image in PLAN]
    assert [result["lic"] for result in results] == [image.licence for image in PLAN]


def test_results_are_written_as_the_engine_writes_them(web):
    body = get(f"{web.search_url}?q=star&first=0")[1].decode()
    assert body.count('m="{&quot;murl&quot;:&quot;http://127.0.0.1:') == 20
    assert "<script>" not in body


@pytest.mark.parametrize("query", ["STAR", "a+red+star+photo", "star%20shape", "star%2C+heart"])
def test_a_class_name_in_a_query_finds_the_class(web, query):
    assert found(web, query, 0) == found(web, "star", 0)


@pytest.mark.parametrize("query", ["", "starfish", "%E2%98%85", "dog"])
def test_an_unknown_query_finds_nothing(web, query):
    assert found(web, query, 0) == []


def test_an_offset_that_is_no_number_is_refused(web):
    assert get(f"{web.search_url}?q=star&first=-1")[0] == 400


def test_images_are_served_as_rendered(web):
    for image in PLAN[:60]:
        if image.kind in ("slow", "busy", "not-found"):
            continue
        status, body, headers = get(address(web, image))
        assert (status, body) == (200, world.render(image)[0])
        assert headers["Content-Type"] == world.render(image)[1]
        assert int(headers["Content-Length"]) == len(body)


def test_a_head_request_has_the_headers_alone(web):
    url = found(web, "circle", 0)[0]["murl"]
    _, body, headers = get(url)
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=10)
    connection.request("HEAD", target.path)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert answer.headers["Content-Length"] == headers["Content-Length"] == str(len(body))
    connection.request("GET", target.path)  # nothing of a body was left on the line
    assert connection.getresponse().read() == body
    connection.close()


def test_a_missing_image_is_a_404(web):
    assert get(address(web, planned("not-found")))[0] == 404


def test_a_busy_image_answers_503_once(web):
    image = planned("busy")
    status, _, headers = get(address(web, image))
    assert (status, headers["Retry-After"]) == (503, "0")
    assert get(address(web, image))[:2] == (200, world.render(image)[0])


def test_a_slow_image_is_good_but_late(web, monkeypatch):
    monkeypatch.setattr(server, "SLOW_SECONDS", 0.2)
    image = planned("slow")
    start = time.monotonic()
    assert get(address(web, image))[:2] == (200, world.render(image)[0])
    assert time.monotonic() - start >= 0.2


def test_a_host_answers_for_its_own_images_only(web):
    image = planned("right")
    assert get(address(web, image))[0] == 200
    assert [get(address(web, image, shift))[0] for shift in (1, 2, 3)] == [404] * 3


@pytest.mark.parametrize(
    "path",
    ["/", "/i/3/0", "/i/3/0-other.jpg", "/i/77/0-a.jpg", "/i/3/999999-a.jpg", "/i/3/../../etc"],
)
def test_unknown_paths_are_404(web, path):
    for host in web.addresses[1:]:
        assert get("http://{}:{}".format(*host) + path)[0] == 404
    if path != "/":
        assert get("http://{}:{}".format(*web.addresses[0]) + path)[0] == 404


def test_thumbnails_and_pages_of_results(web, tmp_path):
    results = found(web, "star", 0)
    for image, result in zip(PLAN, results, strict=False):
        status, body, _ = get(result["turl"])
        assert status == (404 if image.kind in world.BROKEN_KINDS else 200)
        if status == 200:
            (tmp_path / "thumbnail.jpg").write_bytes(body)
            with Image.open(tmp_path / "thumbnail.jpg") as thumbnail:
                assert (thumbnail.format, max(thumbnail.size) <= 64) == ("JPEG", True)
        status, body, _ = get(result["purl"])
        page = BeautifulSoup(body, "html.parser")
        assert page.h1.get_text() == image.title
        assert page.img["src"] == image.path


def test_the_human_pages_escape_hostile_titles_and_queries(web):
    origin = "http://{}:{}".format(*web.addresses[0])
    query = "star%22%3E%3Cscript%3Ealert(2)%3C/script%3E"
    body = get(f"{origin}/search?q={query}")[1].decode()
    page = BeautifulSoup(body, "html.parser")
    assert "alert" in page.get_text()
    assert page.find("script") is None
    assert not [tag for tag in page.find_all("img") if tag.has_attr("onerror")]
    assert len(page.find_all("figure")) == PER_QUERY
    assert page.find("input")["value"] == 'star"><script>alert(2)</script>'
    assert get(f"{origin}/")[0] == 200
    assert "No results" in get(f"{origin}/search?q=dog")[1].decode()


def test_equal_bytes_have_equal_md5(web):
    results = [result for at in range(0, PER_QUERY, 20) for result in found(web, "star", at)]
    for image in PLAN:
        if image.change == "exact":
            assert results[image.rank]["md5"] == results[image.copy_of]["md5"]


def test_one_connection_carries_many_requests_without_delay(web):
    image = planned("right")
    url = urlsplit(address(web, image))
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    start = time.monotonic()
    for _ in range(50):
        connection.request("GET", url.path)
        assert connection.getresponse().read() == world.render(image)[0]
    connection.close()
    assert time.monotonic() - start < 1  # a stall of Nagle's algorithm takes 0.04 s a request


def test_requests_are_counted_across_threads():
    with DemoWeb(PER_QUERY) as web:
        image = planned("right")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(get, [address(web, image)] * 64))
        assert {status for status, _, _ in answers} == {200}
        assert web.requests == {image.path: 64}


def test_leaving_closes_ports_connections_and_threads(capfd):
    before = threading.active_count()
    with DemoWeb(5, hosts=2) as web:
        assert len(web.addresses) == 3
        idle = socket.create_connection(web.addresses[1])
        found(web, "ring", 0)
    start = time.monotonic()
    assert idle.recv(1) == b""
    idle.close()
    assert time.monotonic() - start < 1
    for listener in web.addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener)
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert capfd.readouterr() == ("", "")


def test_leaving_does_not_wait_for_a_slow_image(capfd):
    with DemoWeb(PER_QUERY) as web, socket.create_connection(web.addresses[1]) as client:
        slow = next(i for i in PLAN if i.kind == "slow")
        host = web.addresses[1 + slow.host % 4]
        with socket.create_connection(host) as waiting:
            waiting.sendall(f"GET {slow.path} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
            client.sendall(b"nonsense\r\n\r\n")
            time.sleep(0.1)
            start = time.monotonic()
            web.__exit__(None, None, None)
            assert time.monotonic() - start < 0.5
    assert capfd.readouterr() == ("", "")


def test_a_client_that_hangs_up_is_no_error(web, capfd):
    image = planned("slow")
    url = urlsplit(address(web, image))
    for _ in range(3):
        client = socket.create_connection((url.hostname, url.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(f"GET {planned('right').path} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
        client.close()  # with a reset
    time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_given_ports_are_taken_in_a_row_and_a_taken_one_is_named():
    with DemoWeb(1, hosts=1) as other:
        port = other.addresses[0][1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}"), DemoWeb(1, port=port):
            pass
    base = free_row(3)
    with DemoWeb(1, hosts=2, port=base) as web:
        assert web.addresses == tuple(("127.0.0.1", base + k) for k in range(3))
        assert web.search_url == f"http://127.0.0.1:{base}/images/async"


def free_row(count: int) -> int:
    """A port below the system's own range with `count - 1` free ones after it."""
    for base in range(20000, 30000, 7):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, probe in enumerate(sockets):
                probe.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise AssertionError("no free ports")


def test_the_stock_parser_of_icrawler_reads_the_page(web):
    pytest.importorskip("icrawler")
    pytest.importorskip("lxml")
    from types import SimpleNamespace

    from icrawler.builtin.bing import BingParser

    content = get(f"{web.search_url}?q=star&first=0")[1]
    parsed = list(BingParser.parse(None, SimpleNamespace(content=content)))
    addresses = [address(web, image) for image in PLAN[:20] if image.path.endswith(".jpg")]
    assert set(addresses) <= {result["file_url"] for result in parsed}


def test_named_results_have_the_same_urls_on_other_ports_and_others_for_another_seed() -> None:
    urls = []
    for seed in (0, 0, 1):
        with DemoWeb(PER_QUERY, seed) as web:
            urls.append([result.murl for result in web.results("star", 0, 20)])
            hosts = {urlsplit(url).hostname for url in urls[-1]}
            assert hosts <= set(web.names)
            assert set(web.names.values()) == set(web.addresses)
    assert urls[0] == urls[1]
    assert not set(urls[0]) & set(urls[2])
