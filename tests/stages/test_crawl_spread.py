"""`pipeline crawl` where a cluster is named: its workers here are processes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline import engine
from kd3_pipeline.crawl.proxy import LOGIN
from kd3_pipeline.processes import Processes
from tests.crawl.hosts import Host, image, reply, serving
from tests.crawl.middle import proxied
from tests.stages.workspace import invoke

CRAWL = ("crawl", "--engine", "urls", "--source", "list.txt")
SETS = ("--set", "crawl.host_gap=0", "--set", "crawl.contact=me@example.com")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine, "Cluster", lambda kind, address: Processes(2))
    monkeypatch.setenv(LOGIN, "name:secret")
    (tmp_path / "params.yaml").write_text("distill: {batch_size: 8}\n")
    urls = [f"http://{n % 8}.test/{n}.jpg" for n in range(240)]
    (tmp_path / "list.txt").write_text("\n".join(urls) + "\n")
    return tmp_path


def hosts() -> list[Host]:
    """Each of which has pictures, but for one address in ten."""
    made = [Host() for _ in range(8)]
    for n in range(240):
        made[n % 8].routes[f"/{n}.jpg"] = image(n) if n % 10 else reply(b"gone", 404)
    return made


@pytest.mark.parametrize("chosen", ["ray:h:1", "processes:2"])
def test_a_cluster_that_is_named_fetches_by_the_same_proxy_and_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("PIPELINE_ENGINE", chosen)
    servers = hosts()
    with serving(*servers) as table, proxied(table) as middle:
        done = invoke(place, *CRAWL, *SETS, "--set", f"crawl.proxy={middle.address}")
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if "the crawl is spread over" in line]
    assert told == ["the crawl is spread over 2 workers of ray at h:1"] * chosen.startswith("ray")
    rows = pq.read_table(place / "data/crawl/manifest.parquet")["outcome"].to_pylist()
    assert (rows.count("stored"), rows.count("http_error")) == (216, 24)
    assert json.loads((place / "reports/crawl.json").read_text())["stored"] == 216
    asked = [target for target in middle.asked if target.endswith(".jpg")]
    assert len(asked) == len(set(asked)) == 240  # each once, by the worker or from here
    assert all("Proxy-Authorization: Basic" in head for head in middle.heads)
    assert all("me@example.com" in host["User-Agent"] for one in servers for host in one.headers)
    robots = middle.asked.count("GET http://0.test/robots.txt")
    assert robots == 1  # of one worker, or of this process
    assert "secret" not in done.output
