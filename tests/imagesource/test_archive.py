import tarfile

import pytest

from tests.imagesource.making import PICTURES, Read, as_bytes, files_of, table_of, tar_of

SHARD = {
    "000.jpg": PICTURES[0],
    "000.cls": b"cat",
    "000.json": as_bytes({"url": "https://x/0", "caption": "a cat", "license": "CC0"}),
    "001.cls": b"dog",
    "001.png": PICTURES[1],
    "001.txt": b"a dog",
    "002.jpg": PICTURES[2],
    "notes.txt": b"of nothing",
}


def test_a_webdataset_shard_says_class_title_and_address(tmp_path):
    read = Read(tar_of(tmp_path / "x.tar", SHARD), ("dog", "cat"))
    assert read.classes == {"000.jpg": (1, "cat"), "001.png": (0, "dog"), "002.jpg": (-1, "")}
    assert [one.title for one, _ in read.rows] == ["a cat", "a dog", ""]
    assert read.one("000.jpg")[1].facts.url == "https://x/0"
    assert read.one("000.jpg")[0].licence == "CC0"
    assert read.told("3 members of WebDataset tars")
    assert read.told("read for what they say about their pictures: .cls 2, .json 1, .txt 1")
    assert read.told("no pictures by content or name: .txt 1")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_folder_of_tars_is_one_collection(tmp_path, mode):
    root = tmp_path / "in"
    for number in range(2):
        tar_of(root / f"{number:05}.tar", {f"{n}.jpg": PICTURES[4 * number + n] for n in range(3)})
    if mode == "w:gz":
        for path in root.glob("*.tar"):
            with tarfile.open(path) as plain, tarfile.open(f"{path}.gz", "w:gz") as packed:
                for member in plain:
                    packed.addfile(member, plain.extractfile(member))
            path.unlink()
    read = Read(root)
    assert [entry.data for _, entry in read.rows] == [*PICTURES[:3], *PICTURES[4:7]]
    assert read.told("6 members of tars")
    assert [entry.name.partition("#")[2] for _, entry in read.rows[:2]] == ["0.jpg", "1.jpg"]


def test_folders_in_an_archive_name_classes_and_hidden_ones_are_counted(tmp_path):
    files = {
        "./cat/a.jpg": PICTURES[0],
        "dog/b": PICTURES[1],
        ".git/c.jpg": PICTURES[2],
        "__MACOSX/cat/._a.jpg": b"x",
    }
    read = Read(tar_of(tmp_path / "x.tar", files), ("cat", "dog"))
    assert read.classes == {"./cat/a.jpg": (0, "cat"), "dog/b": (1, "dog")}
    assert read.told("hidden or the system's: .git 1, __MACOSX 1")


def test_numbers_without_names_are_no_class_and_told(tmp_path):
    files = {"0.jpg": PICTURES[0], "0.cls": b"3"}
    read = Read(tar_of(tmp_path / "x.tar", files), ("cat",))
    assert read.classes == {"0.jpg": (-1, "")}
    assert read.told("1 pictures have a number for a class that no name")


def test_a_sidecar_that_is_too_long_is_not_read(tmp_path):
    files = {"0.jpg": PICTURES[0], "0.cls": b"a" * (2**20 + 1)}
    read = Read(tar_of(tmp_path / "x.tar", files), ("cat",), max_bytes=2**22)
    assert read.classes == {"0.jpg": (-1, "")}
    assert read.told("no pictures by content or name: .cls 1")


def test_an_archive_that_breaks_off_in_a_folder_gives_what_it_has_and_a_row(tmp_path):
    root = files_of(tmp_path / "in", {"b.tar.gz": b"no archive"})
    tar_of(root / "a.tar", {"0.jpg": PICTURES[0], "1.jpg": PICTURES[1]})
    whole = (root / "a.tar").read_bytes()
    (root / "a.tar").write_bytes(whole[:3100])  # in the second picture
    read = Read(root)
    assert read.outcomes["b.tar.gz"] == "unreadable"
    assert read.outcomes["a.tar"] == "unreadable"
    assert "breaks off" in read.one("a.tar")[1].detail
    assert read.one("a.tar#0.jpg")[1].data == PICTURES[0]
    assert len(read.rows) == 3


def test_img2dataset_table_speaks_of_its_archive_and_failures_have_a_row(tmp_path):
    root = tmp_path / "in"
    tar_of(root / "00000.tar", {"000000000.jpg": PICTURES[0], "000000001.jpg": PICTURES[1]})
    columns = {
        "url": ["https://x/0", "https://x/1", "https://x/2"],
        "key": ["000000000", "000000001", "000000002"],
        "status": ["success", "success", "failed_to_resize"],
    }
    table_of(root / "00000.parquet", columns)
    read = Read(root)
    assert read.outcomes == {
        "00000.tar#000000000.jpg": "",
        "00000.tar#000000001.jpg": "",
        "00000/000000002": "missing",
    }
    assert [entry.facts.url for _, entry in read.rows] == columns["url"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_breaks_the_archive(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 2**21
    path = tar_of(tmp_path / "in/a.tar", {"0.jpg": PICTURES[0]})
    whole = path.read_bytes()[:2048]
    path.write_bytes(whole + header.tobuf() + bytes(2**21) + whole + bytes(1024))
    read = Read(path.parent)
    assert read.outcomes == {"a.tar#0.jpg": "", "a.tar": "unreadable"}
    assert "a header of 2,097,152 bytes" in read.one("a.tar")[1].detail
