"""The crawl's manifest: its columns, and what is read of old and new ones."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import (
    ARRIVED,
    LATER,
    SCHEMA,
    Candidate,
    Fetched,
    class_names,
    count_candidates,
    manifest,
    read_manifest,
    scan_manifest,
)
from kd3_pipeline.store import write_table

# a crawl is never repeated for newer code: what one file has, all later ones have to have
COLUMNS = {
    "label": "int64",
    "class": "string",
    "engine": "string",
    "query": "string",
    "rank": "int32",
    "url": "string",
    "page_url": "string",
    "title": "string",
    "thumbnail": "string",
    "licence": "string",
    "licence_url": "string",
    "creator": "string",
    "licence_filter": "string",
    "variant": "string",
    "original": "string",
    "final_url": "string",
    "status": "int32",
    "outcome": "string",
    "detail": "string",
    "id": "string",
    "format": "string",
    "size": "int64",
    "has_gps": "bool",
    "signals": "string",
    "fetched_at": "string",
}


def found(label: int, rank: int, name: str = "cat") -> Candidate:
    return Candidate(label, name, "test", "query", rank, f"https://a.example/{rank}")


ROWS = [found(0, 0), found(0, 1), found(3, 2, "dog"), found(3, 3, "dog"), found(-1, 4, "")]
FETCHED = {
    ROWS[0]: Fetched(ROWS[0].url, "ok", id="a" * 64, status=200, format="PNG", size=9),
    ROWS[1]: Fetched(ROWS[1].url, "ok", id="a" * 64, status=200),
    ROWS[2]: Fetched(ROWS[2].url, "http_error", "gone", status=404),
    ROWS[4]: Fetched(ROWS[4].url, "ok", id="b" * 64, has_gps=True),
}


@pytest.fixture
def path(tmp_path):
    write_table(tmp_path / "manifest.parquet", manifest(ROWS, FETCHED))
    return tmp_path / "manifest.parquet"


@pytest.fixture
def old(path):
    """As crawls wrote it before there were addresses of licences."""
    table = pa.parquet.read_table(path).drop_columns(list(LATER))
    write_table(path.with_name("old.parquet"), table)
    return path.with_name("old.parquet")


def test_the_columns_follow_from_the_dataclasses():
    assert {field.name: str(field.type) for field in SCHEMA} == COLUMNS
    assert list(COLUMNS) == SCHEMA.names


def test_every_candidate_is_read_as_it_was_written(path):
    table = read_manifest(path)
    assert table.schema.equals(SCHEMA)
    assert table.equals(manifest(ROWS, FETCHED))
    assert table["outcome"].to_pylist() == [
        *("stored", "duplicate", "http_error", "not_needed", "stored")
    ]
    assert count_candidates(path) == len(ROWS)


def test_columns_come_in_the_order_that_is_asked_for(path):
    table = read_manifest(path, ["id", "label"])
    assert table.column_names == ["id", "label"]
    assert table["label"].to_pylist() == [0, 0, 3, 3, -1]


def test_rows_are_filtered_by_columns_that_need_not_be_asked_for(path):
    arrived = read_manifest(path, ["url"], pc.field("outcome").isin(ARRIVED))
    assert arrived["url"].to_pylist() == [ROWS[row].url for row in (0, 1, 4)]
    none = read_manifest(path, ["url", "status"], pc.field("id") == "zz")
    assert (none.num_rows, none.schema.types) == (0, [pa.string(), pa.int32()])


@pytest.mark.parametrize("where", [None, pc.field("label") >= 0])
def test_a_scan_brings_what_reading_brings(path, where):
    columns = ["rank", "licence_url", "outcome"]
    scanned = pa.Table.from_batches(scan_manifest(path, columns, where))
    assert scanned.equals(read_manifest(path, columns, where))


def test_columns_that_an_older_crawl_lacks_are_null(old):
    assert read_manifest(old).schema.equals(SCHEMA)
    table = read_manifest(old, ["id", "licence_url", "has_gps"], pc.field("status") == 200)
    assert table["licence_url"].to_pylist() == table["has_gps"].to_pylist() == [None, None]
    assert table["id"].to_pylist() == ["a" * 64] * 2


def test_a_column_that_every_crawl_wrote_is_named_where_it_is_missing(path):
    write_table(path, pa.parquet.read_table(path).drop_columns(["class"]))
    for read in (class_names, lambda path: read_manifest(path, ["id"], pc.field("class") == "cat")):
        with pytest.raises(
            UserError, match=r"manifest\.parquet: no column 'class': run `dvc repro"
        ):
            read(path)


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_manifest_that_is_none_is_named(path, content):
    path.write_bytes(content) if content else path.unlink()
    for read in (read_manifest, count_candidates, class_names):
        with pytest.raises(UserError, match=r"manifest\.parquet (not found|cannot be read)"):
            read(path)


def test_classes_asked_for_are_named_and_no_class_has_no_name(path):
    assert class_names(path) == {0: "cat", 3: "dog"}
