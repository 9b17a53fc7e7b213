import pyarrow.parquet as pq
import pytest

from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.crawl.shortfall import class_table
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import SCHEMA, Candidate, Fetched, manifest
from kd3_pipeline.store import read_shard, shard_paths
from tests.crawl.hosts import picture


def candidate(label, rank, url):
    return Candidate(
        label, f"class {label}", "test", "query", rank, url, "page", "title", licence="CC0"
    )


def kept(journal, index):
    data = picture(index)
    size = {"width": 32, "height": 32, "size": len(data)}
    return {"id": journal.keep(data), "format": "JPEG", "has_gps": index == 2, **size}


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
            first: Fetched("a", "ok", status=200, final_url="a2", **kept(journal, 1)),
            again: Fetched("b", "ok", status=200, final_url="b", **kept(journal, 1)),
            other: Fetched("c", "ok", status=200, final_url="c", **kept(journal, 2)),
            same: Fetched("b", "ok", status=200, final_url="b", **kept(journal, 1)),
            missing: Fetched("d", "http_error", "Not Found", status=404),
        }
        candidates = [first, again, other, same, missing, late]
        yield Gathered(candidates, found, {}), journal


def test_every_candidate_has_a_row_and_an_outcome(crawl):
    gathered, _ = crawl
    table = manifest(gathered.candidates, gathered.found)
    assert table["outcome"].to_pylist() == [
        "stored",
        "duplicate",
        "stored",
        "duplicate",
        "http_error",
        "not_needed",
    ]
    assert table.column_names == SCHEMA.names
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
    sizes = [len(picture(1)), len(picture(2))]
    assert (summary["candidates"], summary["stored"]) == (6, 2)
    assert summary["outcomes"] == {"duplicate": 2, "http_error": 1, "not_needed": 1, "stored": 2}
    assert summary["bytes"]["total"] == sum(sizes)
    assert min(sizes) <= summary["bytes"]["p50"] <= max(sizes)
    assert summary["formats"] == {"JPEG": 2}
    assert summary["licences"] == {"CC0": 2}
    assert summary["hosts"] == {"none": 2}
    assert summary["with_location"] == 1
    assert [(one["name"], one["stored"]) for one in summary["classes"]] == [
        ("class 0", 2),
        ("class 1", 0),
    ]
    assert summary["classes"][1]["outcomes"] == {
        "duplicate": 1,
        "http_error": 1,
        "not_needed": 1,
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
    found = {one: Fetched(one.url, "http_error", status=404) for one in candidates[:2]}
    gathered = Gathered(candidates, found, {})
    with Journal(tmp_path / "journal") as journal, pytest.raises(ExternalError) as caught:
        pack(tmp_path / "out", gathered, journal, ["class 0"])
    text = str(caught.value)
    assert text.startswith("none of 3 candidates gave an image (2 http_error, 1 not_needed)")
    assert "--retry-failed http_error" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("outcome", ["opted_out", "robots", "forgotten", "blocked"])
def test_who_was_told_no_is_not_advised_to_ask_again(tmp_path, outcome):
    candidates = [candidate(0, 0, "http://0.test/0")]
    gathered = Gathered(candidates, {candidates[0]: Fetched("http://0.test/0", outcome)}, {})
    with Journal(tmp_path / "journal") as journal, pytest.raises(ExternalError) as caught:
        pack(tmp_path / "out", gathered, journal, ["class 0"])
    assert caught.value.hint and "--retry-failed" not in caught.value.hint


def test_nothing_but_what_was_put_off_says_when_to_ask_again(tmp_path):
    candidates = [candidate(0, 0, "http://0.test/0")]
    later = {"images": 1, "hosts": {"0.test": {"images": 1, "again_at": "2026-05-03T12:30:00Z"}}}
    found = {candidates[0]: Fetched("http://0.test/0", "not_now")}
    gathered = Gathered(candidates, found, {}, later=later)
    with Journal(tmp_path / "journal") as journal, pytest.raises(ExternalError) as caught:
        pack(tmp_path / "out", gathered, journal, ["class 0"])
    assert "run the same command again after 2026-05-03" in caught.value.hint


def test_the_summary_names_few_hosts_and_counts_the_rest(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        candidates = [candidate(0, rank, f"http://{rank % 25}.test/{rank}") for rank in range(50)]
        found = {
            one: Fetched(one.url, "ok", status=200, final_url=one.url, **kept(journal, one.rank))
            for one in candidates
        }
        summary = pack(tmp_path / "out", Gathered(candidates, found, {}), journal, [])
    assert len(summary["hosts"]) == 21
    assert summary["hosts"]["0.test"] == 2
    assert summary["hosts"]["others"] == 10


def test_counts_by_class_are_a_table_for_a_person(tmp_path, crawl):
    text = class_table(pack(tmp_path / "out", *crawl, ["class 0", "class 1"]))
    assert text.splitlines() == [
        "class    stored  duplicate  http_error  not_needed",
        "class 0       2          1           0           0",
        "class 1       0          1           1           1",
        "all           2          2           1           1",
    ]


def test_text_that_is_no_unicode_does_not_end_the_crawl():
    # lone surrogates come from JSON escapes, from headers and from file names
    broken = "a\ud800\udcff"
    one = Candidate(0, broken, "test", broken, 0, broken, broken, broken, broken)
    table = manifest(
        [one], {one: Fetched(broken, "http_error", broken, status=404, final_url=broken)}
    )
    assert table.to_pylist()[0]["title"] == "a??"
