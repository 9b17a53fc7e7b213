"""A search of caption tables is done once, and again when anything changed."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.classes import load_classes
from kd3_pipeline.crawl.captions.cache import search_once
from kd3_pipeline.crawl.captions.found import Found
from kd3_pipeline.params import Crawl

CLASSES: dict[str, list[str]] = {"cat": ["cat"], "dog": ["dog"]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/t.tsv").write_text("a cat\thttp://x.test/1\nthe dog\thttp://x.test/2\nx\n")
    (tmp_path / "tables/bad.parquet").write_text("no")
    return tmp_path / "tables"


def searched(
    source: Path, classes: Any = CLASSES, again: bool = False, **changes: Any
) -> tuple[Found, int]:
    """What was found, and how many rows were read for it."""
    read: list[int] = []
    section = Crawl(classes=classes, engine="captions", source=str(source), **changes)
    classes = load_classes(classes).classes
    return search_once(section, classes, source.parent / "kept", again, read.append), sum(read)


def test_the_second_time_nothing_is_read_and_all_is_as_it_was(source: Path) -> None:
    (first, read), (second, read_again) = searched(source), searched(source)
    assert (read, read_again) == (2, 0)
    assert second.best.equals(first.best) and second.first([9, 9]) == first.first([9, 9])
    assert second.summary() == first.summary()
    assert list(second.notes()) == list(first.notes())
    assert second.account() == first.account()
    assert searched(source, again=True)[1] == 2


@pytest.mark.parametrize(
    "changes",
    [{"min_side": 20}, {"per_class": 7}, {"unsafe": "keep"}, {"classes": {"cat": ["dog"]}}],
    ids=str,
)
def test_other_parameters_read_again(source: Path, changes: dict[str, Any]) -> None:
    searched(source)
    assert searched(source, **changes)[1] == 2
    assert len(list((source.parent / "kept").iterdir())) == 1


def test_another_timeout_does_not_read_again(source: Path) -> None:
    searched(source)
    assert searched(source, timeout=1.5)[1] == 0


def test_a_table_that_changed_or_is_new_is_read(source: Path) -> None:
    searched(source)
    about = (source / "t.tsv").stat()
    os.utime(source / "t.tsv", ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert searched(source)[1] == 2
    pq.write_table(pa.table({"url": ["http://x.test/3"], "text": ["cat"]}), source / "u.parquet")
    assert searched(source)[1] == 3


def test_what_is_kept_and_damaged_is_read_again(source: Path) -> None:
    searched(source)
    (kept,) = (source.parent / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert searched(source)[1] == 2
    assert searched(source)[1] == 0
