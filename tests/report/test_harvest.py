"""What was wanted of a crawl and got: read, shown, and left out where it is not known."""

import json
from pathlib import Path

import pytest

from kd3_pipeline.crawlsummary import CrawlSummary, read_crawl_summary
from kd3_pipeline.errors import UserError
from kd3_pipeline.report.page import ReportFiles, build_report
from tests.report.test_page import Elements
from tests.report.world import HOSTILE_CLASS, HOSTILE_TITLE

OLD = {
    "candidates": 9,
    "stored": 5,
    "outcomes": {"stored": 5, "http_error": 4},
    "bytes": {"total": 1, "p5": 1, "p50": 1, "p95": 1},
    "hosts": {"a.example": 5},
    "classes": [{"name": "cat", "stored": 5, "outcomes": {"stored": 5}}],
}


def harvest_of(html: str) -> str:
    """The text of the section."""
    start = html.index('<section id="harvest">')
    return Elements(html[start : html.index("</section>", start)]).text


def write(files: ReportFiles, summary: object) -> str:
    files.harvest.write_text(json.dumps(summary))
    return build_report(files, thumbnails=0, map_images=0)


def test_each_class_has_what_was_wanted_what_came_and_why(html: str) -> None:
    page = Elements(html[html.index('<section id="harvest">') :])
    text = harvest_of(html)
    assert "1 of 3 classes have all images that were wanted" in text
    assert f"Without an image: {HOSTILE_CLASS}" in text
    assert f"the engine has no more {HOSTILE_TITLE}" in text
    assert text.index("star20631") < text.index("circle202031")  # the emptiest first
    assert "circlecircle photoas listed30no more" in text
    assert f"circlecirclesynonym <b>1{HOSTILE_TITLE}" in text
    assert not [name for _, given in page.found for name in given if name[:2] == "on"]


def test_what_was_put_off_is_told_with_its_time(html: str) -> None:
    text = harvest_of(html)
    assert "338 images and 2 pages of results were refused for the moment" in text
    assert "best after 2026-11-29 12:00 UTC" in text
    assert f"{HOSTILE_TITLE}3382026-11-29 12:00 UTC429 <i>" in text


def test_rounds_by_coverage_and_an_engine_that_refuses_are_told(html: str) -> None:
    text = harvest_of(html)
    assert "2 rounds asked for 38 images more" in text
    assert "and brought 15; nothing new came <b>." in text
    assert f"{HOSTILE_CLASS}9218starved still" in text
    assert text.index("starved still") < text.index("circle9920enough")
    assert f"The engine refuses: contact missing {HOSTILE_TITLE}" in text


def test_times_of_different_zones_are_compared_as_moments() -> None:
    hosts = {
        name: {"images": 1, "why": "", "again_at": at}
        for name, at in (("a", "2026-11-29T12:00:00+00:00"), ("b", "no time"), ("c", None))
    }
    told = {"later": {"hosts": hosts, "again_at": "2026-11-29T12:30:00+02:00"}}
    summary = CrawlSummary.model_validate(told)
    assert summary.later.when == "2026-11-29T12:00:00+00:00"
    assert CrawlSummary.model_validate({}).later.when is None


def test_signals_and_what_the_user_ruled_out_are_counted(html: str) -> None:
    text = harvest_of(html)
    assert text.index("content-signal400") < text.index("c2pa21")
    assert "The blocklist refuses 4 candidates" in text
    assert "Dropped on request: 3 candidates" in text


def test_a_summary_of_an_earlier_crawl_says_what_it_knows(files: ReportFiles) -> None:
    text = harvest_of(write(files, OLD))
    assert "not on record how many images of each class were wanted" in text
    assert "Why no more" not in text
    for absent in ("Put off", "What owners say", "blocklist", "Queries"):
        assert absent not in text


def test_a_page_without_a_summary_has_no_such_section(files: ReportFiles) -> None:
    files.harvest.unlink()
    html = build_report(files, thumbnails=0, map_images=0)
    assert 'id="harvest"' not in html
    assert 'href="#harvest"' not in html


def test_long_lists_are_cut_and_it_is_said(files: ReportFiles) -> None:
    queries = [{"query": f"q{n}", "results": 1, "ended": "no more"} for n in range(20)]
    classes = [
        {"name": f"c{n}", "stored": n, "wanted": 100, "results": 9, "queries": queries}
        for n in range(60)
    ]
    hosts = {f"h{n}.example": {"images": n, "why": "429", "again_at": None} for n in range(60)}
    later = {"images": 9, "pages": 0, "hosts": hosts}
    text = harvest_of(write(files, OLD | {"classes": classes, "later": later}))
    assert "Show 35 more classes" in text
    assert "reports/crawl.json has 200 more" in text
    assert "reports/crawl.json has 10 more hosts" in text
    assert "best after" not in text
    assert text.index("h59.example") < text.index("h10.example")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": [{"name": "cat"}]}, "classes.0.stored"),
        ({"later": {"images": -1}}, "later.images"),
        ({"signals": {"seen": {"c2pa": "2"}}}, "signals.seen.c2pa"),
        ({"empty": "cat"}, "empty"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_with_its_place(
    tmp_path: Path, change: dict, said: str
) -> None:
    path = tmp_path / "crawl.json"
    path.write_text(json.dumps(OLD | change))
    with pytest.raises(UserError) as error:
        read_crawl_summary(path)
    assert str(error.value).startswith(f"{path}: {said}: ")
    assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(UserError):
        read_crawl_summary(path)


def test_classes_are_ranked_by_what_they_lack() -> None:
    told = [("full", 5, 5), ("half", 2, 4), ("none", 0, 4), ("more", 9, 8), ("unknown", 1, None)]
    classes = [{"name": name, "stored": got, "wanted": wanted} for name, got, wanted in told]
    summary = CrawlSummary.model_validate({"classes": classes})
    assert [one.name for one in summary.wanting] == ["none", "half"]
    assert summary.full == 2
