"""The crawl's manifest: its columns, and what is read of old and new ones."""

import sys

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
    made_by,
    manifest,
    read_manifest,
    scan_manifest,
    signed,
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


def test_each_column_is_what_the_candidate_or_its_answer_says():
    """Every kind of row, written out; made of these dataclasses and nothing else."""
    rows = [
        Candidate(
            0, "猫", "bing", "cat", 7, "https://a.example/1#top", "https://a.example/", "貓\ud800"
        ),
        Candidate(0, "猫", "bing", "cat", 8, "https://a.example/2", licence="CC0", creator="M"),
        Candidate(
            1, "dog", "flickr", "dog", 0, "https://b.example/3", original="https://b.example/o"
        ),
        Candidate(1, "dog", "flickr", "dog", 1, "https://c.example/4", variant="large"),
        Candidate(-1, "", "files", "", 0, "d/5.png"),
    ]
    image = {"id": "a" * 64, "status": 200, "size": 2**40, "width": 9, "height": 9}
    answers = {
        rows[0]: Fetched("https://a.example/1", "ok", final_url="https://a.example/x", **image),
        rows[1]: Fetched("https://a.example/2", "ok", "brightened", format="PNG", **image),
        rows[2]: Fetched(
            rows[2].url, "blocked", f"hash {'0123456789' * 4}", final_url="https://b/"
        ),
        rows[4]: Fetched(rows[4].url, "ok", id="b" * 64, has_gps=True, fetched_at="2026"),
    }
    nothing = ["", "", "", "", ""]
    assert manifest(rows, answers, {"b" * 64: "in a few colours"}).to_pydict() == {
        "label": [0, 0, 1, 1, -1],
        "class": ["猫", "猫", "dog", "dog", ""],
        "engine": ["bing", "bing", "flickr", "flickr", "files"],
        "query": ["cat", "cat", "dog", "dog", ""],
        "rank": [7, 8, 0, 1, 0],
        "url": [
            "https://a.example/1#top",
            "https://a.example/2",
            "",
            "https://c.example/4",
            "d/5.png",
        ],
        "page_url": ["https://a.example/", "", "", "", ""],
        "title": ["貓?", "", "", "", ""],
        "thumbnail": nothing,
        "licence": ["", "CC0", "", "", ""],
        "licence_url": nothing,
        "creator": ["", "M", "", "", ""],
        "licence_filter": nothing,
        "variant": ["", "", "", "large", ""],
        "original": nothing,
        "final_url": ["https://a.example/x", "", "", "", ""],
        "status": [200, 200, None, None, None],
        "outcome": ["stored", "duplicate", "blocked", "not_needed", "placeholder"],
        "detail": ["", "brightened", "hash 01234567…", "", "in a few colours"],
        "id": ["a" * 64, "a" * 64, None, None, "b" * 64],
        "format": ["", "PNG", "", "", ""],
        "size": [2**40, 2**40, 0, 0, 0],
        "has_gps": [False, False, False, False, True],
        "signals": nothing,
        "fetched_at": ["", "", "", "", "2026"],
    }


def test_how_it_was_made_is_in_the_schema_and_read_back(tmp_path):
    table = signed(manifest(ROWS, FETCHED), {"user_agent": "ä\ud800"})
    assert table.schema.metadata == {b"kd3_pipeline": '{"user_agent": "ä?"}'.encode()}
    assert manifest(ROWS, FETCHED).schema.equals(SCHEMA, check_metadata=True)
    write_table(tmp_path / "manifest.parquet", table)
    assert made_by(tmp_path / "manifest.parquet") == {"user_agent": "ä?"}
    assert read_manifest(tmp_path / "manifest.parquet").equals(manifest(ROWS, FETCHED))


def test_texts_are_stored_without_a_second_copy_in_the_candidate():
    one = Candidate(0, "cat", "test", "cat", 0, "https://a.example/", title="貓" * 1000)
    before = sys.getsizeof(one.title)
    assert manifest([one], {})["title"][0].as_py() == one.title
    assert sys.getsizeof(one.title) == before
