import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from kd3_pipeline.errors import ExternalError, UserError
from tests.crawl.hosts import picture
from tests.imagesource.making import PICTURES, Read, as_bytes, files_of, table_of

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@contextmanager
def as_nobody():
    """Without root's rights, for which no file is unreadable; afterwards as before."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_every_file_that_may_be_a_picture_has_a_row_whatever_it_is_called(tmp_path):
    root = files_of(
        tmp_path / "in",
        {
            "a.jfif": PICTURES[0],
            "b.tif": picture(1, "TIFF"),
            "c": PICTURES[2],
            "d.jpe": PICTURES[3],
            "e.dat": picture(4, "PNG"),
            "f.jpg": b"<html>no picture</html>",
            "g.png": b"",
            "h.heic": HEIC,
            "i.jpg": HEIC,
            "notes.txt": b"x",
            "README": b"y",
        },
    )
    assert list(Read(root).outcomes) == [
        *("a.jfif", "b.tif", "c", "d.jpe", "e.dat", "f.jpg", "g.png", "h.heic", "i.jpg")
    ]


def test_what_is_no_picture_and_what_is_hidden_is_counted_and_told(tmp_path):
    root = files_of(
        tmp_path / "in",
        {
            "a.jpg": PICTURES[0],
            "README.md": b"#",
            "x/one.csv": b"a",
            "x/two.csv": b"b",
            "LICENSE": b"c",
            ".git/objects/a.jpg": PICTURES[1],
            ".ipynb_checkpoints/a-checkpoint.jpg": PICTURES[2],
            "x/.ipynb_checkpoints/b-checkpoint.jpg": PICTURES[2],
            "__MACOSX/._a.jpg": PICTURES[3],
            "._a.jpg": b"AppleDouble",
            "Thumbs.db": b"d",
            ".DS_Store": b"e",
            "@eaDir/a.jpg": PICTURES[4],
            "$RECYCLE.BIN/a.jpg": PICTURES[5],
        },
    )
    read = Read(root)
    assert read.outcomes == {"a.jpg": ""}
    assert read.told("no pictures by content or name: .csv 2, .md 1, no ending 1")
    assert read.told("hidden or the system's: .ipynb_checkpoints 2, $RECYCLE.BIN 1")


def test_a_folder_of_no_pictures_says_what_it_holds(tmp_path):
    root = files_of(tmp_path / "in", {"a.zip": b"PK\3\4", ".git/a.jpg": PICTURES[0]})
    with pytest.raises(ExternalError, match=r"no images in .*\.zip 1.*\.git 1"):
        Read(root)


def test_links_out_of_the_folder_are_not_followed_and_have_a_row(tmp_path):
    secret = files_of(tmp_path / "out", {"secret.jpg": PICTURES[0], "more/a.jpg": PICTURES[1]})
    root = files_of(tmp_path / "in", {"a.jpg": PICTURES[2], "deep/b.jpg": PICTURES[3]})
    (root / "out.jpg").symlink_to(secret / "secret.jpg")
    (root / "up").symlink_to("../out")
    (root / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "inside.jpg").symlink_to("deep/b.jpg")
    (root / "again").symlink_to("deep")
    (root / "loop").symlink_to(".")
    read = Read(root)
    assert read.outcomes == {
        "a.jpg": "",
        "broken.jpg": "link",
        "deep/b.jpg": "",
        "inside.jpg": "",
        "out.jpg": "link",
        "up": "link",
    }
    assert read.one("inside.jpg")[1].data == PICTURES[3]
    assert read.one("out.jpg")[1].data == b""
    assert read.told("links to folders in the folder 2")


def test_a_neighbour_whose_name_begins_alike_is_out_of_the_folder(tmp_path):
    files_of(tmp_path / "in-private", {"a.jpg": PICTURES[0]})
    root = files_of(tmp_path / "in", {"b.jpg": PICTURES[1]})
    (root / "a.jpg").symlink_to("../in-private/a.jpg")
    assert Read(root).outcomes == {"a.jpg": "link", "b.jpg": ""}


def test_a_snapshot_of_a_hugging_face_cache_is_read_from_its_store(tmp_path):
    store = files_of(tmp_path / "datasets--a--b", {"blobs/0123": PICTURES[0]})
    snapshot = store / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "a.jpg").symlink_to("../../blobs/0123")
    assert Read(snapshot).outcomes == {"a.jpg": ""}


def test_pipes_are_not_waited_for(tmp_path):
    root = files_of(tmp_path / "in", {"a.jpg": PICTURES[0]})
    os.mkfifo(root / "b.jpg")
    assert Read(root).outcomes == {"a.jpg": "", "b.jpg": "special"}


def test_files_and_folders_that_the_system_keeps_shut_have_a_row(open_folder):
    root = files_of(
        open_folder, {"a.jpg": PICTURES[0], "b.jpg": PICTURES[1], "c/d.jpg": PICTURES[2]}
    )
    (root / "b.jpg").chmod(0)
    (root / "c").chmod(0)
    try:
        with as_nobody():
            read = Read(root)
            (root / "none").exists()
    finally:
        (root / "c").chmod(0o755)
    assert read.outcomes == {"a.jpg": "", "b.jpg": "unreadable", "c": "unreadable"}
    assert read.one("c")[1].detail == "Permission denied"


def test_a_source_that_is_shut_is_an_error(open_folder):
    root = files_of(open_folder / "in", {"a.jpg": PICTURES[0]})
    root.chmod(0)
    try:
        with as_nobody(), pytest.raises(UserError, match=r"cannot be read: Permission denied"):
            Read(root)
    finally:
        root.chmod(0o755)


def test_a_sample_is_of_pictures_and_what_can_give_none_has_its_row_still(tmp_path):
    names = [f"{index}.jpg" for index in range(8)]
    root = files_of(tmp_path / "in", dict(zip(names, PICTURES, strict=False)))
    (root / "large.jpg").write_bytes(bytes(9000))
    (root / "lost.jpg").symlink_to("/nowhere")
    read = Read(root, sample=3, max_bytes=8000)
    assert sorted(read.outcomes.values()) == ["", "", "", "link", "too_large"]
    assert read.outcomes == Read(root, sample=3, max_bytes=8000).outcomes
    assert read.told("5 of 10 drawn (crawl.sample)")


def test_folders_name_classes_and_what_matches_none_is_told(tmp_path):
    root = files_of(
        tmp_path / "in",
        {
            "Red_Fox/a.jpg": PICTURES[0],
            "red fox/more/b.jpg": PICTURES[1],
            "badger/c.jpg": PICTURES[2],
            "holiday/d.jpg": PICTURES[3],
            "e.jpg": PICTURES[4],
        },
    )
    read = Read(root, ("badger", "red fox"))
    assert read.classes == {
        "Red_Fox/a.jpg": (1, "red fox"),
        "red fox/more/b.jpg": (1, "red fox"),
        "badger/c.jpg": (0, "badger"),
        "holiday/d.jpg": (-1, ""),
        "e.jpg": (-1, ""),
    }
    assert read.told("3 pictures have a class of crawl.classes")
    assert read.told("1 pictures are in folders or of classes that crawl.classes does not name")
    assert read.told("(holiday 1)")
    assert read.told("'Red_Fox', 'red fox' are all taken as the class 'red fox'")


def test_folders_of_splits_are_no_classes(tmp_path):
    names = ["train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg"]
    root = files_of(tmp_path / "in", dict(zip(names, PICTURES, strict=False)))
    read = Read(root, ("cat", "dog"))
    assert [label for label, _ in read.classes.values()] == [0, 1, 0]
    assert read.told("2 files of the split 'train', 1 files of the split 'val'")


METADATA = [
    {"file_name": "a.jpg", "label": "cat", "text": "a cat", "license": "CC0"},
    {"file_name": "./more/b.jpg", "label": "dog", "text": ""},
    {"file_name": "gone.jpg", "label": "cat"},
    {"file_name": "../out/secret.jpg", "label": "cat"},
    {"file_name": "a.jpg", "label": "dog"},
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_an_imagefolder_says_class_and_title(tmp_path, kind):
    files_of(tmp_path / "out", {"secret.jpg": PICTURES[5]})
    root = files_of(
        tmp_path / "in", {"a.jpg": PICTURES[0], "more/b.jpg": PICTURES[1], "cat/c.jpg": PICTURES[2]}
    )
    if kind == "csv":
        lines = ["file_name,label,text,license"]
        lines += [
            ",".join(row.get(key, "") for key in ("file_name", "label", "text", "license"))
            for row in METADATA
        ]
        (root / "metadata.csv").write_text("\n".join(lines))
    elif kind == "jsonl":
        (root / "metadata.jsonl").write_bytes(b"\n".join(map(as_bytes, METADATA)))
    else:
        keys = ("file_name", "label", "text", "license")
        columns = {key: [row.get(key) for row in METADATA] for key in keys}
        table_of(root / "metadata.parquet", columns)
    read = Read(root, ("cat", "dog"))
    assert read.outcomes == {
        "a.jpg": "",
        "cat/c.jpg": "",
        "more/b.jpg": "",
        "gone.jpg": "missing",
        "../out/secret.jpg": "missing",
    }
    assert read.classes == {
        "a.jpg": (0, "cat"),
        "cat/c.jpg": (0, "cat"),
        "more/b.jpg": (1, "dog"),
    }
    first = read.one("a.jpg")[0]
    assert (first.title, first.licence) == ("a cat", "CC0")
    assert read.told(f"5 rows of Hugging Face's metadata.{kind}")
    assert read.told("2 pictures are named by a table and not there")
    assert read.told("1 rows name a file again; the first counts")


def test_numbers_of_metadata_have_the_names_of_its_schema(tmp_path):
    root = files_of(tmp_path / "in", {"a.jpg": PICTURES[0], "b.jpg": PICTURES[1]})
    columns = {"file_name": ["a.jpg", "b.jpg"], "label": [1, 0]}
    table_of(root / "metadata.parquet", columns, {"label": ["cat", "dog"]})
    assert Read(root, ("dog", "cat")).classes == {"a.jpg": (0, "dog"), "b.jpg": (1, "cat")}


@pytest.mark.parametrize(
    ("name", "data"),
    [("metadata.jsonl", b"{"), ("metadata.jsonl", b"[1]"), ("metadata.parquet", b"PAR1")],
)
def test_metadata_that_cannot_be_read_is_an_error_with_its_name(tmp_path, name, data):
    root = files_of(tmp_path / "in", {"a.jpg": PICTURES[0], name: data})
    with pytest.raises(UserError, match=name):
        Read(root)


def test_files_of_img2dataset_have_their_address_and_failures_a_row(tmp_path):
    root = files_of(
        tmp_path / "in",
        {
            "00000/000000000.jpg": PICTURES[0],
            "00000/000000000.json": as_bytes({"key": "000000000", "url": "https://x/0"}),
            "00000/000000000.txt": b"a red fox",
            "00000/000000001.jpg": PICTURES[1],
            "00000_stats.json": as_bytes({"count": 4}),
        },
    )
    columns = {
        "url": [f"https://x/{index}" for index in range(4)],
        "key": [f"{index:09}" for index in range(4)],
        "status": ["success", "success", "failed_to_download", "success"],
        "error_message": [None, None, "HTTP Error 404", None],
        "caption": [None, "a badger", "a stoat", None],
    }
    table_of(root / "00000.parquet", columns)
    read = Read(root, ("cat",))
    assert read.outcomes == {
        "00000/000000000.jpg": "",
        "00000/000000001.jpg": "",
        "00000/000000002": "missing",
        "00000/000000003": "missing",
    }
    assert [one.title for one, _ in read.rows] == ["a red fox", "a badger", "a stoat", ""]
    assert [entry.facts.url for _, entry in read.rows] == columns["url"]
    assert read.rows[2][1].detail == "img2dataset: failed_to_download: HTTP Error 404"
    assert read.told("4 rows of img2dataset's tables")
    assert read.told("read for what they say about their pictures: .json 1, .txt 1")
    assert read.told("no pictures by content or name: .json 1")
    assert not read.told("does not name"), "the folder 00000 is no class"


def test_what_lies_beside_a_picture_and_is_broken_says_nothing(tmp_path):
    root = files_of(
        tmp_path / "in",
        {
            "a.jpg": PICTURES[0],
            "a.json": b"[" * 100_000,
            "b.jpg": PICTURES[1],
            "b.json": b'{"caption": 7, "label": true, "url": ["x"]}',
            "c.jpg": PICTURES[2],
            "c.txt": b"0 0.5 0.5 0.1 0.1",
        },
    )
    read = Read(root)
    assert set(read.outcomes.values()) == {""}
    assert {(one.title, entry.facts.url) for one, entry in read.rows} == {("", "")}


def test_a_broken_table_in_a_folder_has_a_row_and_another_is_told(tmp_path):
    root = files_of(tmp_path / "in", {"a.jpg": PICTURES[0], "b.parquet": b"PAR1 broken"})
    table_of(root / "c.parquet", {"url": ["https://x/1"]})
    read = Read(root)
    assert read.outcomes == {"a.jpg": "", "b.parquet": "unreadable"}
    assert read.told("c.parquet has no column of pictures: a list of addresses is for the engine")


COMPOSED, DECOMPOSED = "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"


@pytest.mark.parametrize("wanted", [COMPOSED, DECOMPOSED])
def test_a_folder_with_its_accents_apart_is_of_the_same_class(tmp_path, wanted):
    files = {f"{DECOMPOSED}/a.jpg": PICTURES[0], f"{COMPOSED}/b.jpg": PICTURES[1]}
    read = Read(files_of(tmp_path / "in", files), ("tea", wanted))
    assert set(read.classes.values()) == {(1, wanted)} and len(read.classes) == 2
    assert read.told("2 pictures have a class of crawl.classes")
    assert not read.told("are all taken as the class")
    shouted = files_of(tmp_path / "loud", {f"{DECOMPOSED.upper()}/a.jpg": PICTURES[0]})
    assert set(Read(shouted, ("tea", wanted)).classes.values()) == {(1, wanted)}


def test_accents_left_out_and_wide_letters_are_other_names(tmp_path):
    files = {"cafe/a.jpg": PICTURES[0], "\uff43\uff41\uff46\u00e9/b.jpg": PICTURES[1]}
    assert set(Read(files_of(tmp_path / "in", files), ("caf\u00e9",)).classes.values()) == {
        (-1, "")
    }
