import gzip
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests

from pipeline.crawl import guard
from pipeline.crawl.guard import Forbidden
from pipeline.crawl.session import ForbiddenAddress, TooLarge, guarded_session, read
from tests.crawl.hosts import Host, redirect, reply, serving
from tests.crawl.listener import Listener

SECONDS = 5.0


def asked(hosts, url, **options):
    with guarded_session("kd3-test/1", hosts) as session:
        return session.get(url, timeout=SECONDS, **options)


def test_a_page_comes_from_the_host_table(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    page = Host({"/a": reply(b"text")})
    with serving(page) as hosts:
        assert asked(hosts, "http://0.test/a?b=c").content == b"text"
    assert page.headers[0]["User-Agent"] == "kd3-test/1"
    assert page.headers[0]["Host"] == "0.test"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://１２７.0.0.1:{port}/",
        "http://127.0.0.%31:{port}/",
        "http://0.test@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@0.test/",
        "http://user:word@0.test/",
        "http://0.test:22/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/",
    ],
)
def test_no_hostile_address_is_asked_for(url):
    secret, door = Listener(), Host()
    with serving(door, secret) as hosts:
        port = hosts.pop("1.test")[1]
        url = url.replace("{port}", str(port))
        with pytest.raises(requests.RequestException):
            asked(hosts, url)
        door.routes["/"] = redirect(url.encode().decode("latin-1"))
        with pytest.raises(requests.RequestException):
            asked(hosts, "http://0.test/")
        with pytest.raises(requests.RequestException):
            asked(hosts, "http://0.test/", stream=True, proxies={"http": f"127.0.0.1:{port}"})
    assert secret.requests == {} and secret.connections == 0
    assert door.requests == {"/": 2}


def test_a_backslash_ends_the_name_as_it_does_in_browsers():
    secret, door = Listener(), Host()
    with serving(door, secret) as hosts:
        asked(hosts, f"http://0.test\\@127.0.0.1:{secret.server_port}/")
    assert secret.connections == 0
    assert len(door.targets) == 1


def test_what_is_forbidden_says_so_to_both_kinds_of_caller():
    for kind in (Forbidden, requests.RequestException, ForbiddenAddress):
        with pytest.raises(kind, match=r"127\.0\.0\.1 is not a public address"):
            asked({}, "http://127.0.0.1/")


def dns(monkeypatch, *answers):
    """DNS that gives one answer after the other; IP addresses mean themselves, as ever."""
    real, left, questions = socket.getaddrinfo, list(answers), []

    def getaddrinfo(host, port, *args, **options):
        if host.replace(".", "").replace(":", "").isdigit():
            return real(host, port, *args, **options)
        questions.append(host)
        addresses = left.pop(0)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return questions


def test_a_name_that_changes_its_meaning_gets_no_second_look(monkeypatch):
    # for this test 127.0.0.2 is public: the only way to have a server at a public address
    real = guard.check_address
    monkeypatch.setattr(
        "pipeline.crawl.session.check_address", lambda one: one == "127.0.0.2" or real(one)
    )
    public = Listener({"/": reply(b"public")}, "127.0.0.2")
    secret = Listener({"/": reply(b"secret")}, "127.0.0.1", public.server_port)
    url = f"http://rebinding.example:{public.server_port}/"
    with serving(public, secret):
        questions = dns(monkeypatch, ["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"])
        assert asked({}, url).content == b"public"
        assert len(questions) == 1
        for _ in range(2):
            with pytest.raises(ForbiddenAddress):
                asked({}, url)
    assert public.requests == {"/": 1}
    assert secret.connections == 0


def test_of_several_addresses_one_that_answers_is_taken(monkeypatch):
    monkeypatch.setattr("pipeline.crawl.session.check_address", lambda one: None)
    page = Listener({"/": reply(b"text")}, "127.0.0.2")
    with serving(page):
        dns(monkeypatch, ["127.0.0.3", "127.0.0.2"])
        assert asked({}, f"http://two.example:{page.server_port}/").content == b"text"


def test_a_name_that_does_not_resolve_is_an_error_of_requests():
    with pytest.raises(requests.ConnectionError, match="resolve"):
        asked({}, "http://no-such-name.invalid/")


def test_redirects_are_few_and_their_bodies_are_not_read():
    def endless(request):
        request.send_response(302)
        request.send_header("Location", "/end")
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(1 << 16))
        except OSError:
            request.close_connection = True

    host = Host({"/": endless, "/end": reply(b"end"), "/loop": redirect("/loop")})
    with serving(host) as hosts:
        start = time.monotonic()
        answer = asked(hosts, "http://0.test/")
        assert (answer.content, answer.url) == (b"end", "http://0.test/end")
        assert time.monotonic() - start < SECONDS
        alone = asked(hosts, "http://0.test/", allow_redirects=False, stream=True)
        assert read(alone, 10) == b""
        with pytest.raises(requests.TooManyRedirects):
            asked(hosts, "http://0.test/loop")
    assert host.requests["/loop"] == 6


@pytest.mark.parametrize("location", ["http://[", "http://a\xff.test/", "http://[::1", "//[x]/"])
def test_a_malformed_redirect_is_an_error_of_requests(location):
    def odd(request):
        request.wfile.write(b"HTTP/1.1 302 x\r\nLocation: " + location.encode("latin-1"))
        request.wfile.write(b"\r\nContent-Length: 0\r\n\r\n")

    with serving(Host({"/": odd})) as hosts, pytest.raises(requests.RequestException):
        asked(hosts, "http://0.test/")


def test_no_cookie_is_kept_not_even_in_a_redirect():
    cookies = {"Set_Cookie": "a=b; Path=/"}
    host = Host({"/": reply(b"", 302, Location="/next", **cookies), "/next": reply(b"", **cookies)})
    with serving(host) as hosts, guarded_session("x", hosts) as session:
        for _ in range(2):
            session.get("http://0.test/", timeout=SECONDS)
        assert not session.cookies
    assert len(host.headers) == 4
    assert not any("Cookie" in headers for headers in host.headers)


def test_a_request_without_a_timeout_is_a_mistake():
    with guarded_session("x", {}) as session, pytest.raises(ValueError, match="timeout"):
        session.get("http://example.com/")


def test_a_body_is_read_up_to_its_limit():
    text = b"x" * 100_000
    packed = gzip.compress(bytes(50_000_000))
    host = Host(
        {
            "/": reply(text),
            "/packed": reply(gzip.compress(text), Content_Encoding="gzip"),
            "/bomb": reply(packed, Content_Encoding="gzip"),
            "/short": _short,
            "/odd": reply(b"no gzip", Content_Encoding="gzip"),
        }
    )
    with serving(host) as hosts:
        for path in ("/", "/packed"):
            assert read(asked(hosts, f"http://0.test{path}", stream=True), 100_000) == text
            with pytest.raises(TooLarge, match="99,999"):
                read(asked(hosts, f"http://0.test{path}", stream=True), 99_999)
        assert read(asked(hosts, "http://0.test/", stream=True), 9, cut=True) == text[:9]
        with pytest.raises(TooLarge):
            read(asked(hosts, "http://0.test/bomb", stream=True), 1_000_000)
        for path in ("/short", "/odd"):
            with pytest.raises(requests.RequestException):
                read(asked(hosts, f"http://0.test{path}", stream=True), 1_000_000)


def _short(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"x")
    request.close_connection = True


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_drips_ends_at_the_deadline(chunked):
    stop = threading.Event()

    def drip(request):
        request.send_response(200)
        if chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            while not stop.wait(0.05):
                request.wfile.write(b"1\r\nx\r\n" if chunked else b"x")
        except OSError:
            request.close_connection = True

    with serving(Host({"/": drip})) as hosts:
        start = time.monotonic()
        with pytest.raises(requests.Timeout):
            read(asked(hosts, "http://0.test/", stream=True), 10_000, seconds=0.3)
        stop.set()
    assert time.monotonic() - start < 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, path = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=DNS:0.test,DNS:1.test"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=0.test", "-addext", names]
    subprocess.run([*command, "-keyout", key, "-out", path], check=True, capture_output=True)
    return key, path


def test_tls_asks_for_the_name_and_trusts_no_stranger(certificate):
    key, path = certificate
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    context.sni_callback = lambda connection, name, _: names.append(name)
    host = Host({"/": reply(b"text")})
    host.socket = context.wrap_socket(host.socket, server_side=True)
    with serving(host) as hosts:
        assert asked(hosts, "https://0.test/", verify=str(path)).content == b"text"
        assert names == ["0.test"]
        with pytest.raises(requests.exceptions.SSLError):
            asked(hosts, "https://0.test/")
        other = {"2.test": hosts["0.test"]}
        with pytest.raises(requests.exceptions.SSLError, match=r"2\.test"):
            asked(other, "https://2.test/", verify=str(path))
    assert host.requests == {"/": 1}
