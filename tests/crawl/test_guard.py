import asyncio
import random
import socket

import aiohttp
import pytest
from aiohttp import ThreadedResolver

from kd3_pipeline.crawl import guard
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.guard import (
    Forbidden,
    GuardedResolver,
    check_address,
    check_url,
    product_name,
)
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.params import Crawl
from tests.crawl.hosts import Host, image, redirect, reply, serving
from tests.crawl.listener import Listener

LIMITS = Crawl(min_side=1, connections_per_host=8, host_gap=0.0, timeout=5.0, per_class=1000)

# {port} is a real server's on loopback that is in no host table
HOSTILE = [
    # schemes
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/x.jpg",
    "ftp://127.0.0.1:{port}/x.jpg",
    "gopher://127.0.0.1:{port}/x.jpg",
    "data:image/png;base64,iVBORw0KGgo=",
    "javascript:alert(1)",
    "ws://127.0.0.1:{port}/x.jpg",
    "unix:///var/run/docker.sock",
    "//127.0.0.1:{port}/x.jpg",
    "x.jpg",
    "",
    # loopback, literally
    "http://127.0.0.1:{port}/x.jpg",
    "https://127.0.0.1:{port}/x.jpg",
    "HTTP://127.0.0.1:{port}/x.jpg",
    "http://127.255.255.254:{port}/x.jpg",
    "http://0.0.0.0:{port}/x.jpg",
    "http://[::1]:{port}/x.jpg",
    "http://[::]:{port}/x.jpg",
    "http://[0:0:0:0:0:0:0:1]:{port}/x.jpg",
    # loopback, oddly spelt
    "http://127.1:{port}/x.jpg",
    "http://127.0.1:{port}/x.jpg",
    "http://2130706433:{port}/x.jpg",
    "http://0x7f000001:{port}/x.jpg",
    "http://0x7f.1:{port}/x.jpg",
    "http://127.0x0.0x0.0x1:{port}/x.jpg",
    "http://0177.0.0.1:{port}/x.jpg",
    "http://017700000001:{port}/x.jpg",
    "http://127.0.0.1.:{port}/x.jpg",
    "http://127.000.000.001:{port}/x.jpg",
    "http://127.0.0.%31:{port}/x.jpg",
    "http://１２７.0.0.1:{port}/x.jpg",
    "http://127。0。0。1:{port}/x.jpg",
    "http://①②⑦.⓪.⓪.①:{port}/x.jpg",
    "http://127.0.0.⑩:{port}/x.jpg",
    "http://⑫7.0.0.1:{port}/x.jpg",
    # loopback and metadata services inside IPv6
    "http://[::ffff:127.0.0.1]:{port}/x.jpg",
    "http://[::ffff:7f00:1]:{port}/x.jpg",
    "http://[::127.0.0.1]:{port}/x.jpg",
    "http://[64:ff9b::7f00:1]:{port}/x.jpg",
    "http://[64:ff9b::a9fe:a9fe]/x.jpg",
    "http://[64:ff9b:1::7f00:1]/x.jpg",
    "http://[2002:7f00:1::]:{port}/x.jpg",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/x.jpg",
    "http://[fe80::1%25eth0]:{port}/x.jpg",
    "http://[fe80::1%eth0]:{port}/x.jpg",
    "http://[::1%25x]:{port}/x.jpg",
    "http://[fc00::1]/x.jpg",
    "http://[fec0::1]/x.jpg",
    "http://[ff02::1]/x.jpg",
    "http://[::ffff:93.184.215.14]/x.jpg",
    "http://[::ffff:0:127.0.0.1]:{port}/x.jpg",
    "http://[2606:2800:220:1:0:5efe:127.0.0.1]:{port}/x.jpg",
    "http://[2606:2800:220:1:200:5efe:7f00:1]:{port}/x.jpg",
    "http://[2606:2800:220:1:248:1893:25c8:1946%25eth0]/x.jpg",
    "http://[2001:2::1]/x.jpg",
    "http://[2001:db8::1]/x.jpg",
    "http://[3fff::1]/x.jpg",
    "http://[5f00::1]/x.jpg",
    "http://[100::1]/x.jpg",
    "http://[v1.127.0.0.1]:{port}/x.jpg",
    # private networks and metadata services
    "http://10.0.0.1/x.jpg",
    "http://172.16.0.1/x.jpg",
    "http://192.168.0.1/x.jpg",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://192.0.0.192/opc/v1/instance/",
    "http://168.63.129.16/machine",
    "http://224.0.0.1/x.jpg",
    "http://255.255.255.255/x.jpg",
    "http://240.0.0.1/x.jpg",
    "http://198.18.0.1/x.jpg",
    "http://192.88.99.1/x.jpg",
    "http://192.0.0.9/x.jpg",
    "http://192.0.2.1/x.jpg",
    "http://198.51.100.1/x.jpg",
    "http://203.0.113.1/x.jpg",
    "http://100.64.0.1/x.jpg",
    "http://169.254.170.2/v2/credentials",
    "http://[fd20:ce::254]/computeMetadata/v1/",
    # names of local networks, and none at all
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://METADATA.GOOGLE.INTERNAL./computeMetadata/v1/",
    "http://x.localhost:{port}/x.jpg",
    "http://localhost.:{port}/x.jpg",
    "http://localhost.localdomain:{port}/x.jpg",
    "http://printer.local/x.jpg",
    "http://nas.lan/x.jpg",
    "http://router.home/x.jpg",
    "http://x.home.arpa/x.jpg",
    "http://wiki.corp/x.jpg",
    "http://wiki.intranet/x.jpg",
    "http://x.onion/x.jpg",
    "http://metadata/computeMetadata/v1/",
    "http://router/x.jpg",
    "http://a..test/x.jpg",
    "http://.test/x.jpg",
    "http://0.test../x.jpg",
    "http://" + "a" * 64 + ".test/x.jpg",
    "http://" + "a." * 130 + "test/x.jpg",
    "http://a.test.0x7f000001/x.jpg",
    "http://a*b.test/x.jpg",
    # names that resolve to loopback
    "http://localhost:{port}/x.jpg",
    "http://LOCALHOST:{port}/x.jpg",
    "http://ⓛocalhost:{port}/x.jpg",
    # credentials and tricks with them
    "http://user:password@1.test/x.jpg",
    "http://user@1.test/x.jpg",
    "http://:secret@1.test/x.jpg",
    "http://0.test@127.0.0.1:{port}/x.jpg",
    "http://0.test:80@127.0.0.1:{port}/x.jpg",
    "http://0.test%40127.0.0.1:{port}/x.jpg",
    "http://127.0.0.1:{port}\\@0.test/x.jpg",
    "http://0.test\\@127.0.0.1:{port}/x.jpg",
    "http://127.0.0.1:{port}#@0.test/x.jpg",
    "http://127.0.0.1:{port}?@0.test/x.jpg",
    # ports, spaces, nothing at all
    "http://0.test:22/x.jpg",
    "http://0.test:25/x.jpg",
    "https://0.test:6379@127.0.0.1:{port}/x.jpg",
    "http://0.test:1023/x.jpg",
    "http://0.test:2049/x.jpg",
    "http://0.test:6000/x.jpg",
    "http://0.test:6667/x.jpg",
    "http://0.test:10080/x.jpg",
    "http://0.test:８０\x00/x.jpg",
    "http://0.test:0/x.jpg",
    "http://0.test:65536/x.jpg",
    "http://0.test:-1/x.jpg",
    "http://0.test:port/x.jpg",
    "http:// 127.0.0.1:{port}/x.jpg",
    "http://\t127.0.0.1:{port}/x.jpg",
    "\nhttp://127.0.0.1:{port}/x.jpg",
    "http://127.0.0.1:{port}/x.jpg\r\nHost: 0.test",
    "http://0.test /x.jpg",
    "http://",
    "http:///x.jpg",
    "http://./x.jpg",
    "http://[/x.jpg",
    "http://@[::1]:{port}/x.jpg",
    "http://user@/[x",
    "http://x:@[",
    "http://0.test\x00.127.0.0.1/x.jpg",
]


def outcomes(folder, urls, hosts):
    candidates = [Candidate(0, "x", "test", "x", rank, url) for rank, url in enumerate(urls)]
    with Journal(folder) as journal:
        found = fetch(candidates, LIMITS, journal, Web("kd3-test/1", hosts), lambda *_: None)
    return {candidate.url: found[candidate].outcome for candidate in candidates}


def secrets():
    """Servers on every address of this machine that the hostile ones may mean, on one port."""
    first = Listener({}, "127.0.0.1")
    found = [first, Listener({}, "127.255.255.254", first.server_port)]
    if socket.has_ipv6:
        found.append(Listener({}, "::1", first.server_port))
    for host in found:
        host.otherwise = image(0)
    return found


def test_no_hostile_address_is_asked_for(tmp_path):
    door, inside = Host(), secrets()
    with serving(door, *inside) as hosts:
        hosts = {"0.test": hosts["0.test"]}
        urls = [url.replace("{port}", str(inside[0].server_port)) for url in HOSTILE]
        got = outcomes(tmp_path, urls, hosts)
    assert {url: what for url, what in got.items() if what != "forbidden_address"} == {}
    assert len(HOSTILE) > 130
    assert [host.connections for host in inside] == [0] * len(inside)
    assert door.requests == {}


def test_no_redirect_leads_to_a_hostile_address(tmp_path):
    # relative addresses and fragments mean something else there, line ends no header can carry
    relative = ("//127", "x.jpg", "http:///", "data:")
    door, inside = Host(), secrets()
    with serving(door, *inside) as hosts:
        hosts, port = {"0.test": hosts["0.test"]}, inside[0].server_port
        targets = [
            url.replace("{port}", str(port))
            for url in HOSTILE
            if url not in ("", "http://")
            and url.strip() == url
            and url.isprintable()
            and not url.startswith(relative)
        ]
        targets += [f"//127.0.0.1:{port}/x.jpg", f"//[::1]:{port}/x.jpg", "data:image/png,x"]
        door.routes = {f"/{n}.jpg": redirect(target) for n, target in enumerate(targets)}
        got = outcomes(tmp_path, [f"http://0.test{path}" for path in door.routes], hosts)
    refused = {"forbidden_address", "malformed_address"}
    named = dict(zip(targets, got.values(), strict=True))
    assert {url: what for url, what in named.items() if what not in refused} == {}
    assert len(targets) > 120
    assert door.images_asked() == len(targets)
    assert [host.connections for host in inside] == [0] * len(inside)


def test_robots_txt_leads_to_no_hostile_address(tmp_path):
    secret, door = Listener(), Host({"/x.jpg": image(1)})
    with serving(door, secret) as hosts:
        port = hosts.pop("1.test")[1]
        door.routes["/robots.txt"] = redirect(f"http://127.0.0.1:{port}/robots.txt")
        got = outcomes(tmp_path, ["http://0.test/x.jpg"], hosts)
    assert list(got.values()) == ["forbidden_address"]
    assert secret.connections == 0
    assert door.images_asked() == 0


def test_the_host_table_is_the_only_way_in(tmp_path):
    inside = Host({"/x.jpg": image(1)})
    with serving(inside) as hosts:
        port = inside.server_port
        urls = ["http://0.test/x.jpg", f"http://127.0.0.1:{port}/x.jpg"]
        assert list(outcomes(tmp_path / "1", urls, hosts).values()) == ["ok", "forbidden_address"]
        assert inside.requests["/x.jpg"] == 1
        literal = {"127.0.0.1": inside.server_address, "localhost": inside.server_address}
        got = outcomes(tmp_path / "2", urls[1:], literal)
    assert list(got.values()) == ["forbidden_address"]
    assert inside.requests["/x.jpg"] == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "https://example.com:8443/a.png?x=1&y=%20#z",
        "http://EXAMPLE.com./a.webp",
        "http://bücher.example/ä.jpg",
        "http://xn--bcher-kva.example/a.jpg",
        "http://a_b.example.com/a.jpg",
        "http://93.184.215.14/a.jpg",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/a.jpg",
        "http://3.example.com/a.jpg",
        "http://0x7f.example.com/a.jpg",
        "http://localhost.example.com/a.jpg",
        "http://notlocal.example/a.jpg",
        "http://foo-.example.com:8080/a.jpg",
        "http://example.com:1024/👩‍👩‍👧.jpg",
        "http://example.com:65535/a.jpg",
        "https://example.com/a.jpg?u=http://127.0.0.1/",
        "https://example.co.jp/日本.jpg",
    ],
)
def test_public_addresses_pass(url):
    assert check_url(url).scheme in ("http", "https")


def test_what_is_checked_is_what_the_client_asks():
    assert check_url("http://EXAMPLE.com:80/ä").raw_host == "example.com"
    assert check_url("http://bücher.example/").raw_host == "xn--bcher-kva.example"


def test_a_word_is_no_ip_address():
    with pytest.raises(ValueError, match="does not appear"):
        check_address("example.com")


class Answers(ThreadedResolver):
    """DNS that says what it is told."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in self.addresses
        ]


def resolve(*addresses):
    async def ask():
        resolver = GuardedResolver({})
        resolver.system = Answers(*addresses)
        return await resolver.resolve("rebinding.example", 80)

    return asyncio.run(ask())


def test_a_name_with_public_addresses_resolves():
    public = ["93.184.215.14", "2606:2800:220:1:248:1893:25c8:1946"]
    assert [found["host"] for found in resolve(*public)] == public


@pytest.mark.parametrize(
    "private", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1%lo", "10.1.1.1"]
)
def test_a_name_with_one_private_address_is_refused(private):
    with pytest.raises(Forbidden):
        resolve("93.184.215.14", private)


def test_any_text_is_an_address_or_forbidden():
    rng = random.Random(0)
    parts = [
        *"/:@?#[]%.\\\0\t é１。‥﹒ⅷ\ud800\u202e\u00ad",
        "http",
        "https",
        "//",
        "127.0.0.1",
        "::1",
    ]
    parts += [
        "0x7f",
        "xn--",
        "test",
        "%00",
        "%2e",
        "%31",
        "localhost",
        "65536",
        "a" * 70,
        "user:x@",
    ]
    passed = 0
    for _ in range(20_000):
        text = list("http://www.example.com:8080/a.jpg?b")
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 9)] = [rng.choice(parts)]
        url = "".join(text)
        try:
            address = check_url(url)
        except Forbidden as error:
            assert str(error)
        else:
            passed += 1
            assert address.scheme in ("http", "https")
            assert address.raw_host.isascii() and not address.raw_host.endswith(".localhost")
    assert passed > 50


class Flips(ThreadedResolver):
    """DNS that gives one answer after the other."""

    def __init__(self, *answers):
        self.left, self.asked = list(answers), 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked += 1
        return await Answers(*self.left.pop(0)).resolve(host, port, family)


def test_the_address_that_was_checked_is_connected_to(monkeypatch):
    # for this test 127.0.0.2 is public: the only way to have a server at a public address
    real = guard.check_address
    monkeypatch.setattr(guard, "check_address", lambda one: one == "127.0.0.2" or real(one))
    public = Listener({"/": reply(b"", Connection="close")}, "127.0.0.2")
    secret = Listener({}, "127.0.0.1", public.server_port)

    async def ask():
        resolver = GuardedResolver({})
        resolver.system = Flips(["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"])
        connector = aiohttp.TCPConnector(resolver=resolver, ttl_dns_cache=300)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://rebinding.example:{public.server_port}/"
            for _ in range(3):  # a new connection each, by the same answer
                async with session.get(url) as answer:
                    assert answer.status == 200
            assert resolver.system.asked == 1
            for _ in range(2):
                connector.clear_dns_cache()
                with pytest.raises(Forbidden):
                    await session.get(url)
        await resolver.close()

    with serving(public, secret):
        asyncio.run(ask())
    assert (public.connections, secret.connections) == (3, 0)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("kd3-pipeline/1.0 (+https://example.com)", "kd3-pipeline"),
        ("KD3-Pipeline/1.0", "kd3-pipeline"),
        (" kd3-pipeline ", "kd3-pipeline"),
        ("Mozilla/5.0 (compatible; kd3-pipeline/1.0; +https://example.com)", "kd3-pipeline"),
        ("Mozilla/5.0 (compatible; kd3-pipeline/1.0)", "kd3-pipeline"),
        ("Mozilla/5.0 (Compatible;  KD3-Pipeline)", "kd3-pipeline"),
        ("Mozilla/5.0 (X11; Linux x86_64) compatible; other/1.0", "mozilla"),
        ("other/2 (compatible?; kd3-pipeline/1.0)", "other"),
        ("", ""),
    ],
)
def test_a_robot_goes_by_one_name_in_every_form_of_user_agent(user_agent, name):
    assert product_name(user_agent) == name
