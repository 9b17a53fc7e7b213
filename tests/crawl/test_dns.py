"""What DNS says is judged by itself: it is no judgement of the name, and may change."""

import socket
from collections import Counter

import pytest

from kd3_pipeline.crawl import guard
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.guard import ForbiddenAnswer, check_answer
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import FORBIDDEN_DNS, Fetched
from tests.crawl.hosts import candidates_of, crawl, image, outcomes, picture, serving
from tests.crawl.listener import Listener
from tests.crawl.test_guard import resolve


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "2606:2800:220:1:248:1893:25c8:1946",
        "64:ff9b::5db8:d70e",  # NAT64 of 93.184.215.14
        "64:ff9b::93.184.215.14",
    ],
)
def test_an_answer_that_leads_to_a_public_address_is_taken(address):
    check_answer(address)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::10.0.0.1",
        "64:ff9b::100.100.100.200",
        "64:ff9b::198.18.0.1",
        "64:ff9b::0",
        "64:ff9b::5db8:d70e%lo",
        "64:ff9b:1::5db8:d70e",  # RFC 8215: of the network's own choice
        "64:ff9b:0:0:0:1:5db8:d70e",
        "::ffff:93.184.215.14",
        "::93.184.215.14",
        "2002:5db8:d70e::1",
        "2001:0:5db8:d70e::1",
        "198.18.1.7",
        "198.19.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "10.0.0.1",
        "::1",
        "fe80::1%lo",
    ],
)
def test_an_answer_that_does_not_is_refused(address):
    with pytest.raises(ForbiddenAnswer, match="no public address"):
        check_answer(address)


def test_a_network_without_ipv4_resolves_names():
    both = ["64:ff9b::5db8:d70e", "93.184.215.14"]
    assert [found["host"] for found in resolve(*both)] == both
    with pytest.raises(ForbiddenAnswer):
        resolve(*both, "64:ff9b::7f00:1")


def test_an_address_that_a_proxy_makes_up_is_called_so():
    with pytest.raises(ForbiddenAnswer, match=r"a proxy makes up \(198\.18\.0\.0/15\)"):
        check_answer("198.18.1.7")
    with pytest.raises(ForbiddenAnswer) as caught:
        check_answer("10.0.0.1")
    assert "proxy" not in str(caught.value)


class Network:
    """DNS of names below example.com: `says` has the addresses of some, the others are public."""

    def __init__(self, monkeypatch):
        self.says, self.asked, real = {}, Counter(), socket.getaddrinfo
        # for these tests 127.0.0.2 is public: the only way to have a server at a public address
        check = guard.check_address
        monkeypatch.setattr(guard, "check_address", lambda one: one == "127.0.0.2" or check(one))

        def getaddrinfo(host, port, *args, **options):
            if not host.endswith(".example.com"):
                return real(host, port, *args, **options)
            self.asked[host] += 1
            said = self.says.get(host, self.says.get("*", ["127.0.0.2"]))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in said]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def network(monkeypatch):
    return Network(monkeypatch)


def server():
    host = Listener({}, "127.0.0.2")
    host.otherwise = lambda request: request.reply(
        picture(int("0" + "".join(filter(str.isdigit, request.path)))),
        404 if "." not in request.path or "/robots" in request.path else 200,
    )
    host.routes["/robots.txt"] = lambda request: request.reply(b"", 404)
    return host


def told(found):
    """Outcomes by rank."""
    ranked = sorted(found.items(), key=lambda pair: pair[0].rank)
    return [record.outcome for _, record in ranked]


def test_a_host_that_has_ipv6_alone_is_asked(tmp_path):
    host = Listener({"/x.jpg": image(1)}, "::1")
    with serving(host):
        hosts = {"0.test": ("::1", host.server_port)}
        found = crawl(tmp_path, candidates_of(["http://0.test/x.jpg"]), hosts, opt_outs="none")
    assert told(found) == ["ok"]


@pytest.mark.parametrize("robots", [True, False])
def test_a_captive_portal_leaves_nothing_behind(tmp_path, network, robots):
    host, options = server(), {"robots": robots, "opt_outs": "none"}
    with serving(host):
        urls = [f"http://h{n}.example.com:{host.server_port}/{n}.jpg" for n in range(40)]
        network.says["*"] = ["10.0.0.1"]
        with pytest.raises(ExternalError) as caught:
            crawl(tmp_path, candidates_of(urls), {}, **options)
        assert "lead to no public address" in str(caught.value) and "10.0.0.1" in str(caught.value)
        assert "network seems" not in str(caught.value) and "captive portal" in caught.value.hint
        with Journal(tmp_path) as journal:
            assert not journal.records
        network.says.clear()
        assert set(outcomes(crawl(tmp_path, candidates_of(urls), {}, **options)).values()) == {"ok"}


def test_where_a_host_answered_the_others_are_left_to_the_next_run(tmp_path, network):
    host = server()
    with serving(host):
        urls = [f"http://h{n}.example.com:{host.server_port}/{n}.jpg" for n in range(1, 40)]
        first = f"http://h0.example.com:{host.server_port}/0.jpg"
        network.says |= {f"h{n}.example.com": ["10.0.0.1"] for n in range(1, 40)}
        got = outcomes(crawl(tmp_path, candidates_of([first, *urls]), {}, opt_outs="none"))
        assert Counter(got.values()) == {"ok": 1, FORBIDDEN_DNS: 39}
        with Journal(tmp_path) as journal:
            assert list(journal.records) == [first]
            assert {one.outcome for one in journal.put_off.values()} == {FORBIDDEN_DNS}
        network.says.clear()
        got = outcomes(crawl(tmp_path, candidates_of([first, *urls]), {}, opt_outs="none"))
        assert set(got.values()) == {"ok"}


def test_a_name_without_a_public_address_has_an_outcome_of_its_own_and_is_looked_up_twice(
    tmp_path, network
):
    host, backlog = server(), Backlog()
    network.says["parked.example.com"] = ["127.0.0.1"]
    with serving(host):
        urls = [
            f"http://{name}.example.com:{host.server_port}/{n}.jpg"
            for n, name in enumerate(["parked", "good", "parked", "good"])
        ]
        for _ in range(2):  # rounds of one run
            found = crawl(tmp_path, candidates_of(urls), {}, backlog=backlog, opt_outs="none")
            assert told(found) == [FORBIDDEN_DNS, "ok"] * 2
    assert found[candidates_of(urls)[0]].detail == "DNS says 127.0.0.1, no public address"
    assert network.asked["parked.example.com"] == 2


def test_a_class_that_was_filled_without_such_a_host_asks_it_for_nothing_again(tmp_path, network):
    host, options = server(), {"per_class": 2, "opt_outs": "none"}
    network.says["h0.example.com"] = ["10.0.0.1"]
    with serving(host):
        urls = [f"http://h{n}.example.com:{host.server_port}/{n}.jpg" for n in range(4)]
        expected = [FORBIDDEN_DNS, "ok", "ok"]
        got = crawl(tmp_path, candidates_of(urls), {}, **options)
        assert told(got) == expected
        network.says.clear()
        network.asked.clear()
        got = crawl(tmp_path, candidates_of(urls), {}, **options)
        assert told(got) == expected and not network.asked
        again = crawl(
            tmp_path, candidates_of(urls), {}, retry=frozenset({FORBIDDEN_DNS}), **options
        )
        assert told(again) == ["ok", "ok"]


def test_what_an_older_version_took_for_a_forbidden_address_is_asked_again(tmp_path, network):
    host = server()
    with serving(host):
        here = f"http://a.example.com:{host.server_port}"
        urls = [f"{here}/1.jpg", f"{here}/2 b.jpg", f"{here}/3.jpg", "http://127.0.0.1/4.jpg"]
        with Journal(tmp_path) as journal:
            word = "forbidden_address"
            journal.add(Fetched(urls[0], word, "10.0.0.1 is not a public address"))
            journal.add(Fetched(urls[1], word, "malformed address: it has spaces"))
            journal.add(Fetched(urls[2], word, "not public", final_url="http://10.0.0.1/"))
            journal.add(Fetched(urls[3], word, "127.0.0.1 is not a public address"))
        got = crawl(tmp_path, candidates_of(urls), {}, opt_outs="none")
    assert told(got) == ["ok", "ok", "forbidden_address", "forbidden_address"]
    assert host.images_asked() == 2


def test_a_redirect_to_a_forbidden_address_is_kept_with_where_it_leads(tmp_path):
    host = Listener(
        {"/go.jpg": lambda request: request.reply(b"", 302, {"Location": "http://[::1]/"})}
    )
    url = "http://0.test/go.jpg"
    with serving(host) as hosts:
        for _ in range(2):
            [record] = crawl(tmp_path, candidates_of([url]), hosts, opt_outs="none").values()
            assert (record.outcome, record.final_url) == ("forbidden_address", "http://[::1]/")
    assert host.requests["/go.jpg"] == 1
