"""`pipeline crawl` on the user's own pictures, through the whole command."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd3_pipeline.store import read_shard
from tests.crawl.hosts import picture
from tests.imagesource.making import PICTURES, as_bytes, files_of, table_of, tar_of
from tests.stages.workspace import invoke

PARAMS = "distill: {batch_size: 8}\n"
CRAWL = ("crawl", "--engine", "files", "--source", "my-pictures", "--classes", "cat,dog")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def test_every_file_of_a_mixed_folder_ends_in_a_row_or_is_told(place: Path) -> None:
    files_of(
        place / "my-pictures",
        {
            "cat/a.jfif": PICTURES[0],
            "cat/b.tif": picture(1, "TIFF"),
            "cat/.ipynb_checkpoints/b-checkpoint.jpg": PICTURES[1],
            "dog/c": PICTURES[2],
            "dog/d.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
            "dog/e.jpg": b"<html>",
            "dog/f.jpg": PICTURES[0],
            "dog/g.png": picture(7, "PNG", 300),
            "dog/README.md": b"#",
        },
    )
    tar_of(place / "my-pictures/more.tar", {"0.jpg": PICTURES[4], "0.cls": b"cat"})
    table_of(
        place / "my-pictures/x.parquet",
        {"image": [PICTURES[5]], "label": [1]},
        {"label": ["a", "dog"]},
    )
    (place / "my-pictures/cat/out.jpg").symlink_to(place / "params.yaml")
    done = invoke(place, *CRAWL, "--set", "crawl.max_bytes=200000")
    rows = pq.read_table(place / "data/crawl/manifest.parquet").to_pylist()
    assert [(row["url"], row["class"], row["outcome"]) for row in rows] == [
        ("cat/a.jfif", "cat", "stored"),
        ("cat/b.tif", "cat", "stored"),
        ("cat/out.jpg", "cat", "link"),
        ("dog/c", "dog", "stored"),
        ("dog/d.heic", "dog", "unsupported"),
        ("dog/e.jpg", "dog", "not_an_image"),
        ("dog/f.jpg", "dog", "duplicate"),
        ("dog/g.png", "dog", "too_large"),
        ("more.tar#0.jpg", "cat", "stored"),
        ("x.parquet#0", "dog", "stored"),
    ]
    assert "HEIC is not read here: convert it" in rows[4]["detail"]
    images = list(read_shard(place / "data/crawl/images-00000.parquet"))
    assert [(image.label, image.format) for image in images] == [
        *((0, "JPEG"), (0, "TIFF"), (1, "JPEG"), (0, "JPEG"), (1, "JPEG"))
    ]
    for words in (
        "8 files of a folder, 1 members of WebDataset tars, 1 rows of Parquet tables",
        "hidden or the system's: .ipynb_checkpoints 1",
        "no pictures by content or name: .md 1",
        "10 pictures have a class of crawl.classes",
    ):
        assert words in done.output
    summary = json.loads((place / "reports/crawl.json").read_text())
    assert summary["outcomes"] == dict(sorted(Counter(row["outcome"] for row in rows).items()))


def test_the_address_that_img2dataset_had_leads_to_the_picture(place: Path) -> None:
    root = files_of(place / "my-pictures", {"00000/000000000.jpg": PICTURES[0]})
    columns = {"key": ["000000000"], "url": ["https://example.org/fox.jpg"], "status": ["success"]}
    table_of(root / "00000.parquet", columns)
    invoke(place, *CRAWL)
    assert "00000/000000000.jpg" in invoke(place, "trace", "https://example.org/fox.jpg").output


def test_what_was_searched_for_nothing_is_traced_without_a_query(place: Path) -> None:
    files_of(place / "my-pictures", {"a.jpg": PICTURES[0]})
    invoke(place, *CRAWL)
    (row,) = pq.read_table(place / "data/crawl/manifest.parquet")["id"].to_pylist()
    assert "  no class: files, result 1: stored" in invoke(place, "trace", row).output


def test_a_teacher_that_was_not_looked_at_is_told_by_hand_and_not_within_dvc(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of(place / "my-pictures", {"a.jpg": PICTURES[0]})
    (place / "params.yaml").write_text(PARAMS + "teacher: {source: file, path: weights.pt}\n")
    assert "`pipeline teacher --check`" in invoke(place, *CRAWL).output
    monkeypatch.setenv("DVC_STAGE", "crawl")  # its first stage has looked at it
    assert "teacher --check" not in invoke(place, *CRAWL).output


def test_files_without_a_class_file_are_no_reason_to_ask_for_one(place: Path) -> None:
    files_of(place / "my-pictures", {"a.jpg": PICTURES[0], "b.json": as_bytes({})})
    invoke(place, "crawl", "--engine", "files", "--source", "my-pictures", "--classes", "none.yaml")


def test_when_nothing_is_stored_the_first_reason_is_told(place: Path) -> None:
    files_of(place / "my-pictures", {"a.jpg": b"<html>"})
    done = invoke(place, *CRAWL, check=False)
    assert done.exit_code == 3
    assert "none of 1 candidates gave an image (1 not_an_image): a.jpg: none of JPEG" in done.output
    assert "retry" not in done.output


def stored(place: Path) -> list[bytes]:
    return [image.data for image in read_shard(place / "data/crawl/images-00000.parquet")]


def test_one_of_several_columns_of_pictures_is_told_and_can_be_another(place: Path) -> None:
    columns = {"mask": [PICTURES[0]], "photo": [PICTURES[1]]}
    for part in "xy":
        table_of(place / f"my-pictures/{part}.parquet", columns)
    done = invoke(place, *CRAWL)
    told = "pictures are those of its column 'photo'; crawl.columns can name another: mask"
    assert done.output.count(told) == 1
    assert stored(place) == [PICTURES[1]]
    done = invoke(place, *CRAWL, "--set", "crawl.columns={image: mask}")
    assert "crawl.columns" not in done.output.replace("crawl.columns=", "")
    assert stored(place) == [PICTURES[0]]


def test_a_number_of_images_a_class_that_does_not_count_is_told(place: Path) -> None:
    files_of(place / "my-pictures", {f"cat/{n}.jpg": PICTURES[n] for n in range(3)})
    said = invoke(place, *CRAWL, "--per-class", "1").stderr
    assert "all 3 images are taken: crawl.per_class (1) does not count" in said
    assert "are taken" not in invoke(place, *CRAWL, "--per-class", "2").stderr
