"""`pipeline duplicates`: new images against a crawl, as a user meets it."""

import hashlib
import io
import json
import os
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from kd3_stages.cli import app
from tests.dedup.pictures import encoded, jpeg, scene
from tests.dedup.test_look import sign
from tests.stages.own_crawl import write_crawl

FOXES = [jpeg(scene(index)) for index in range(6)]
COPY = jpeg(scene(2), 40)  # in the crawl too, and dropped there


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A crawl of foxes and deer that dedup has judged; ids by class."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dedup: {}\n")
    ids = write_crawl(tmp_path, {"fox": [*FOXES, COPY], "deer": [jpeg(scene(20))]})
    assert pipeline("dedup") == 0
    return ids


def pipeline(command: str, *arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        app([command, *arguments], prog_name="pipeline")
    return int(done.value.code or 0)


def looked_up(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert pipeline("duplicates", "--json", *arguments) == code
    return json.loads(capsys.readouterr().out)


def test_an_edited_copy_names_the_stored_images_that_it_shows(own, capsys):
    Path("new.jpg").write_bytes(jpeg(ImageOps.expand(scene(2), 15, "white").resize((301, 233))))
    told = looked_up(capsys, "new.jpg")
    (image,) = told["images"]
    assert (told["stored"], image["found"], len(image["duplicates"])) == (8, 2, 2)
    by_id = {one["id"]: one for one in image["duplicates"]}
    assert set(by_id) == {own["fox"][2], own["fox"][6]}
    kept = {id: one["kept"] for id, one in by_id.items()}
    assert sorted(kept.values()) == [False, True]
    dropped = next(one for one in by_id.values() if not one["kept"])
    assert dropped["reason"] == "near-duplicate" and dropped["duplicate_of"] in by_id
    for one in by_id.values():
        assert one["class"] == "fox" and one["url"].startswith("https://fox.example/")
        assert one["similarity"] >= told["similarity"] and one["distance"] <= told["radius"]


def test_the_same_for_a_person(own, capsys):
    Path("new.jpg").write_bytes(jpeg(scene(2), 77))
    Path("other.png").write_bytes(encoded(scene(50)))
    assert pipeline("duplicates", "new.jpg", "other.png", "--k", "1") == 0
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0] == "new.jpg: 2 stored images show it, of 8"
    assert "fox" in lines[1] and "bits" in lines[1] and "https://fox.example/" in lines[1]
    assert lines[2] == "  and 1 more: --k 2 shows all"
    assert lines[3] == "other.png: not found, of 8"


def test_the_bytes_of_a_stored_image_are_found_whatever_the_name(own, capsys):
    Path("no-name").write_bytes(FOXES[4])
    (image,) = looked_up(capsys, "no-name")["images"]
    assert image["id"] == own["fox"][4] == hashlib.sha256(FOXES[4]).hexdigest()
    (one,) = image["duplicates"]
    assert (one["id"], one["similarity"], one["distance"]) == (own["fox"][4], 1.0, 0)


def test_a_folder_is_read_by_content_and_what_is_hidden_is_counted(own, capsys):
    folder = Path("new/deeper")
    folder.mkdir(parents=True)
    (folder / "a.data").write_bytes(jpeg(scene(20), 60))
    (folder.parent / "notes.txt").write_text("no picture")
    (folder.parent / ".hidden.jpg").write_bytes(FOXES[0])
    told = looked_up(capsys, "new")
    found = {Path(one["file"]).name: one for one in told["images"]}
    assert set(found) == {"a.data", "notes.txt"} and told["hidden"] == 1
    assert found["a.data"]["duplicates"][0]["class"] == "deer"
    assert "not a whole image" in found["notes.txt"]["error"]


def test_nothing_is_written_but_the_cache(own, capsys):
    Path("new.jpg").write_bytes(FOXES[0])
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    looked_up(capsys, "new.jpg")
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert after == before, "the fingerprints of the crawl come from the cache"


def test_a_test_image_is_told_where_leaks_are_looked_for(own, capsys):
    rows = []
    for index in (70, 71, 72):
        out = io.BytesIO()
        scene(index).resize((64, 64)).save(out, "PNG")
        rows.append({"bytes": out.getvalue(), "path": None})
    pq.write_table(pa.table({"image": rows, "label": [0, 0, 0]}), "test.parquet")
    Path("new.jpg").write_bytes(jpeg(scene(71), 80))
    Path("params.yaml").write_text("evaluate: {test_set: test.parquet}\ndedup: {leaks: true}\n")
    (image,) = looked_up(capsys, "new.jpg")["images"]
    assert (image["test_image"], image["found"]) == (1, 0)
    (image,) = looked_up(capsys, "new.jpg", "--set", "dedup.leaks=false")["images"]
    assert "test_image" not in image


def test_before_dedup_has_run_nothing_is_said_of_verdicts(own, capsys):
    Path("data/dedup/images.parquet").unlink()
    Path("new.jpg").write_bytes(FOXES[0])
    (image,) = looked_up(capsys, "new.jpg")["images"]
    assert image["duplicates"][0]["kept"] is None
    assert pipeline("duplicates", "new.jpg") == 0
    assert "not judged yet" in capsys.readouterr().out


def test_what_shows_nothing_is_compared_by_its_bytes_and_that_is_told(own, capsys):
    Image.new("RGB", (90, 60), "navy").save("blank.png")
    (image,) = looked_up(capsys, "blank.png")["images"]
    assert (image["found"], image["comparable"]) == (0, False)
    assert pipeline("duplicates", "blank.png") == 0
    assert "nothing to compare in it but its bytes" in capsys.readouterr().out


def bomb() -> bytes:
    """A PNG of 60,000 × 60,000 pixels in a few kilobytes."""
    header = (60_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )


def test_hostile_files_are_told_one_by_one_and_the_others_looked_up(own, capsys):
    Path("bomb.png").write_bytes(bomb())
    Path("cut.jpg").write_bytes(FOXES[1][: len(FOXES[1]) // 2])
    Path("large.jpg").write_bytes(FOXES[1] + bytes(2**20))
    Path("turn\u202e\x1b[2J.jpg").write_bytes(b"no picture")
    Path("good.jpg").write_bytes(FOXES[3])
    os.mkfifo("pipe")
    files = ("bomb.png", "cut.jpg", "large.jpg", "turn\u202e\x1b[2J.jpg", "pipe", "gone.jpg")
    limit = ("--set", "crawl.max_bytes=100000")
    assert pipeline("duplicates", *files, "good.jpg", *limit) == 2
    out, err = capsys.readouterr()
    assert "good.jpg: 1 stored image shows it" in out
    assert "\u202e" not in out + err and "\x1b" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(files)
    for line, what in zip(
        lines,
        ("pixels", "truncated", "crawl.max_bytes", "none of JPEG", "not a file", "No such file"),
        strict=True,
    ):
        assert what.lower() in line.lower()


@pytest.mark.parametrize(("arguments", "said"), [(["empty"], "empty has no file in it"), ([], "")])
def test_nothing_to_look_up_is_wrong_usage(own, capsys, arguments, said):
    Path("empty").mkdir()
    assert pipeline("duplicates", *arguments) == 2
    assert said in capsys.readouterr().err


def test_without_a_crawl_it_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dedup: {}\n")
    Path("new.jpg").write_bytes(FOXES[0])
    assert pipeline("duplicates", "new.jpg") == 2
    assert "manifest.parquet not found" in capsys.readouterr().err


def test_the_second_look_decides_of_new_images_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dedup: {radius: 16}\n")
    ids = write_crawl(tmp_path, {"sign": [jpeg(sign(number)) for number in (30, 60)]})["sign"]
    Path("new.jpg").write_bytes(jpeg(sign(30).resize((210, 210)), 70))
    Path("other.jpg").write_bytes(jpeg(sign(80)))
    new, other = looked_up(capsys, "new.jpg", "other.jpg")["images"]
    assert [one["id"] for one in new["duplicates"]] == [ids[0]]
    assert other["found"] == 0
    edges = ("--set", "dedup.second_look=false")
    new, other = looked_up(capsys, "new.jpg", "other.jpg", *edges)["images"]
    assert new["found"] >= 1 and other["found"] >= 1


def test_turned_copies_are_found_where_dedup_looks_for_them(own, capsys):
    Path("new.jpg").write_bytes(jpeg(scene(3).transpose(Image.Transpose.ROTATE_270)))
    assert looked_up(capsys, "new.jpg")["images"][0]["found"] == 1
    told = looked_up(capsys, "new.jpg", "--set", "dedup.turned=false")
    assert told["images"][0]["found"] == 0
