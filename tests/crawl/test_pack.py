import pyarrow.parquet as pq
import pytest

from pipeline.crawl.candidates import MANIFEST_COLUMNS, Candidate, Fetched, manifest
from pipeline.crawl.journal import Journal
from pipeline.crawl.pack import pack
from pipeline.errors import WorldError
from pipeline.store import read_shard, shard_paths
from tests.crawl.hosts import picture


def candidate(label, rank, url):
    return Candidate(label, f"class {label}", "test", "query", rank, url, "page", "title", "CC0")


def kept(journal, index):
    return {"id": journal.keep(picture(index)), "width": 32, "height": 32, "format": "JPEG"}


@pytest.fixture
def crawl(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        first, again, other, same, missing, late = [
            candidate(0, 0, "a"),
            candidate(0, 1, "b"),
            candidate(0, 2, "c"),
            candidate(1, 0, "b"),
            candidate(1, 1, "d"),
            candidate(1, 2, "e"),
        ]
        found = {
            first: Fetched("a", "ok", "", 200, "a2", **kept(journal, 1)),
            again: Fetched("b", "ok", "", 200, "b", **kept(journal, 1)),
            other: Fetched("c", "ok", "", 200, "c", **kept(journal, 2)),
            same: Fetched("b", "ok", "", 200, "b", **kept(journal, 1)),
            missing: Fetched("d", "http_error", "Not Found", 404),
        }
        yield [first, again, other, same, missing, late], found, journal


def test_every_candidate_has_a_row_and_an_outcome(crawl):
    candidates, found, _ = crawl
    table = manifest(candidates, found)
    assert table["outcome"].to_pylist() == [
        "stored",
        "duplicate",
        "stored",
        "duplicate",
        "http_error",
        "not_needed",
    ]
    assert table.column_names == list(MANIFEST_COLUMNS)
    row = table.to_pylist()[0]
    assert (row["class"], row["page_url"], row["title"], row["licence"], row["final_url"]) == (
        "class 0",
        "page",
        "title",
        "CC0",
        "a2",
    )


def test_an_image_is_stored_once_with_its_first_label(tmp_path, crawl):
    summary = pack(tmp_path / "out", *crawl, ["class 0", "class 1"])
    (path,) = shard_paths(tmp_path / "out")
    images = list(read_shard(path))
    assert [(image.label, image.data) for image in images] == [(0, picture(1)), (0, picture(2))]
    assert summary == {
        "candidates": 6,
        "stored": 2,
        "outcomes": {"duplicate": 2, "http_error": 1, "not_needed": 1, "stored": 2},
        "classes": [{"name": "class 0", "stored": 2}, {"name": "class 1", "stored": 0}],
    }
    table = pq.read_table(tmp_path / "out" / "manifest.parquet")
    stored = [row["id"] for row in table.to_pylist() if row["outcome"] == "stored"]
    assert stored == [image.id for image in images]


def test_packing_twice_gives_the_same_bytes(tmp_path, crawl):
    for name in ("1", "2"):
        pack(tmp_path / name, *crawl, ["class 0", "class 1"])
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_nothing_stored_is_the_fault_of_the_world(tmp_path):
    candidates = [candidate(0, rank, f"http://0.test/{rank}") for rank in range(3)]
    found = {one: Fetched(one.url, "http_error", "", 404) for one in candidates[:2]}
    with Journal(tmp_path / "journal") as journal, pytest.raises(WorldError) as caught:
        pack(tmp_path / "out", candidates, found, journal, ["class 0"])
    assert str(caught.value) == ("none of 3 candidates gave an image (2 http_error, 1 not_needed)")
    assert not (tmp_path / "out").exists()


def test_text_that_is_no_unicode_does_not_end_the_crawl():
    # lone surrogates come from JSON escapes, from headers and from file names
    broken = "a\ud800\udcff"
    one = Candidate(0, broken, "test", broken, 0, broken, broken, broken, broken)
    table = manifest([one], {one: Fetched(broken, "http_error", broken, 404, broken)})
    assert table.to_pylist()[0]["title"] == "a??"
