"""Every image that trained the student is in sources.parquet, with every address of it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.export.provenance import (
    _counted,
    by_host,
    by_licence,
    creators_to_credit,
    fetched_between,
    provenance_table,
    read_history,
)
from kd3_pipeline.manifest import made_by
from kd3_pipeline.store import write_table
from tests.export.world import MADE, NAMES, TITLE, TWICE, USED, write_tables


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path, Path]:
    write_tables(tmp_path)
    data = tmp_path / "data"
    return (
        data / "crawl/manifest.parquet",
        data / "dedup/images.parquet",
        data / "distill/selection.parquet",
    )


def test_one_row_an_image_that_was_selected_with_a_value_for_each_address(tables) -> None:
    first, second = provenance_table(*tables).to_pylist()
    assert first == {
        "id": USED,
        "class": NAMES[0],
        "epochs": 3,
        "urls": ["https://a.example/1.jpg"],
        "page_urls": [""],
        "titles": [TITLE],
        "creators": [""],
        "licences": ["CC BY `4.0`|"],
        "licence_urls": [""],
        "fetched_at": ["2026-05-04T03:02:01+00:00"],
    }
    assert second["id"] == TWICE and second["class"] == NAMES[3] and second["epochs"] == 1
    assert second["urls"] == ["https://a.example/2.jpg", "https://b.example/2.jpg"]
    assert second["page_urls"] == ["javascript:alert(1)", ""]
    assert second["licences"] == ["", "CC0"] and second["creators"] == ["", "A. B."]


def test_counts_by_licence_and_host(tables) -> None:
    table = provenance_table(*tables)
    assert by_licence(table) == [("CC BY `4.0`|", 1), ("CC0", 1)]
    assert by_host(table) == [("a.example", 2)]
    many = _counted(f"host{number % 25:02}" for number in range(26))
    assert len(many) == 21 and many[0] == ("host00", 2) and many[-1] == ("others", 5)


def test_the_way_of_the_images_adds_up(tables) -> None:
    way = read_history(*tables)
    assert (way.candidates, way.stored, way.kept, way.held_out, way.used) == (8, 6, 4, 1, 2)
    assert way.dropped == {"near-duplicate": 1, "leaked": 1}


def test_a_manifest_of_an_early_crawl_has_fewer_columns(tables) -> None:
    manifest = pq.read_table(tables[0])
    write_table(tables[0], manifest.drop_columns(["creator", "licence_url"]))
    assert provenance_table(*tables)["creators"].to_pylist() == [[""], ["", ""]]


def test_files_of_different_runs_are_refused(tables) -> None:
    write_table(tables[0], pq.read_table(tables[0]).slice(1))
    with pytest.raises(UserError, match="different runs"):
        provenance_table(*tables)


def test_nothing_selected_is_an_empty_table(tables) -> None:
    selection = pq.read_table(tables[2])
    write_table(tables[2], selection.slice(2))
    table = provenance_table(*tables)
    assert table.num_rows == 0 and by_host(table) == []


def test_the_sources_say_when_and_how_they_were_fetched(tables, tmp_path: Path) -> None:
    table = provenance_table(*tables)
    assert fetched_between(table) == ("2026-05-04", "2026-05-04")
    assert fetched_between(table.slice(1)) == ("", "")
    write_table(tmp_path / "sources.parquet", table)
    assert made_by(tmp_path / "sources.parquet") == made_by(tables[0]) == MADE


def credited(*images: list[tuple[str, str]]) -> tuple[list[tuple[str, str, int]], int]:
    creators, licences = ([[pair[n] for pair in one] for one in images] for n in (0, 1))
    return creators_to_credit(pa.table({"creators": creators, "licences": licences}))


def test_creators_of_licences_with_conditions_are_credited_once_an_image() -> None:
    free = [("A.", "CC0 1.0")], [("A.", "Public Domain Mark")], [("A.", "")]
    assert credited(*free) == ([], 0)
    twice = [("B.", "CC BY 4.0"), ("B.", "CC BY 4.0")]
    assert credited(twice, [("B.", "CC BY 4.0")], [("A.", "CC BY-SA 2.0")]) == (
        [("B.", "CC BY 4.0", 2), ("A.", "CC BY-SA 2.0", 1)],
        0,
    )
    assert credited([("", "CC BY 4.0")], [("", "CC BY 4.0"), ("C.", "CC BY 4.0")]) == (
        [("C.", "CC BY 4.0", 1)],
        1,
    )
