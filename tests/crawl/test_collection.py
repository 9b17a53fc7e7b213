import hashlib
import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.console import no_progress
from kd3_pipeline.crawl.blocklist import Blocklist
from kd3_pipeline.crawl.collection import collect, read_collection
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.imagesource.entries import Entry, Facts
from kd3_pipeline.imagesource.matching import Matcher
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from tests.crawl.hosts import picture

MOST = 1 << 20


def entries_of(source, sample=0, seed=0, most=MOST, classes=(), lines=None):
    matcher, lines = Matcher(lambda: list(classes)), [] if lines is None else lines
    return list(read_collection(source, sample, seed, most, matcher, lines))


def read(source, sample=0, seed=0, most=MOST):
    """Names and bytes of the pictures; what has none is left to `outcomes`."""
    found = entries_of(source, sample, seed, most)
    return [(entry.name, entry.data) for _, entry in found if not entry.outcome]


def outcomes(source, most=MOST):
    found = entries_of(source, most=most)
    return {entry.name: entry.outcome for _, entry in found if entry.outcome}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "b.jpg").write_bytes(picture(1))
    (root / "A.PNG").write_bytes(picture(2, "PNG"))
    (root / "deep" / "er" / "c.webp").write_bytes(picture(3, "WEBP"))
    (root / "notes.txt").write_text("no image")
    (root / "folder.jpg").mkdir()
    return root


def test_a_folder_is_read_in_order_with_all_that_is_in_it(folder):
    assert read(folder) == [
        ("A.PNG", picture(2, "PNG")),
        ("b.jpg", picture(1)),
        ("deep/er/c.webp", picture(3, "WEBP")),
    ]


def test_files_that_are_too_large_have_a_row_without_an_image(folder):
    (folder / "large.jpg").write_bytes(bytes(5000))
    assert [name for name, _ in read(folder, most=4999)] == ["A.PNG", "b.jpg", "deep/er/c.webp"]
    assert outcomes(folder, 4999) == {"large.jpg": "too_large"}
    assert [entry.size for _, entry in entries_of(folder, most=4999) if entry.outcome] == [5000]


def tar_of(path, entries, mode="w"):
    with tarfile.open(path, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                name, data = entry
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")]
)
def test_an_archive_is_read_in_its_order(tmp_path, name, mode):
    entries = [("b.jpg", picture(1)), ("a.png", picture(2, "PNG")), ("c.txt", b"no")]
    assert read(tar_of(tmp_path / name, entries, mode)) == entries[:2]


def test_a_hostile_archive_reaches_no_file_and_writes_none(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    hostile = ["../../etc/x.jpg", "/etc/x.jpg", "a\\..\\x.jpg", "x\udcff.jpg", "a/../../x.jpg"]
    path = tar_of(
        tmp_path / "inside" / "x.tar",
        [
            *((name, picture(n)) for n, name in enumerate(hostile)),
            special("link.jpg", tarfile.SYMTYPE, str(secret)),
            special("hard.jpg", tarfile.LNKTYPE, "../secret.jpg"),
            special("device.jpg", tarfile.CHRTYPE),
            special("block.jpg", tarfile.BLKTYPE),
            special("pipe.jpg", tarfile.FIFOTYPE),
            special("folder.jpg", tarfile.DIRTYPE),
            ("large.jpg", bytes(MOST + 1)),
        ],
    )
    before = sorted(tmp_path.rglob("*"))
    assert read(path) == [(name, picture(n)) for n, name in enumerate(hostile)]
    assert outcomes(path) == {
        "link.jpg": "link",
        "hard.jpg": "link",
        "device.jpg": "special",
        "block.jpg": "special",
        "pipe.jpg": "special",
        "large.jpg": "too_large",
    }
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", [10**9, 2**33])
def test_a_huge_declared_size_breaks_the_archive(tmp_path, size):
    info = tarfile.TarInfo("huge.jpg")
    info.size = size
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf() + picture(1))
    for most in (MOST, 2**40):
        with pytest.raises(UserError, match=r"crawl\.source: .*x\.tar cannot be read"):
            read(path, most=most)


def test_a_sparse_member_is_as_large_as_it_says(tmp_path):
    info = tarfile.TarInfo("sparse.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (2**32)  # its real size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    assert outcomes(path) == {"sparse.jpg": "too_large"}


@pytest.mark.parametrize("cut", [1, 300, 900])
@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_a_broken_archive_is_named(tmp_path, name, mode, cut):
    path = tar_of(tmp_path / name, [("a.jpg", picture(1))], mode)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"crawl\.source: .*x\.tar.* cannot be read"):
        read(path)


def test_a_gzip_of_garbage_is_named(tmp_path):
    path = tar_of(tmp_path / "x.tar.gz", [("a.jpg", picture(1))], "w:gz")
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"crawl\.source: .*x\.tar\.gz cannot be read"):
        read(path)


PICTURES = [picture(n) for n in range(7)]


@pytest.mark.parametrize("form", ["bytes", "large", "struct"])
def test_a_parquet_file_holds_bytes_or_structs(tmp_path, form):
    column = {
        "bytes": pa.array(PICTURES),
        "large": pa.array(PICTURES, pa.large_binary()),
        "struct": pa.array([{"bytes": data, "path": None} for data in PICTURES]),
    }[form]
    pq.write_table(pa.table({"image": column, "label": range(7)}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [
        (f"x.parquet#{row}", data) for row, data in enumerate(PICTURES)
    ]


def test_a_folder_of_parquet_files_is_one_collection(tmp_path):
    pq.write_table(pa.table({"image": PICTURES[3:]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": PICTURES[:3]}), tmp_path / "a.parquet")
    assert [data for _, data in read(tmp_path)] == PICTURES
    sampled = read(tmp_path, 4, 5)
    assert [entry for entry in read(tmp_path) if entry in sampled] == sampled
    assert len({name.partition("#")[0] for name, _ in sampled}) == 2


def test_rows_without_an_image_are_accounted_for(tmp_path):
    column = pa.array([{"bytes": None}, None, {"bytes": PICTURES[0]}])
    pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [("x.parquet#2", PICTURES[0])]
    assert outcomes(tmp_path / "x.parquet") == {"x.parquet#0": "missing", "x.parquet#1": "missing"}


@pytest.mark.parametrize(
    "table",
    [
        {"sound": [b"RIFF....WAVE"]},
        {"image": ["text"]},
        {"image": [[1, 2]]},
        {"image": [{"path": "x"}]},
        {"image": [{"bytes": "text"}]},
    ],
)
def test_a_parquet_file_without_images_is_named(tmp_path, table):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: expected a column 'image' of bytes"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_sample_is_drawn_by_its_seed_and_kept_in_order(tmp_path, kind):
    entries = [(f"{n:02}.jpg", picture(n)) for n in range(30)]
    if kind == "folder":
        source = tmp_path / "x"
        source.mkdir()
        for name, data in entries:
            (source / name).write_bytes(data)
    elif kind == "tar":
        source = tar_of(tmp_path / "x.tar", entries)
    else:
        source = tmp_path / "x.parquet"
        pq.write_table(pa.table({"image": [data for _, data in entries]}), source)
    everything = read(source)
    assert [data for _, data in everything] == [data for _, data in entries]
    ten = read(source, 10, 1)
    assert ten == read(source, 10, 1) != read(source, 10, 2)
    assert len(ten) == 10
    assert [entry for entry in everything if entry in ten] == ten
    assert read(source, 30, 1) == read(source, 99, 1) == everything


def test_an_empty_collection_is_the_fault_of_the_world(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExternalError, match=r"crawl\.source: no images in .*empty"):
        read(tmp_path / "empty")
    with pytest.raises(ExternalError, match="no images"):
        read(tar_of(tmp_path / "x.tar", [("a.txt", b"no")]))
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "x.parquet")
    with pytest.raises(ExternalError, match="no images"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["x.zip", "none", "x.jpg"])
def test_a_source_of_another_kind_is_named(tmp_path, name):
    (tmp_path / "x.zip").write_bytes(b"PK")
    (tmp_path / "x.jpg").write_bytes(picture(1))
    with pytest.raises(UserError, match=f"{name} is no folder, .tar or .parquet file"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["none.tar", "none.parquet"])
def test_a_missing_source_is_named(tmp_path, name):
    with pytest.raises(UserError, match=name):
        read(tmp_path / name)


def test_what_is_no_parquet_or_archive_is_named(tmp_path):
    for name in ("x.parquet", "x.tar"):
        (tmp_path / name).write_bytes(b"neither" * 100)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_every_image_is_checked_as_if_it_came_from_the_web(tmp_path):
    entries = [
        ("good.jpg", picture(1)),
        ("same.jpg", picture(1)),
        ("cut.jpg", picture(2)[:900]),
        ("small.gif", picture(3, "GIF", 8)),
        ("page.jpg", b"<html>"),
        ("none.jpg", b""),
        ("good.jpg", picture(4)),  # an archive may hold a name twice
    ]
    steps = []
    source = tar_of(tmp_path / "x.tar", entries)
    with Journal(tmp_path) as journal:
        found = collect(iter(entries_of(source)), 16, journal, steps.append)
        kept = [one.id and journal.path(one.id).read_bytes() for one in found.values()]
    assert sum(steps) == len(entries)
    assert manifest(list(found), found)["outcome"].to_pylist() == [
        "stored",
        "duplicate",
        "truncated",
        "too_small",
        "not_an_image",
        "not_an_image",
        "stored",
    ]
    assert kept == [picture(1), picture(1), None, None, None, None, picture(4)]


def test_a_file_name_that_is_no_unicode_is_accounted_for(tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/\xff.jpg", "wb") as file:
        file.write(picture(1))
    with Journal(tmp_path / "journal") as journal:
        found = collect(iter(entries_of(tmp_path / "in")), 16, journal, no_progress)
    assert manifest(list(found), found)["outcome"].to_pylist() == ["stored"]


def entry_at(index, url):
    name = f"{index}.jpg"
    return Entry(name, name, picture(index), facts=Facts(url=url))


def test_what_a_blocklist_refuses_or_was_dropped_before_is_not_kept(tmp_path):
    ids = {index: hashlib.sha256(picture(index)).hexdigest() for index in range(6)}
    places = {0: "https://a.example/0.jpg", 1: "https://cdn.bad.example/1.jpg", 5: ""}
    given = [
        (Candidate(-1, "", "files", "", index, f"{index}.jpg"), entry)
        for index in range(6)
        for entry in [entry_at(index, places.get(index, ""))]
    ]
    rules = Blocklist(frozenset(["bad.example"]), frozenset([ids[2]]), forgotten={ids[3]})
    with Journal(tmp_path) as journal:
        journal.add(Fetched("4.jpg", "opted_out", f"closed; SHA-256 {ids[4]}"))
        journal.add(Fetched("5.jpg", "opted_out", f"closed; SHA-256 {ids[0]}"))  # another file
        found = collect(iter(given), 16, journal, no_progress, blocklist=rules)
        held = [number for number, id in ids.items() if journal.path(id).exists()]
    outcomes = [record.outcome for record in found.values()]
    assert outcomes == ["ok", "blocked", "blocked", "forgotten", "opted_out", "ok"]
    assert held == [0, 5]
