import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import labelled
from pipeline.demo.shapes import CLASS_NAMES
from pipeline.errors import ExternalError, UserError
from pipeline.images import Frame
from pipeline.labelled import LabelledImages, load_labelled, match_labels, told_apart
from pipeline.store import StoredImage, write_shards

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


def test_labels_follow_the_teachers_order_of_the_names():
    found = LabelledImages(np.zeros((4, 1, 1, 3), np.uint8), np.array([0, 1, 2, 0]), NAMES)
    assert match_labels(found, NAMES, "here").tolist() == [0, 1, 2, 0]
    assert match_labels(found, ["cat", "ant", "bee"], "here").tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize("teacher", [["ant", "bee", "dog"], ["ant", "bee"], [*NAMES, "dog"]])
def test_other_names_than_the_teachers_show_both_lists(teacher):
    found = LabelledImages(np.zeros((1, 1, 1, 3), np.uint8), np.array([0]), NAMES)
    with pytest.raises(UserError) as caught:
        match_labels(found, teacher, "here")
    assert f"the classes of here (ant, bee, cat) are not the teacher's ({', '.join(teacher)})" in (
        str(caught.value)
    )


def test_a_long_list_of_names_is_cut_and_counted():
    many = [f"n{index}" for index in range(100)]
    found = LabelledImages(np.zeros((1, 1, 1, 3), np.uint8), np.array([0]), NAMES)
    with pytest.raises(UserError, match=r"n11, … 100 in all"):
        match_labels(found, many, "here")


def test_labels_without_names_must_be_within_the_teachers_classes():
    found = LabelledImages(np.zeros((2, 1, 1, 3), np.uint8), np.array([0, 3]), [])
    assert match_labels(found, ["a", "b", "c", "d"], "here").tolist() == [0, 3]
    with pytest.raises(UserError, match="here has label 3, but the teacher has 3 classes"):
        match_labels(found, NAMES, "here")


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


@pytest.mark.parametrize("labels", [[0, None, 1], [0, -1, 1]])
def test_an_image_without_a_label_is_named_by_its_row(tmp_path, labels):
    path = parquet(tmp_path / "x.parquet", [png(i) for i in range(3)], labels)
    with pytest.raises(UserError, match=rf"{path}: row 1: label"):
        load_labelled(str(path), "test", Frame(4), 0, 0)


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
        ("none", "no labelled images at none"),
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
def test_two_spellings_of_a_class_are_an_error(tmp_path, other):
    root = class_folders(tmp_path)
    (root / other).mkdir()
    (root / other / "0.png").write_bytes(png(1))
    with pytest.raises(UserError, match="two spellings of one class"):
        load_labelled(str(root), "test", Frame(4), 0, 0)


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
    with pytest.raises(UserError, match=r"7\.png: label None is not one of 3 classes"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)
    (tmp_path / "7.png").unlink()
    (tmp_path / "5.png").unlink()
    with pytest.raises(UserError, match=r"metadata\.csv: row 5: not a whole image: missing"):
        load_labelled(str(tmp_path), "test", Frame(4), 0, 0)


# names


TWICE = ["crane", "fox", "crane"]  # as ImageNet has it


def test_two_classes_of_one_name_are_told_apart_by_their_number():
    found = LabelledImages(np.zeros((4, 1, 1, 3), np.uint8), np.array([0, 1, 2, 0]), TWICE)
    assert match_labels(found, TWICE, "here").tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("theirs", [["fox", "crane", "crane"], ["crane", "fox", "owl"]])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_name_of_two_classes_in_another_order_is_an_error(theirs, swapped):
    own, teacher = (TWICE, theirs) if swapped else (theirs, TWICE)
    found = LabelledImages(np.zeros((3, 1, 1, 3), np.uint8), np.array([0, 1, 2]), own)
    with pytest.raises(UserError, match="'crane' is the name of two classes"):
        match_labels(found, teacher, "here")


def test_names_of_two_classes_have_their_numbers_in_results():
    assert told_apart(TWICE) == ["crane (class 0)", "fox", "crane (class 2)"]
    assert told_apart(NAMES) == NAMES


def test_names_may_differ_in_case_and_what_stands_for_a_space():
    found = LabelledImages(
        np.zeros((3, 1, 1, 3), np.uint8), np.array([0, 1, 2]), ["Red_Fox", "arctic-fox", "cat"]
    )
    teacher = ["cat", "red fox", "Arctic Fox"]
    assert match_labels(found, teacher, "here").tolist() == [1, 2, 0]
    with pytest.raises(UserError, match="are not the teacher's"):
        match_labels(found, ["cat", "red fox", "red-fox"], "here")
