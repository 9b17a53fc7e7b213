"""A crawl on a cluster's workers, compared with that of one machine."""

from pathlib import Path

import pytest

from kd3_pipeline.engine import Engine
from tests.crawl.hosts import serving
from tests.crawl.spreading import crawled, small_parts, web_of_faults


def equal_crawls(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crawls the same web twice, and expects the same bytes; hosts are asked one by one."""
    small_parts(monkeypatch)
    (folder / "alone").mkdir()
    (folder / "spread").mkdir()
    with serving(*web_of_faults()) as table:
        expected, _, _ = crawled(folder / "alone", table)
    hosts = web_of_faults()
    with serving(*hosts) as table:
        found, known, notes = crawled(folder / "spread", table, engine)
    assert found == expected
    assert {"images-00000.parquet", "manifest.parquet"} <= found.keys()
    assert len(known) > 30  # by workers
    assert {host.most_at_once for host in hosts} == {1}
    kind, address = engine.cluster or ("", "")
    assert [line.partition(" workers of ")[2] for line in notes] == [f"{kind} at {address}"]
