"""Every image that trained the student is in sources.parquet, with every address of it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.export.provenance import (
    _counted,
    by_host,
    by_licence,
    provenance_table,
    read_history,
)
from kd3_pipeline.store import write_table
from tests.export.world import NAMES, TITLE, TWICE, USED, write_tables


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
