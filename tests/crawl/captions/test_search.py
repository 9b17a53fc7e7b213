"""What is taken from caption tables, what is left out, and what is told of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.captions import search, tables
from kd3_pipeline.crawl.captions.found import Found
from kd3_pipeline.crawl.captions.licences import allowed
from kd3_pipeline.crawl.captions.search import SURPLUS, progress_total, search_captions, unsafe
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.params import Crawl

CLASSES = {"cat": ["cat", "kitten"], "dog": ["dog"]}


def searched(folder: Path, classes: Any = CLASSES, workers: int = 1, **changes: Any) -> Found:
    section = Crawl(classes=classes, engine="captions", source=str(folder), **changes)
    return search_captions(section, load_classes(classes).classes, no_progress, workers)


def write(folder: Path, captions: list[str | None], name: str = "t", **columns: Any) -> Path:
    """A table with an address for each caption, and more columns."""
    urls = [f"http://x.test/{name}/{row}" for row in range(len(captions))]
    table = pa.table({"url": urls, "text": pa.array(captions, pa.string())} | columns)
    pq.write_table(table, folder / f"{name}.parquet")
    return folder


def taken(found: Found) -> list[str]:
    return [one.url.removeprefix("http://x.test/") for one in found.first([1000, 1000])]


def test_candidates_say_where_they_are_from(tmp_path: Path) -> None:
    write(
        tmp_path,
        ["a small kitten", "no animal", "the cat"],
        license=["CC BY", "CC0", "?"],
        license_url=["https://creativecommons.org/licenses/by/4.0/", "", None],
        page_url=["http://x.test/page", "", ""],
        author=["A. Uthor", "", None],
        similarity=[0.2, 0.9, 0.3],
    )
    first, second = searched(tmp_path).first([5, 5])
    assert (first.title, first.licence, first.query, first.rank) == ("the cat", "", "cat", 0)
    assert (second.label, second.class_name, second.engine) == (0, "cat", "captions")
    assert (second.query, second.rank, second.url) == ("kitten", 0, "http://x.test/t/0")
    assert (second.licence, second.licence_url) == (
        *("CC BY", "https://creativecommons.org/licenses/by/4.0/"),
    )
    assert (second.page_url, second.creator, second.title) == (
        *("http://x.test/page", "A. Uthor", "a small kitten"),
    )
    assert (second.licence_filter, second.variant) == ("", "")


def test_only_http_addresses_are_taken_and_each_once(tmp_path: Path) -> None:
    urls = ["http://x.test/a", " https://x.test/b ", "ftp://x.test/c", "", None, "http://", "cat"]
    urls += [
        f"http://x.test/{'x' * 2000}",
        "javascript:alert(1)",
        "http://x.test/\x00",
        '"http://x.test/d"',
        urls[0],
    ]
    pq.write_table(pa.table({"url": urls, "text": ["cat"] * len(urls)}), tmp_path / "t.parquet")
    found = searched(tmp_path)
    assert [one.url for one in found.first([9, 9])] == [
        *("http://x.test/a", "https://x.test/b", "http://x.test/d"),
    ]
    assert found.left_out == {"no http address": 8, "repeated address": 1}


def test_small_and_unsafe_rows_are_left_out_counted_and_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        ["cat"] * 8,
        WIDTH=pa.array([100, 15, None, 100, 100, 100, 100, 100]),
        HEIGHT=pa.array([100, 100, 100, 15.5, 100, 100, 100, 100]),
        NSFW=["UNLIKELY", "", "", "", "NSFW", "unsure", None, "?"],
        punsafe=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.51, 0.5],
    )
    found = searched(tmp_path)
    assert taken(found) == ["t/0", "t/2", "t/7"]
    assert found.left_out == {"too small": 2, "unsafe": 3}
    said = " ".join(found.notes())
    assert "2 are smaller than crawl.min_side (16)" in said
    assert "3 are marked as unsafe (crawl.unsafe: keep takes them)" in said
    assert taken(searched(tmp_path, unsafe="keep", min_side=1)) == [f"t/{row}" for row in range(8)]


def test_a_probability_in_the_column_nsfw_is_one() -> None:
    assert unsafe(pa.array([0.9, 0.2, None])).to_pylist() == [True, False, False]
    assert unsafe(pa.array(["0.9", "0.2", " Nsfw"])).to_pylist() == [True, False, True]


LICENCES = {
    "": (),
    "?": (),
    "All rights reserved": (),
    "http://creativecommons.org/licenses/by-nc-nd/2.0/": ("creative-commons",),
    "CC BY-NC 4.0": ("creative-commons", "modify"),
    "cc-by-nd": ("creative-commons", "commercial"),
    "by-sa": ("creative-commons", "commercial", "modify"),
    "Creative Commons Attribution": ("creative-commons", "commercial", "modify"),
    "CC0": ("creative-commons", "commercial", "modify", "public-domain"),
    "Public Domain Mark": ("creative-commons", "commercial", "modify", "public-domain"),
    "https://creativecommons.org/publicdomain/zero/1.0/": (
        *("creative-commons", "commercial", "modify", "public-domain"),
    ),
}


@pytest.mark.parametrize("wanted", ["creative-commons", "commercial", "modify", "public-domain"])
def test_a_licence_filter_keeps_what_the_table_calls_so(tmp_path: Path, wanted: str) -> None:
    told = pa.array(LICENCES, pa.large_string())
    nothing = pa.nulls(len(told), pa.large_string())
    fits = [wanted in kinds for kinds in LICENCES.values()]
    assert allowed([told], wanted).to_pylist() == fits
    assert allowed([nothing, told], wanted).to_pylist() == fits
    write(tmp_path, ["cat"] * len(LICENCES), LICENSE=list(LICENCES))
    found = searched(tmp_path, licence=wanted)
    assert len(found.best) == sum(fits) and found.left_out["licence"] == fits.count(False)
    assert {one.licence_filter for one in found.first([99, 99])} == {wanted}


def test_a_licence_filter_without_licences_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"crawl\.licence: .* has no licences"):
        searched(write(tmp_path, ["cat"]), licence="commercial")


def test_hostile_captions_are_survived(tmp_path: Path) -> None:
    captions = ["cat " + "x" * 2**20, "y" * 2**20 + " cat", "\x1b[31m cat\x00\u202e", "cat" * 99]
    write(tmp_path, [*captions, "\ud7ff\U0010ffff cat \u200b", None, ""])
    found = searched(tmp_path)
    assert taken(found) == ["t/4", "t/2", "t/0"]  # the second names it after 2,000 letters
    assert max(len(one.title) for one in found.first([9, 9])) == 300


def test_several_files_with_other_columns_are_one_table(tmp_path: Path) -> None:
    write(tmp_path, ["cat", "dog"], "a", similarity=["0.1", "0.9"])
    write(tmp_path, ["a cat", "a dog"], "b", WIDTH=[1, 100])
    (tmp_path / "c.tsv").write_text("the cat\thttp://x.test/c/0\n")
    found = searched(tmp_path)
    assert taken(found) == ["a/0", "c/0", "a/1", "b/1"]
    assert found.remarks.rows == 5 and found.matched == [3, 2]
    assert progress_total(found.section) is None


def test_threads_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 64)
    draws = np.random.default_rng(0)
    words = np.array(["cat", "dog", "cat and dog", "kitten", "tree", "house"])
    for name in ("a", "b"):
        captions = words[draws.integers(0, len(words), 1000)].tolist()
        write(tmp_path, captions, name, similarity=draws.random(1000).round(2))
    one, four = (
        searched(tmp_path, workers=1, per_class=50),
        searched(tmp_path, workers=4, per_class=50),
    )
    assert one.best.equals(four.best) and one.summary() == four.summary()
    assert one.kept == [SURPLUS * 50] * 2
    assert one.several > 100 and not any(one.best["several"].to_pylist())


def test_the_first_candidates_of_a_class_are_its_best(tmp_path: Path) -> None:
    write(tmp_path, ["cat", "dog", "cat", "cat"], similarity=[0.1, 0.2, 0.3, 0.2])
    found = searched(tmp_path)
    urls = [one.url for one in found.first([2, 0])]
    assert urls == ["http://x.test/t/2", "http://x.test/t/3"]
    assert len(found.first([2, 2])) == 3 and len(found.first([9, 9])) == 4


def test_what_each_class_got_and_why_is_told(tmp_path: Path) -> None:
    write(tmp_path, ["cat", "kitten", "tree", "a cat and a dog"], width=[100, 1, 1, 100])
    found = searched(tmp_path, CLASSES | {"bird": ["bird"]}, per_class=2)
    assert found.kept == [2, 0, 0]
    assert list(found.notes()) == [
        "captions: 4 rows read, of which 3 name a class;"
        " 2 are kept as candidates, at most 8 a class",
        "captions: left out of those that match: 1 are smaller than crawl.min_side (16)",
        "captions: 1 row names several classes, and such are taken last",
    ]
    account = found.account()
    cat, dog, _ = account.classes
    assert account.why(cat) == "captions: 3 of 4 rows name it, of which 2 can be taken"
    assert account.why(dog) == "captions: 0 of 4 rows name it"
    assert [(one.query, one.results, one.ended) for one in cat.queries] == [
        *(("cat", 2, "all rows were read"), ("kitten", 1, "all rows were read")),
    ]
    assert account.counts == found.summary()
    assert found.summary() == {
        "files": 1,
        "rows": 4,
        "matched": 3,
        "kept": 2,
        "several_classes": 1,
        "left_out": {"too small": 1},
        "malformed_rows": 0,
        "broken_files": [],
    }


def test_of_many_rows_it_is_told_how_many_were_tried(tmp_path: Path) -> None:
    found = searched(write(tmp_path, ["cat"] * 9), per_class=2)
    account = found.account()
    assert account.why(account.classes[0]) == (
        "captions: 9 of 9 rows name it, of which the best 8 were tried"
    )


def test_synonyms_come_after_a_class_s_own_words(tmp_path: Path) -> None:
    classes = {"cat": {"queries": ["cat photo"], "synonyms": ["tabby"], "contexts": ["asleep"]}}
    write(tmp_path, ["tabby", "a tabby cat", "asleep", "a cat"], similarity=[0.9, 0.1, 0.5, 0.2])
    found = searched(tmp_path, classes).first([9])
    assert [(one.title, one.query, one.variant) for one in found] == [
        ("a cat", "cat photo", ""),
        ("a tabby cat", "cat photo", ""),
        ("tabby", "tabby", "synonym"),
    ]
    assert len(searched(tmp_path, classes, expand="none").first([9])) == 2


def test_broken_files_and_rows_are_told(tmp_path: Path) -> None:
    write(tmp_path, ["cat"], "good")
    for number in range(15):
        (tmp_path / f"bad{number:02}.parquet").write_bytes(b"no")
    (tmp_path / "rows.tsv").write_text("cat\thttp://x.test/1\nonly one\n")
    said = "\n".join(searched(tmp_path).notes())
    assert "bad00.parquet cannot be read: " in said and "bad11.parquet" in said
    assert "bad12.parquet" not in said and "and 3 more alike" in said
    assert "1 rows of another number of cells are skipped: 1 in " in said
    assert "rows.tsv has no header: its columns are taken for captions and addresses" in said


def test_tables_that_name_no_class_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ExternalError, match=r"none of 2 rows has a caption.*'cat', 'kitten', 'dog'"
    ):
        searched(write(tmp_path, ["tree", "cats"]))
    with pytest.raises(ExternalError, match=r"1 of 1 rows match.*\(1 too small\)"):
        searched(write(tmp_path, ["cat"], width=[1]))
    with pytest.raises(ExternalError, match="captions: no rows in "):
        searched(write(tmp_path, []))


def test_rows_are_told_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 64)
    write(tmp_path, ["cat"] * 200)
    said: list[int] = []
    section = Crawl(classes=CLASSES, engine="captions", source=str(tmp_path))
    assert progress_total(section) == 200
    search_captions(section, load_classes(CLASSES).classes, said.append, 2)
    assert said == [64, 64, 64, 8]


def test_a_failure_in_a_thread_is_the_failure_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(column: pa.Array) -> pa.Array:
        raise MemoryError

    monkeypatch.setattr(search, "texts", fails)
    with pytest.raises(MemoryError):
        searched(write(tmp_path, ["cat"]), workers=4)
