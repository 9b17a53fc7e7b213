"""A network that is down, and hosts that merely look like it."""

import ssl
from collections import Counter

import pytest

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl.blocklist import Blocklist
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.outage import Outage
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import Fetched
from tests.crawl.hosts import (
    Host,
    candidates_of,
    certificates,
    crawl,
    image,
    outcomes,
    raw,
    redirect,
    reply,
    serving,
)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)


@pytest.fixture
def dead():
    """Addresses of 60 hosts whose port is closed."""
    gone = Host()
    gone.server_close()
    return {f"dead{n}.test": gone.server_address for n in range(60)}


UNREADABLE = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456")


@pytest.mark.parametrize("hosts", [1, 12])
def test_hosts_whose_answers_nobody_can_read_are_no_outage(tmp_path, hosts):
    servers = [Host() for _ in range(hosts)]
    for server in servers:
        server.otherwise = UNREADABLE
    with serving(*servers) as table:
        urls = [f"http://{n % hosts}.test/{n}.jpg" for n in range(5 * hosts)]
        found = crawl(tmp_path / "obedient", candidates_of(urls), table)
        assert set(outcomes(found).values()) == {"not_now"}
        details = {record.detail.split(": Duplicate")[0] for record in found.values()}
        asked = {f"not asked: http://{n}.test/robots.txt: malformed" for n in range(hosts)}
        assert details == asked
        found = crawl(tmp_path, candidates_of(urls), table, robots=False, opt_outs="none")
        assert set(outcomes(found).values()) == {"malformed"}
    with Journal(tmp_path) as journal:
        assert set(journal.records) == set(urls)  # they did answer


@pytest.mark.parametrize("robots", [True, False])
def test_certificates_that_are_not_trusted_are_no_outage(tmp_path, robots):
    server, trusts = certificates(tmp_path, "0.test", "1.test")
    hosts = [Host({f"/{n}.jpg": image(n) for n in range(4)}, server) for _ in range(2)]
    with serving(*hosts) as table:
        candidates = candidates_of([f"https://{n % 2}.test/{n}.jpg" for n in range(4)])
        limits = {"robots": robots, "opt_outs": "none"}
        folder = tmp_path / "journal"
        found = crawl(folder, candidates, table, tls=ssl.create_default_context(), **limits)
        assert set(outcomes(found).values()) == {"certificate"}
        # the network may have answered in place of the hosts, so that is not kept
        with Journal(folder) as journal:
            assert not journal.records
        found = crawl(folder, candidates, table, tls=trusts, **limits)
    assert set(outcomes(found).values()) == {"ok"}


@pytest.mark.parametrize("fault", [{"days": -1}, {"between": True}])
def test_a_certificate_that_expired_or_whose_chain_is_incomplete_is_named(tmp_path, fault):
    server, client = certificates(tmp_path, "0.test", **fault)
    with serving(Host({f"/{n}.jpg": image(n) for n in range(4)}, server)) as table:
        candidates = candidates_of([f"https://0.test/{n}.jpg" for n in range(4)])
        found = crawl(tmp_path / "journal", candidates, table, tls=client)
    assert {record.outcome for record in found.values()} == {"certificate"}
    word = "expired" if "days" in fault else "unable to get local issuer"
    assert all(word in record.detail for record in found.values())


def test_a_certificate_is_judged_for_good_once_another_host_answers(tmp_path):
    server, _ = certificates(tmp_path, "0.test")
    with serving(Host(tls=server), Host({"/1.jpg": image(1, seconds=0.2)})) as table:
        urls = ["https://0.test/0.jpg", "http://1.test/1.jpg"]
        found = crawl(tmp_path / "journal", candidates_of(urls), table)
    assert outcomes(found) == dict(zip(urls, ["certificate", "ok"], strict=True))
    with Journal(tmp_path / "journal") as journal:
        assert set(journal.records) == set(urls)


@pytest.mark.parametrize("robots", [True, False])
def test_a_host_without_tls_is_named_and_is_no_outage(tmp_path, robots):
    host = Host()
    host.otherwise = image(0)
    with serving(host) as table:
        candidates = candidates_of([f"https://0.test/{n}.jpg" for n in range(4)])
        found = crawl(tmp_path, candidates, table, robots=robots, opt_outs="none")
    assert {(record.outcome, record.status) for record in found.values()} == {("tls", None)}
    assert all("SSL" in record.detail for record in found.values())


def test_a_robots_txt_elsewhere_that_cannot_be_had_is_no_fault_of_the_images_host(tmp_path):
    server, _ = certificates(tmp_path, "1.test")
    host = Host({"/0.jpg": image(0)})
    with serving(host, Host(tls=server)) as table:
        host.routes["/robots.txt"] = redirect("https://1.test/robots.txt")
        candidates = candidates_of(["http://0.test/0.jpg"])
        [record] = crawl(tmp_path / "journal", candidates, table).values()
        assert record.outcome == "not_now"
        assert record.detail.startswith("not asked: https://1.test/robots.txt: certificate: ")
        assert host.images_asked() == 0
        host.routes["/robots.txt"] = reply(b"", 404)
        [record] = crawl(tmp_path / "journal", candidates, table).values()
    assert record.outcome == "ok"


def test_a_robots_txt_that_leads_to_no_public_address_is_named_as_what_does(tmp_path):
    host = Host({"/0.jpg": image(0), "/robots.txt": redirect("mailto:a@b.example")})
    with serving(host) as table:
        [record] = crawl(tmp_path, candidates_of(["http://0.test/0.jpg"]), table).values()
    led = "http://0.test/robots.txt leads where nothing is asked: scheme 'mailto'"
    assert record.outcome == "forbidden_address" and record.detail.startswith(led)


def test_a_host_of_an_old_tls_alone_is_named(tmp_path):
    server, client = certificates(tmp_path, "0.test")
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    with serving(Host({"/0.jpg": image(0)}, server)) as table:
        candidates = candidates_of(["https://0.test/0.jpg"])
        found = crawl(tmp_path / "journal", candidates, table, tls=client)
    assert [record.outcome for record in found.values()] == ["tls"]


def test_a_list_that_begins_with_dead_hosts_is_no_outage(tmp_path, dead):
    servers = [Host({"/a.jpg": image(n)}) for n in range(8)]
    with serving(*servers) as table:
        urls = [f"http://{name}/a.jpg" for name in dead]
        urls += [f"http://{n}.test/a.jpg" for n in range(8)]
        found = crawl(tmp_path, candidates_of(urls), dead | table, per_class=3)
        assert Counter(outcomes(found).values()) == {"not_now": 60, "ok": 3}
        assert crawl(tmp_path, candidates_of(urls), dead | table, per_class=3) == found
    assert sum(server.images_asked() for server in servers) == 3


def test_of_a_network_that_is_down_other_hosts_are_asked_and_named(tmp_path, dead):
    urls = [f"http://{name}/a.jpg" for name in dead]
    with pytest.raises(ExternalError, match=r"gave no answer, nor did \d+ other hosts, the last"):
        crawl(tmp_path, candidates_of(urls), dead, per_class=1)


def test_a_host_of_the_blocklist_is_not_asked_whether_the_network_is_up(tmp_path, dead):
    blocked = Host({"/a.jpg": image(1)})
    with serving(blocked) as table:
        urls = [f"http://{name}/a.jpg" for name in dead] + ["http://0.test/a.jpg"]
        blocklist = Blocklist(frozenset({"0.test"}))
        with pytest.raises(ExternalError, match="seems to be down"):
            crawl(tmp_path, candidates_of(urls), dead | table, per_class=1, blocklist=blocklist)
    assert not blocked.requests


def test_hosts_that_go_silent_after_answers_nobody_can_read_are_an_outage(tmp_path, dead):
    odd = Host({"/a.jpg": UNREADABLE, "/robots.txt": reply(b"", 404)})
    with serving(odd) as table:
        urls = ["http://0.test/a.jpg"]
        first = crawl(tmp_path, candidates_of(urls), table, opt_outs="none")
    assert [record.outcome for record in first.values()] == ["malformed"]
    urls += [f"http://{name}/a.jpg" for name in dead]
    gone = dict.fromkeys(table, dead["dead0.test"])
    with pytest.raises(ExternalError, match="seems to be down"):
        crawl(tmp_path, candidates_of(urls), dead | gone)


def test_an_address_with_spaces_around_it_is_of_a_host_as_others_are(tmp_path):
    gone = " HTTP://[2606:4700::1111]:8080 "  # a parser that takes it as it is written stumbles
    with Journal(tmp_path) as journal:
        outage = Outage(journal, candidates_of([gone, "http://0.test/"]))
        outage.note(Fetched(gone, "unknown_host"))
        outage.note(Fetched("http://b%C3%BCcher.test/", "unknown_host"))
        outage.note(Fetched("http://b\u00fccher.test/", "unknown_host"))
        assert outage.suspected  # three of two hosts, which are all
        journal.add(Fetched(gone, "ok", status=200))
        assert outage._answered_before() == ["http://[2606:4700::1111]:8080"]
