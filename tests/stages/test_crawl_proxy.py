"""`pipeline crawl` behind a proxy, through the whole command."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.crawl.hosts import Host, image, serving
from tests.crawl.middle import proxied
from tests.stages.workspace import invoke

CRAWL = ("crawl", "--engine", "urls", "--source", "list.txt", "--set", "crawl.host_gap=0")
USUAL = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in USUAL:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "params.yaml").write_text("distill: {batch_size: 8}\n")
    (tmp_path / "list.txt").write_text("http://0.test/my photo.jpg\nhttp://0.test/%28b%29.jpg\n")
    return tmp_path


def test_a_crawl_goes_through_the_proxy_that_its_parameters_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://name:secret@127.0.0.1:9")
    host = Host({"/my%20photo.jpg": image(1), "/%28b%29.jpg": image(2)})
    with serving(host) as hosts, proxied(hosts) as middle:
        done = invoke(place, *CRAWL, "--set", f"crawl.proxy={middle.address}")
    assert done.exit_code == 0, done.output
    rows = pq.read_table(place / "data/crawl/manifest.parquet").to_pylist()
    assert [row["outcome"] for row in rows] == ["stored", "stored"]
    assert "GET http://0.test/my%20photo.jpg" in middle.asked
    assert "HTTP_PROXY" not in done.output and "secret" not in done.output


def test_a_proxy_of_the_environment_is_told_in_one_line_and_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "list.txt").write_text("http://0.invalid/x.jpg\n")
    with proxied({}) as middle:
        monkeypatch.setenv("HTTP_PROXY", middle.address.replace("//", "//name:secret@"))
        monkeypatch.setenv("https_proxy", middle.address)
        done = invoke(place, *CRAWL, check=False)
    said = [line for line in done.output.splitlines() if "HTTP_PROXY" in line]
    assert (
        done.exit_code == 3
        and len(said) == 1
        and "https_proxy" in said[0]
        and "crawl.proxy" in said[0]
    )
    assert middle.asked == [] and "secret" not in done.output


def test_what_is_no_proxy_is_told_before_anything_is_asked(place: Path) -> None:
    done = invoke(place, *CRAWL, "--set", "crawl.proxy=socks5://127.0.0.1:1080", check=False)
    assert (
        done.exit_code == 2 and "crawl.proxy" in done.output and "http://HOST:PORT" in done.output
    )
