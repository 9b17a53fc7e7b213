"""What a crawl says before it searches."""

from pathlib import Path

from kd3_pipeline.classes import load_classes
from kd3_pipeline.crawl.engines.engine import ResultPage
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_stages.steps.crawl_search import told_before

CLASSES = load_classes(["red fox"])
OLD = b'{"engine": "bing", "page": "http://0.test/?q=a", "results": [{"url": "u"}]}\n'


def test_pages_of_an_earlier_version_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_bytes(OLD)
    with PageLog(tmp_path) as log:
        (line,) = told_before(CLASSES, log)
        assert line.startswith("1 page of results that an earlier version kept")
        log.add(("bing", "http://0.test/?q=a&adlt=strict"), ResultPage([], None))
    with PageLog(tmp_path) as log:
        assert list(told_before(CLASSES, log)) == []


def test_pages_that_are_forgotten_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_bytes(OLD)
    with PageLog(tmp_path) as log:
        log.clear()
        assert list(told_before(CLASSES, log)) == []
