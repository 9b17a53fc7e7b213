import io
import json
import re
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline import labelled
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import LabelledImages, Reading, load_labelled
from kd3_pipeline.labelled.names import ClassNames
from kd3_pipeline.params import Evaluate, Teacher
from kd3_pipeline.store import StoredImage, write_shards

NAMES = ["ant", "bee", "cat"]


def png(value: int, side: int = 8) -> bytes:
    """A plain image, so that it is known again by one number."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(out, "PNG")
    return out.getvalue()


def shard(folder: Path, count: int = 9, names=NAMES) -> Path:
    images = (StoredImage(f"{i:064x}", png(i), i % 3, 8, 8, "PNG") for i in range(count))
    write_shards(folder, images, names)
    return folder / "images-00000.parquet"


def parquet(path: Path, images: list, labels: list) -> Path:
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return path


def class_folders(root: Path) -> Path:
    for label, name in enumerate(NAMES):
        for index in range(3):
            file = root / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(10 * label + index))
    (root / "bee" / "notes.txt").write_text("not an image")
    (root / "cat" / "more").mkdir()
    (root / "cat" / "more" / "3.PNG").write_bytes(png(23))
    (root / "README.md").write_text("not a class")
    return root


def values(found: LabelledImages) -> list[int]:
    return found.pixels[:, 0, 0, 0].tolist()


def test_all_images_of_ones_own_are_used_unless_told_and_what_is_left_is_told(tmp_path: Path):
    folder = class_folders(tmp_path / "test")
    assert (Evaluate().drawn, Evaluate(test_set=str(folder)).drawn) == (2000, 0)
    assert (Teacher().drawn, Teacher(data="mine").drawn, Teacher(images=7).drawn) == (4000, 0, 7)
    whole = load_labelled(str(folder), "test", Frame(8), Evaluate(test_set="x").drawn, 0)
    assert (len(whole.labels), whole.total) == (10, 10)
    assert whole.drawn_told("test", "evaluate.images") == []
    part = load_labelled(str(folder), "test", Frame(8), 4, 0)
    assert part.drawn_told("test", "evaluate.images") == [
        "test: 4 of its 10 images are used (evaluate.images)"
    ]


def test_the_demo_draws_its_classes_and_its_splits_differ():
    train = load_labelled("demo", "train", Frame(16), 20, 0)
    test = load_labelled("demo", "test", Frame(16), 20, 0)
    assert train.class_names == list(CLASS_NAMES)
    assert train.pixels.shape == (20, 16, 16, 3)
    assert train.labels.tolist() == test.labels.tolist() == 2 * list(range(10))
    assert not np.array_equal(train.pixels, test.pixels)


def test_a_parquet_file_with_names_is_read_in_order(tmp_path):
    found = load_labelled(str(shard(tmp_path)), "test", Frame(4), 0, 0)
    assert found.pixels.shape == (9, 4, 4, 3)
    assert found.pixels.dtype == np.uint8
    assert found.labels.dtype == np.int64
    assert values(found) == list(range(9))
    assert found.labels.tolist() == [0, 1, 2] * 3
    assert found.class_names == NAMES


def test_a_parquet_file_without_names_has_none(tmp_path):
    assert load_labelled(str(shard(tmp_path, names=[])), "test", Frame(4), 0, 0).class_names == []


def test_a_parquet_file_of_bare_bytes_is_read(tmp_path):
    path = parquet(tmp_path / "x.parquet", [png(7), png(9)], [1, 0])
    found = load_labelled(str(path), "test", Frame(4), 0, 0)
    assert values(found) == [7, 9]
    assert found.labels.tolist() == [1, 0]


def test_class_folders_are_read_with_the_names_in_order(tmp_path):
    found = load_labelled(str(class_folders(tmp_path)), "test", Frame(4), 0, 0)
    assert found.class_names == NAMES
    assert values(found) == [0, 1, 2, 10, 11, 12, 20, 21, 22, 23]
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_a_subset_is_drawn_by_the_seed(tmp_path, kind):
    make = {"parquet": shard, "folder": class_folders}[kind]
    path = str(make(tmp_path))
    everything = load_labelled(path, "test", Frame(4), 0, 0)
    subset, again, other = (load_labelled(path, "test", Frame(4), 5, seed) for seed in (1, 1, 2))
    label_of = dict(zip(values(everything), everything.labels.tolist(), strict=True))
    assert values(subset) == values(again) != values(other)
    assert len(set(values(subset))) == 5
    assert [label_of[value] for value in values(subset)] == subset.labels.tolist()
    assert values(load_labelled(path, "test", Frame(4), 1000, 1)) == values(everything)


@pytest.mark.parametrize("broken", [png(1)[:50], b"", None], ids=["cut off", "empty", "null"])
def test_a_broken_image_in_a_parquet_file_is_named_by_its_row(tmp_path, broken):
    path = parquet(tmp_path / "x.parquet", [png(7), broken, png(9)], [1, 0, 1])
    with pytest.raises(UserError, match=rf"{path}: row 1: not a whole image"):
        load_labelled(str(path), "test", Frame(4), 0, 0)


def test_a_broken_image_in_a_folder_is_named_by_its_path(tmp_path):
    root = class_folders(tmp_path)
    (root / "bee" / "1.png").write_bytes(png(1)[:50])
    with pytest.raises(UserError, match=r"bee/1\.png: not a whole image"):
        load_labelled(str(root), "test", Frame(4), 0, 0)


@pytest.mark.parametrize(
    "labels", [[0, None, 1], [0, -1, 1], [0.0, np.nan, 1.0], ["a", "", "b"], ["a", None, "b"]]
)
def test_an_image_without_a_label_is_left_out_and_named_by_its_row(tmp_path, labels):
    path = parquet(tmp_path / "x.parquet", [png(i) for i in range(3)], labels)
    found = load_labelled(str(path), "test", Frame(4), 0, 0)
    assert (values(found), found.labels.tolist(), found.rows.tolist()) == ([0, 2], [0, 1], [0, 2])
    assert found.left_out == {"unlabelled": 1}
    assert f"{path}: 1 images have no label: left out ({path}: row 1)" in found.notes


def test_a_set_without_any_label_is_an_error(tmp_path):
    path = parquet(tmp_path / "x.parquet", [png(i) for i in range(3)], [-1] * 3)
    with pytest.raises(UserError, match=r"none of its 3 images has a label .*for validation"):
        load_labelled(str(path), "test", Frame(4), 0, 0)
    path = parquet(tmp_path / "x.parquet", [png(1)], pa.array([None], pa.int64()))
    with pytest.raises(UserError, match="none of its 1 images has a label"):
        load_labelled(str(path), "test", Frame(4), 0, 0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -2, 1], "row 1: label -2 is not one of its classes"),
        ([0.0, 1.5, 1.0], "row 1: label 1.5 is no whole number"),
        ([0.0, np.inf, 1.0], "row 1: label inf is no whole number"),
        ([[1, 0], [0, 1], [1, 0]], r"row 0: label \[1, 0\] is a list: one number or name an image"),
    ],
)
def test_what_is_no_label_is_named_by_its_row(tmp_path, labels, message):
    path = parquet(tmp_path / "x.parquet", [png(i) for i in range(3)], labels)
    with pytest.raises(UserError, match=message):
        load_labelled(str(path), "test", Frame(4), 0, 0)


@pytest.mark.parametrize(
    ("labels", "told"), [([1.0, 0.0], "numbers with a point"), ([True, False], "true or false")]
)
def test_numbers_of_another_type_are_told(tmp_path, labels, told):
    path = parquet(tmp_path / "x.parquet", [png(1), png(2)], labels)
    found = load_labelled(str(path), "test", Frame(4), 0, 0)
    assert found.labels.tolist() == [1, 0]
    assert any(f"2 labels are {told}" in note for note in found.notes)


def test_labels_that_are_words_are_names(tmp_path):
    path = parquet(tmp_path / "x.parquet", [png(1), png(2), png(3)], ["dog", "cat", "dog"])
    found = load_labelled(str(path), "test", Frame(4), 0, 0)
    assert (found.class_names, found.labels.tolist()) == (["cat", "dog"], [1, 0, 1])


def test_a_label_beyond_the_files_own_names_is_named_by_its_row(tmp_path):
    features = {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [png(1), png(2)], "label": [1, 2]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"row 1: label 2 is not one of 2 classes"):
        load_labelled(str(tmp_path / "x.parquet"), "test", Frame(4), 0, 0)


def test_a_missing_column_is_named(tmp_path):
    pq.write_table(pa.table({"img": ["no bytes"], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: expected a column 'image' of bytes"):
        load_labelled(str(tmp_path / "x.parquet"), "test", Frame(4), 0, 0)
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "y.parquet")
    with pytest.raises(UserError, match=r"y\.parquet has no column 'label'"):
        load_labelled(str(tmp_path / "y.parquet"), "test", Frame(4), 0, 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.parquet", r"none\.parquet not found"),
        ("none", "none not found"),
        ("empty", "has no class folders with images"),
    ],
)
def test_a_source_that_is_not_there_is_an_error_of_the_user(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        load_labelled(source, "test", Frame(4), 0, 0)


def test_an_empty_parquet_file_is_an_error_of_the_user(tmp_path):
    path = parquet(tmp_path / "x.parquet", [], [])
    with pytest.raises(UserError, match="has no rows"):
        load_labelled(str(path), "test", Frame(4), 0, 0)


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_a_public_set_that_cannot_be_downloaded_is_the_worlds_fault(tmp_path, monkeypatch, source):
    from torchvision.datasets import utils

    def unreachable(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(utils.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(labelled, "DOWNLOADS", tmp_path / "torchvision")
    with pytest.raises(
        ExternalError, match=rf"{source} cannot be downloaded to {tmp_path}.*by hand"
    ):
        load_labelled(source, "test", Frame(16), 10, 0)


# layouts


def test_hidden_and_system_folders_are_no_classes_of_a_test_folder(tmp_path):
    root = class_folders(tmp_path)
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "bee/.ipynb_checkpoints"):
        (root / hidden).mkdir()
        (root / hidden / "0-checkpoint.png").write_bytes(png(99))
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    found = load_labelled(str(root), "test", Frame(4), 0, 0)
    assert found.class_names == NAMES
    assert 99 not in values(found)
    assert any(".ipynb_checkpoints 2" in note for note in found.notes)


def test_a_test_image_is_known_by_its_content(tmp_path):
    root = class_folders(tmp_path)
    (root / "ant" / "9.jfif").write_bytes(png(90))
    (root / "ant" / "no ending").write_bytes(png(91))
    assert {90, 91} < set(values(load_labelled(str(root), "test", Frame(4), 0, 0)))


def test_images_in_no_class_folder_are_left_out_and_told(tmp_path):
    root = class_folders(tmp_path)
    (root / "sample.png").write_bytes(png(99))
    found = load_labelled(str(root), "test", Frame(4), 0, 0)
    assert 99 not in values(found)
    assert any("1 images lie in no class folder" in note for note in found.notes)


def test_a_test_image_that_links_out_of_the_folder_is_an_error(tmp_path):
    root = class_folders(tmp_path / "in")
    (tmp_path / "secret.png").write_bytes(png(99))
    (root / "ant" / "9.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"ant/9\.png: not a whole image: link: a link out of"):
        load_labelled(str(root), "test", Frame(4), 0, 0)


def test_a_class_folder_that_is_a_link_is_an_error_and_no_class_less(tmp_path):
    root = class_folders(tmp_path / "in")
    (root / "bee").rename(tmp_path / "bee")
    (root / "bee").symlink_to(tmp_path / "bee")
    with pytest.raises(UserError, match=r"in/bee: not a whole image: link: .*cp -rlL"):
        load_labelled(str(root), "test", Frame(4), 1, 0)


@pytest.mark.parametrize("other", ["Bee", "bee ", "BEE_"])
def test_two_spellings_of_a_class_are_an_error_unless_the_teacher_has_both(tmp_path, other):
    root = class_folders(tmp_path)
    (root / other).mkdir()
    (root / other / "0.png").write_bytes(png(1))
    with pytest.raises(UserError, match="two spellings of one class"):
        load_labelled(str(root), "test", Frame(4), 0, 0, class_names=NAMES)
    both = [*NAMES, other]
    found = load_labelled(str(root), "test", Frame(4), 0, 0, class_names=both)
    assert sorted(found.labels.tolist()) == [0] * 3 + [1] * 3 + [2] * 4 + [3]


def test_the_split_that_is_asked_for_is_read(tmp_path):
    for split, value in (("train", 1), ("val", 2)):
        for name in NAMES:
            file = tmp_path / split / name / "0.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(png(value))
    train, test = (
        load_labelled(str(tmp_path), split, Frame(4), 0, 0) for split in ("train", "test")
    )
    assert train.class_names == test.class_names == NAMES
    assert (set(values(train)), set(values(test))) == ({1}, {2})
    assert any("the split 'val' of train, val" in note for note in test.notes)
    (tmp_path / "val").rename(tmp_path / "training")
    with pytest.raises(UserError, match=r"splits train, training, and none is for 'test'"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)


def test_shards_of_a_hugging_face_data_set_are_one_test_set(tmp_path):
    for number, split in enumerate(("train", "test", "test")):
        path = tmp_path / "data" / f"{split}-0000{number}-of-00002.parquet"
        shard(tmp_path / str(number)).replace(_parent(path))
    found = load_labelled(str(tmp_path / "data"), "test", Frame(4), 0, 0)
    assert values(found) == 2 * list(range(9))
    assert (found.class_names, found.labels.tolist()) == (NAMES, 6 * [0, 1, 2])


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_shards_that_name_other_classes_are_an_error(tmp_path):
    shard(tmp_path / "a").rename(tmp_path / "a.parquet")
    shard(tmp_path / "b", names=["ant", "cat", "bee"]).rename(tmp_path / "b.parquet")
    for folder in ("a", "b"):
        (tmp_path / folder).rmdir()
    with pytest.raises(UserError, match=r"its files name other classes: ant, bee, cat; ant, cat"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)


@pytest.mark.parametrize("words", [True, False])
def test_a_webdataset_shard_is_a_test_set(tmp_path, words):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for index in range(6):
            of_class = NAMES[index % 3] if words else str(index % 3)
            for end, data in (("cls", of_class.encode()), ("png", png(index))):
                info = tarfile.TarInfo(f"{index:03}.{end}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    found = load_labelled(str(tmp_path / "x.tar"), "test", Frame(4), 0, 0)
    assert values(found) == list(range(6))
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.class_names == (NAMES if words else [])


def test_an_imagefolder_with_metadata_is_a_test_set(tmp_path):
    rows = ["file_name,label"] + [f"{index}.png,{NAMES[index % 3]}" for index in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    found = load_labelled(str(tmp_path), "test", Frame(4), 0, 0)
    assert (found.class_names, found.labels.tolist()) == (NAMES, [0, 1, 2, 0, 1, 2])
    (tmp_path / "7.png").write_bytes(png(7))
    assert load_labelled(str(tmp_path), "test", Frame(4), 0, 0).left_out == {"unlabelled": 1}
    (tmp_path / "7.png").unlink()
    (tmp_path / "5.png").unlink()
    with pytest.raises(UserError, match=r"metadata\.csv: row 5: not a whole image: missing"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)


# broken images


def strewn(root: Path, whole: int, broken: int) -> Path:
    """A folder of one class, in which some files are cut off."""
    (root / "ant").mkdir(parents=True)
    for index in range(whole + broken):
        data = png(index) if index < whole else png(index + 1)[:45]
        (root / "ant" / f"{index:03}.png").write_bytes(data)
    return root


def test_some_broken_images_are_left_out_and_named(tmp_path):
    root = strewn(tmp_path, 19, 1)
    (root / "ant" / "empty.jpg").write_bytes(b"")
    found = load_labelled(str(root), "test", Frame(4), 0, 0, reading=Reading(broken=0.1))
    assert values(found) == list(range(19))
    assert found.names == [f"ant/{index:03}.png" for index in range(19)]
    assert found.left_out == {"broken": 2}
    (note,) = (note for note in found.notes if "cannot be read" in note)
    assert "2 of 21 images cannot be read" in note
    assert "ant/019.png: not a whole image" in note
    assert "ant/empty.jpg: not a whole image: it has no bytes" in note


@pytest.mark.parametrize(
    ("share", "whole", "broken"), [(0.05, 15, 0), (0.05, 19, 1), (0.29, 71, 29), (0.0625, 15, 1)]
)
def test_as_many_broken_images_as_the_limit_says_are_left_out_and_no_more(
    tmp_path, share, whole, broken
):
    reading = Reading(broken=share)
    root = strewn(tmp_path / "limit", whole, broken)
    assert len(load_labelled(str(root), "test", Frame(4), 0, 0, reading=reading).labels) == whole
    root = strewn(tmp_path / "over", whole - 1, broken + 1)
    said = f"more than {100 * share:g}% of {whole + broken} images cannot be read"
    with pytest.raises(UserError, match=re.escape(said)):
        load_labelled(str(root), "test", Frame(4), 0, 0, reading=reading)


def test_too_many_broken_images_are_an_error_that_names_the_first_ten(tmp_path):
    root = strewn(tmp_path, 20, 20)
    with pytest.raises(UserError) as caught:
        load_labelled(str(root), "test", Frame(4), 0, 0, reading=Reading(broken=0.3))
    text = str(caught.value)
    assert "more than 30% of 40 images cannot be read" in text
    assert text.count("not a whole image") == 10
    assert "and 3 more" in text
    assert "set evaluate.broken higher" in text


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    root = strewn(tmp_path, 0, 3)
    with pytest.raises(UserError, match="none of its images can be read"):
        load_labelled(str(root), "test", Frame(4), 0, 0, reading=Reading(broken=1.0))


def test_a_picture_of_a_format_that_is_not_read_counts_as_broken(tmp_path):
    root = strewn(tmp_path, 9, 0)
    (root / "ant" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    with pytest.raises(UserError, match=r"x\.heic: not a whole image: a picture of HEIC, which"):
        load_labelled(str(root), "test", Frame(4), 0, 0)


# kinds of files


MODES = {
    "grey.png": lambda image: image.convert("L"),
    "grey-alpha.png": lambda image: image.convert("LA"),
    "palette.gif": lambda image: image.convert("P"),
    "alpha.png": lambda image: image.convert("RGBA"),
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "bits.bmp": lambda image: image.convert("1"),
    "plain.webp": lambda image: image,
    "plain.tiff": lambda image: image,
    "plain.avif": lambda image: image,
    "plain.JPG": lambda image: image,
}


@pytest.mark.parametrize("name", MODES)
def test_a_picture_of_any_mode_and_format_is_read(tmp_path, name):
    (tmp_path / "ant").mkdir()
    MODES[name](Image.new("RGB", (16, 16), "white")).save(tmp_path / "ant" / name)
    found = load_labelled(str(tmp_path), "test", Frame(4), 0, 0)
    assert found.pixels[:].min() > 250


def test_a_picture_of_16_bits_is_read(tmp_path):
    (tmp_path / "ant").mkdir()
    Image.fromarray(np.full((16, 16), 0x8080, np.uint16)).save(tmp_path / "ant" / "deep.png")
    found = load_labelled(str(tmp_path), "test", Frame(4), 0, 0)
    assert set(found.pixels[:].ravel().tolist()) == {0x80}


def test_of_several_pages_the_first_is_read(tmp_path):
    (tmp_path / "ant").mkdir()
    pages = [Image.new("RGB", (16, 16), (level,) * 3) for level in (200, 10, 20)]
    pages[0].save(tmp_path / "ant" / "x.tif", save_all=True, append_images=pages[1:])
    assert values(load_labelled(str(tmp_path), "test", Frame(4), 0, 0)) == [200]


def test_packed_files_are_named_as_the_cause(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK\3\4" + bytes(30))
    with pytest.raises(UserError, match=r"\.zip 1.*unpack what is packed"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)
    with pytest.raises(UserError, match=r"unpack it and name the folder: `unzip photos\.zip"):
        load_labelled(str(tmp_path / "photos.zip"), "test", Frame(4), 0, 0)


# frames


def test_an_image_is_cropped_or_squashed_as_the_frame_says(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, :8], wide[:, 16:] = 255, 255
    (tmp_path / "ant").mkdir()
    Image.fromarray(wide).save(tmp_path / "ant" / "0.png")
    cropped, squashed = (
        load_labelled(str(tmp_path), "test", Frame(6, fit), 0, 0).pixels[0]
        for fit in ("crop", "squash")
    )
    assert cropped.max() < 20
    assert squashed[:, 0].min() > 200


@pytest.mark.parametrize("source", ["demo", "folder"])
def test_the_centre_of_a_larger_square_is_read(tmp_path, source):
    if source == "folder":
        (tmp_path / "ant").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ant" / "0.png")
        source = str(tmp_path)
    whole = load_labelled(source, "test", Frame(12), 1, 0).pixels[0]
    inside = load_labelled(source, "test", Frame(8, "crop", 12), 1, 0).pixels[0]
    assert np.array_equal(inside, whole[2:10, 2:10])


# memory


def test_a_set_is_not_in_memory(tmp_path):
    (tmp_path / "ant").mkdir()
    for index in range(60):
        (tmp_path / "ant" / f"{index}.png").write_bytes(png(index + 1))
    tracemalloc.start()
    found = load_labelled(str(tmp_path), "test", Frame(256), 0, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.pixels.nbytes == 60 * 256 * 256 * 3
    assert peak < found.pixels.nbytes / 2
    assert found.pixels[7, 3, 3].tolist() == [found.pixels[7, 0, 0, 0]] * 3


# layouts of folders, as people have them


def test_splits_are_known_in_any_case_and_beside_an_empty_one(tmp_path):
    class_folders(tmp_path / "Test")
    (tmp_path / "train").mkdir()
    found = load_labelled(str(tmp_path), "test", Frame(4), 0, 0, class_names=NAMES)
    assert len(found.labels) == 10


def test_classes_one_folder_deeper_are_offered(tmp_path):
    class_folders(tmp_path / "pets")
    with pytest.raises(UserError, match=rf"the classes are in {tmp_path}/pets: name that folder"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0, class_names=NAMES)
    class_folders(tmp_path / "sketch")
    with pytest.raises(UserError, match=r"in each of pets, sketch: .*evaluate\.styles"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0, class_names=NAMES)


def test_classes_one_folder_deeper_in_an_archive_are_told(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(class_folders(tmp_path / "pets"), "pets")
    with pytest.raises(UserError, match="one folder deeper, in pets: unpack it"):
        load_labelled(str(tmp_path / "x.tar"), "test", Frame(4), 0, 0, class_names=NAMES)


def test_a_split_among_other_folders_is_offered(tmp_path):
    class_folders(tmp_path / "test")
    class_folders(tmp_path / "unused")
    with pytest.raises(UserError, match=rf"the classes are in {tmp_path}/test: name that folder"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0, class_names=NAMES)


# columns


def table(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_are_taken_by_their_roles(tmp_path):
    path = table(
        tmp_path / "x.parquet", image=[png(1)], label=[0], shot=[png(7)], target=[1], note=["x"]
    )
    reading = Reading(columns={"image": "shot", "label": "target"})
    found = load_labelled(str(path), "test", Frame(4), 0, 0, reading=reading)
    assert (values(found), found.labels.tolist()) == ([7], [1])


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path):
    path = table(tmp_path / "x.parquet", image=[png(1)], label=[0])
    with pytest.raises(UserError, match=r"no column 'shot' for the image: .* image \(binary\)"):
        load_labelled(str(path), "test", Frame(4), 0, 0, reading=Reading(columns={"image": "shot"}))
    with pytest.raises(UserError, match="its column 'label' has int64, and no encoded images"):
        load_labelled(
            str(path), "test", Frame(4), 0, 0, reading=Reading(columns={"image": "label"})
        )


def test_columns_that_may_be_meant_for_the_label_are_offered(tmp_path):
    path = table(tmp_path / "x.parquet", image=[png(1)], id=[4], target=[0], note=["x"])
    with pytest.raises(UserError) as caught:
        load_labelled(str(path), "test", Frame(4), 0, 0)
    assert "its columns are image (binary), id (int64), target (int64), note (string)" in str(
        caught.value
    )
    assert str(caught.value).endswith("set evaluate.columns to {label: target}")


def test_a_choice_between_columns_of_pictures_is_told(tmp_path):
    path = table(
        tmp_path / "x.parquet", mask=[png(1)], vector=[b"\0" * 9], image=[png(7)], label=["a"]
    )
    found = load_labelled(str(path), "test", Frame(4), 0, 0, reading=Reading("teacher"))
    assert values(found) == [7]
    told = "pictures are those of its column 'image'; teacher.columns can name another: mask"
    assert f"{path}: {told}" in found.notes
    found = load_labelled(
        str(path), "test", Frame(4), 0, 0, reading=Reading(columns={"image": "mask"})
    )
    assert values(found) == [1]
    assert not any("mask" in note for note in found.notes)


def test_a_choice_between_columns_is_told(tmp_path):
    path = table(tmp_path / "x.parquet", image=[png(1)], category=["a"], label=["b"])
    found = load_labelled(str(path), "test", Frame(4), 0, 0)
    assert found.class_names == ["b"]
    assert any("labels are those of its column 'label'" in note for note in found.notes)
    assert any("evaluate.columns can name another: category" in note for note in found.notes)


# names with accents


COMPOSED, DECOMPOSED = "\u00e9lan", "e\u0301lan"


def accented(root: Path, *names: str) -> str:
    for at, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / f"{at}.png").write_bytes(png(at))
    return str(root)


def load(path: str, teacher: tuple[str, ...] = (), reading: Reading | None = None):
    return load_labelled(
        path, "test", Frame(4), 0, 0, reading=reading or Reading(), class_names=teacher
    )


@pytest.mark.parametrize(
    ("folder", "teacher"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)], ids=["mac", "teacher"]
)
def test_a_folder_with_its_accents_apart_is_the_teachers_class(tmp_path, folder, teacher):
    found = load(accented(tmp_path / "set", "ant", folder), (teacher, "ant"))
    assert found.labels.tolist() == [1, 0]
    assert found.class_names == [teacher, "ant"]
    assert not any(name in note for note in found.notes for name in (folder, teacher))


def test_two_folders_of_one_name_are_one_class(tmp_path):
    found = load(accented(tmp_path / "set", COMPOSED, DECOMPOSED, "ant"))
    assert found.class_names == ["ant", COMPOSED]
    assert sorted(zip(values(found), found.labels.tolist(), strict=True)) == [
        (0, 1),
        (1, 1),
        (2, 0),
    ]


@pytest.mark.parametrize("key", [COMPOSED, DECOMPOSED])
def test_a_mapping_names_a_folder_however_its_accents_are_encoded(tmp_path, key):
    meant = Reading(class_names=ClassNames(renamed={key: "moose"}))
    found = load(accented(tmp_path / "set", DECOMPOSED), ("moose", "ant"), meant)
    assert found.labels.tolist() == [0]


def test_the_hint_finds_a_class_with_its_accents_apart_one_folder_deeper(tmp_path):
    path = accented(tmp_path / "set", f"one/{DECOMPOSED}", "two/ant")
    with pytest.raises(UserError, match=r"the classes are in .*set/one: name that folder"):
        load(path, (COMPOSED,))


def test_a_class_of_a_column_with_its_accents_apart_is_the_teachers(tmp_path):
    path = parquet(tmp_path / "x.parquet", [png(7), png(9)], [DECOMPOSED, "ant"])
    assert load(str(path), ("ant", COMPOSED)).labels.tolist() == [1, 0]
