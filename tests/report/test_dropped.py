"""Contact sheet of what dedup drops: what comes first, beside what, and what is left out."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.report.dropped.choice import Dropped, Section
from kd3_pipeline.report.dropped.page import build_dropped_page
from kd3_pipeline.report.page import ReportFiles
from kd3_pipeline.verdicts import SCHEMA
from tests.report.world import HOSTILE_CLASS, HOSTILE_TITLE, World

HEAD = ["class", "images", "kept"]
NAMES = {0: "circle", 1: HOSTILE_CLASS, 2: "star"}


def dropped(files: ReportFiles, **changes: dict[int, object]) -> Dropped:
    """The run's verdicts, some of them changed: column -> row -> value."""
    rows = pq.read_table(files.dedup).to_pylist()
    for column, values in changes.items():
        for at, value in values.items():
            rows[at][column] = value
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return Dropped(
        table=pa.table(columns, schema=SCHEMA),
        leaks=pq.read_table(files.leaks),
        detail=np.arange(len(rows), dtype=np.float32),
        class_names=NAMES,
        crawl=files.crawl,
        manifest=files.manifest,
    )


def by_reason(sections: list[Section]) -> dict[str, Section]:
    return {section.reason: section for section in sections}


def page_of(files: ReportFiles, **changes: dict[int, object]) -> str:
    sections = dropped(files, **changes).sections(100)
    classes = [HEAD, *([name, "20", "15"] for name in [*NAMES.values(), "all"])]
    return build_dropped_page("51 of 60 images kept", True, classes, {HOSTILE_CLASS}, sections)


def test_the_least_alike_pairs_come_first_each_beside_the_image_that_stays(
    small: ReportFiles,
) -> None:
    near = by_reason(dropped(small).sections(100))["near-duplicate"]
    assert near.total == len(near.entries) == 6
    alike = [entry.similarity for entry in near.entries]
    assert alike == sorted(alike) and alike[0] < alike[-1]
    rows = {row["id"]: row for row in pq.read_table(small.dedup).to_pylist()}
    for entry in near.entries:
        assert entry.other is not None and entry.image.thumbnail and entry.other.thumbnail
        assert entry.other.id == rows[entry.image.id]["duplicate_of"]
        assert max(entry.image.thumbnail.width, entry.image.thumbnail.height) <= 160


def test_a_leak_is_beside_the_test_image_that_it_shows(small: ReportFiles) -> None:
    leaked = by_reason(dropped(small).sections(100))["leaked"]
    assert {entry.test_image for entry in leaked.entries} == {41}
    others = [entry.other for entry in leaked.entries]
    assert all(other is not None and not other.id and other.thumbnail for other in others)
    alike = [entry.similarity for entry in leaked.entries]
    assert alike == sorted(alike)
    assert pytest.approx(alike[0]) == 0.93, "of the one that shows it, to the test image"


def test_of_what_shows_nothing_that_which_shows_most_comes_first(small: ReportFiles) -> None:
    rows = {at: "low-information" for at in (3, 9, 5)}
    found = by_reason(dropped(small, reason=rows, kept=dict.fromkeys(rows, False)).sections(100))
    ids = pq.read_table(small.dedup)["id"].to_pylist()
    shown = [entry.image.id for entry in found["low-information"].entries]
    assert shown == [ids[9], ids[5], ids[3]]


def test_an_issue_has_a_section_of_its_own_under_its_name(small: ReportFiles) -> None:
    found = by_reason(dropped(small, reason={4: "odd_aspect"}, kept={4: False}).sections(100))
    assert found["odd_aspect"].heading == "Issue: odd aspect"
    assert not found["odd_aspect"].pairs
    assert [*found][-1] == "odd_aspect", "after what goes without being asked for"


def test_what_is_left_out_is_told(small: ReportFiles) -> None:
    sections = dropped(small).sections(2)
    assert [(len(one.entries), one.total) for one in sections] == [(2, 6), (2, 3)]
    page = build_dropped_page("some", False, [HEAD], set(), sections)
    assert "2 of 6 here" in page and "<code>--rows 6</code>" in page


def test_nothing_is_read_or_shown_where_nothing_goes(small: ReportFiles) -> None:
    every = range(60)
    whole = dropped(small, kept=dict.fromkeys(every, True), reason=dict.fromkeys(every, ""))
    assert whole.sections(100) == []
    page = build_dropped_page("60 of 60 images kept", False, [HEAD], set(), [])
    assert "Every stored image is kept" in page and "<img" not in page


def test_text_of_the_web_is_shown_and_not_obeyed(small: ReportFiles) -> None:
    page = page_of(small)
    assert HOSTILE_CLASS not in page and HOSTILE_TITLE not in page
    assert "&lt;script&gt;" in page and "onerror=alert(1)&gt;" in page
    assert "javascript:" not in re.sub(r">[^<]*<", "><", page)
    assert "\u202e" not in page
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'content="{policy}"' in page
    sources = re.findall(r'src="([^"]*)', page)
    assert sources and all(uri.startswith("data:image/webp;base64,") for uri in sources)


def test_an_image_that_cannot_be_decoded_has_a_placeholder(tmp_path) -> None:
    files = World(pictures={59: b"broken"}).write(tmp_path)
    assert page_of(files).count('class="frame broken"') == 1


def test_pairs_of_two_classes_that_both_stay_are_shown_last(small: ReportFiles) -> None:
    ids = pq.read_table(small.dedup)["id"].to_pylist()
    like = {"looks_like": {0: ids[1], 2: ids[3]}, "similarity": {0: 0.9, 2: 0.92}}
    sections = dropped(small, **like).sections(100)
    alike = sections[-1]
    assert alike.stays and [entry.similarity for entry in alike.entries] == [
        pytest.approx(0.92),
        pytest.approx(0.9),
    ]
    assert [entry.other.id for entry in alike.entries if entry.other] == [ids[3], ids[1]]
    assert page_of(small, **like).count('alt="Stays: ') == 6 + 4
