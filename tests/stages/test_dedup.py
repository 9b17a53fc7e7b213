"""`pipeline dedup` beside the verdicts: what it explains, shows, tries and refuses."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from kd3_pipeline.frames import to_square
from kd3_pipeline.images import decode
from kd3_pipeline.store import read_shard
from kd3_stages.cli import app
from kd3_stages.steps import dedup as deduplication
from tests.dedup.pictures import encoded, jpeg, scene
from tests.dedup.test_look import photographs, sign
from tests.stages.own_crawl import write_crawl
from tests.stages.workspace import run

PLANTED = 12  # of the crawled images, as 32-pixel test images


@pytest.fixture(scope="module")
def crawled(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's crawl, and a test set of which some were crawled."""
    folder = tmp_path_factory.mktemp("crawled")
    for name in ("data/crawl", "data/dedup"):
        shutil.copytree(project / name, folder / name)
    stored = [
        image for path in sorted(folder.glob("data/crawl/*-0*")) for image in read_shard(path)
    ]
    pictures = [to_square(decode(image.data), 32, "crop") for image in stored[::10][:PLANTED]]
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    rows = []
    for pixels in [*pictures, *noise]:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": None})
    table = pa.table({"image": rows, "label": [0] * len(rows)})
    pq.write_table(table, folder / "test.parquet")
    (folder / "params.yaml").write_text("evaluate: {test_set: test.parquet}\ndedup: {leaks: true}")
    return folder


@pytest.fixture
def folder(crawled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(crawled, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def dedup(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        app(["dedup", "--quiet", *arguments], prog_name="pipeline")
    return done.value.code or 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_crawled_test_images_are_dropped_and_listed_with_their_pictures(folder, capsys):
    assert dedup("--json") == 0
    summary = json.loads(capsys.readouterr().out)
    rows = pq.read_table(folder / "data/dedup/images.parquet").to_pylist()
    leaked = {row["id"]: row["test_image"] for row in rows if row["reason"] == "leaked"}
    planted = [row["id"] for row in rows[::10][:PLANTED]]
    flat = {row["id"] for row in rows if row["reason"] == "low-information"}
    found = [id for id in planted if id in leaked]
    assert len(found) >= PLANTED - len(flat.intersection(planted)) - 1
    assert all(leaked[id] < PLANTED for id in found)  # none is taken for noise
    assert summary["leaked"] == len(leaked)
    listed = pq.read_table(folder / "data/dedup/leaks.parquet").to_pylist()
    assert {row["id"] for row in listed} >= set(found)
    shown = Image.open(io.BytesIO(listed[0]["picture"]))
    assert shown.size == (deduplication.TEST_SIDE,) * 2


def test_images_of_a_test_set_that_cannot_be_read_are_left_out_up_to_a_share(folder, capsys):
    table = pq.read_table(folder / "test.parquet")
    images = table["image"].to_pylist()
    images[-1] = {"bytes": b"", "path": None}
    table = table.set_column(0, "shot", pa.array(images)).rename_columns(["shot", "kind"])
    pq.write_table(table, folder / "test.parquet")
    columns = "evaluate.columns={image: shot, label: kind}"
    assert dedup("--json", "--set", columns, "--set", "evaluate.broken=0.2") == 0
    assert json.loads(capsys.readouterr().out)["leaked"] > 0
    assert dedup("--set", columns, "--set", "evaluate.broken=0") == 3
    assert f"row {len(images) - 1}: not a whole image" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_test_set_that_cannot_be_read_costs_nothing(folder, capsys, content):
    path = folder / "test.parquet"
    path.write_bytes(content) if content else path.unlink()
    before = contents(folder / "data/dedup")
    assert dedup() == 3
    error = capsys.readouterr().err
    assert "test.parquet" in error and "dedup.leaks" in error
    assert contents(folder / "data/dedup") == before


def test_a_dry_run_writes_nothing_but_a_sheet_of_what_would_go(folder, capsys):
    before = contents(folder / "data/dedup")
    figures = contents(folder / "reports") if (folder / "reports").exists() else {}
    assert dedup("--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert contents(folder / "data/dedup") == before
    assert set(contents(folder / "reports")) - set(figures) == {"dedup.html"}
    assert told["sheet"] == "reports/dedup.html"
    within = told["within_bits"]
    assert list(within.values()) == sorted(within.values())
    assert max(within.values()) == told["near_duplicates"] > 0
    alike = list(told["from_similarity"].values())
    assert alike[0] == told["near_duplicates"] and alike == sorted(alike, reverse=True)
    assert dedup("--dry-run", "--sheet", "own/sheet.html") == 0
    text = capsys.readouterr().out
    assert "nothing was dropped" in text and "own/sheet.html" in text
    assert (folder / "own/sheet.html").read_bytes() == (folder / "reports/dedup.html").read_bytes()
    assert dedup("--json") == 0, "and says what a run does"
    summary = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in summary} == summary


def test_a_sheet_has_every_drop_until_it_is_told_to_have_fewer(folder, capsys):
    assert dedup("--sheet", "all.html", "--rows", "100000", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    dropped = told["images"] - told["kept"]
    every = (folder / "all.html").read_text()
    assert every.count("<li>") == dropped > 2
    assert dedup("--sheet", "few.html", "--rows", "1", "--quiet") == 0
    few = (folder / "few.html").read_text()
    count = told["near_duplicates"]
    assert f"1 of {count} here" in few and f"--rows {count}" in few
    assert few.count("<li>") == len(re.findall(r'<section id="reason', few))


def test_a_sheet_that_cannot_be_written_is_an_error_of_the_user(folder, capsys):
    (folder / "wall").touch()
    assert dedup("--dry-run", "--sheet", "wall/sheet.html") == 2
    assert "wall/sheet.html cannot be written" in capsys.readouterr().err


def test_every_verdict_is_explained(folder, capsys):
    rows = pq.read_table(folder / "data/dedup/images.parquet").to_pylist()
    copy = next(row for row in rows if row["reason"] == "near-duplicate")
    assert dedup("--explain", copy["id"][:12]) == 0
    text = capsys.readouterr().out
    assert f"{copy['id']}: dropped as near-duplicate" in text
    assert f"looks like {copy['duplicate_of']}: {copy['distance']} of 64 bits apart" in text
    assert "from http" in text
    assert dedup("--explain", copy["duplicate_of"], "--json") == 0
    best = json.loads(capsys.readouterr().out)
    assert best["kept"] and best["members"] >= 2


@pytest.mark.parametrize(("image", "what"), [("zz", "no such image"), ("", "")])
def test_an_unknown_image_is_an_error_that_says_where_ids_are(folder, capsys, image, what):
    if not image:
        image, what = "0", "images have ids that begin so"
    assert dedup("--explain", image) == 2
    error = capsys.readouterr().err
    assert what in error and "data/dedup/images.parquet" in error


def test_it_runs_as_a_command(project):
    found = run(project, "pipeline", "dedup", "--dry-run", "--quiet", "--sheet", "out.html")
    assert "radius" in found.stdout


# classes that lose much


def plain(count):
    """Pictures that show nothing, all different."""
    return [jpeg(Image.new("RGB", (80 + k, 60), (200, 20 * k, 30))) for k in range(count)]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("crawl: {classes: [fox, fog]}\n")
    return tmp_path


def loud(*arguments):
    """Runs dedup with its notes."""
    with pytest.raises(SystemExit) as done:
        app(["dedup", *arguments], prog_name="pipeline")
    return done.value.code or 0


def test_an_emptied_class_ends_with_3_and_everything_is_there_to_look_at(own, capsys):
    foxes = [jpeg(scene(index)) for index in range(3)]
    ids = write_crawl(own, {"fox": foxes, "fog": plain(4)})
    assert loud() == 3
    out, err = capsys.readouterr()
    assert "3 of 7 images kept" in out and "fox" in out
    error = next(line for line in err.splitlines() if line.startswith("error: "))
    for part in (
        *("fog (all 4 images: 4 low-information)", "reports/dedup.html"),
        *("data/dedup/images.parquet", "dedup.low_information: keep"),
    ):
        assert part in error
    assert "fox" not in error
    rows = pq.read_table("data/dedup/images.parquet").to_pylist()
    assert {row["id"] for row in rows if row["kept"]} == set(ids["fox"])
    assert json.loads(Path("reports/dedup.json").read_text())["low_information"] == 4
    assert Path("reports/dedup.html").read_text().count("<li>") == 4


def test_the_json_of_an_emptied_class_names_it(own, capsys):
    write_crawl(own, {"fox": [jpeg(scene(1))], "fog": plain(2)})
    assert dedup("--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert told["emptied"] == [{"name": "fog", "images": 2, "dropped": {"low-information": 2}}]
    assert told["sheet"] == "reports/dedup.html"


def test_a_dry_run_warns_of_an_emptied_class(own, capsys):
    write_crawl(own, {"fox": [jpeg(scene(1))], "fog": plain(2)})
    assert loud("--dry-run") == 0
    err = capsys.readouterr().err
    assert "exit code 3" in err and "fog (all 2 images" in err


def test_images_that_show_nothing_are_kept_on_request(own, capsys):
    write_crawl(own, {"fox": [jpeg(scene(1))], "fog": plain(5)})
    assert dedup("--set", "dedup.low_information=keep", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["low_information"]) == (6, 0)
    assert (told["losses"], told["emptied"]) == ([], [])
    assert "Every stored image is kept" in Path("reports/dedup.html").read_text()


def test_a_class_that_loses_more_than_3_in_100_is_told_with_what_to_do(own, capsys):
    foxes = [jpeg(scene(index)) for index in range(20)]
    deer = [jpeg(scene(index)) for index in range(40, 60)]
    write_crawl(own, {"fox": [*foxes, *plain(1)], "deer": deer})
    assert loud() == 0
    err = capsys.readouterr().err
    assert "fox: 1 of 21 (4.8%): 1 low-information" in err
    assert "deer" not in err
    for part in ("WARNING", "more than 3% of a class", "reports/dedup.html", "low_information"):
        assert part in err
    assert 'class="loud"><th scope="row"><bdi>fox' in Path("reports/dedup.html").read_text()


def test_a_class_that_loses_little_is_not_told(own, capsys):
    foxes = [jpeg(scene(index, 120, 90)) for index in range(40)]
    write_crawl(own, {"fox": [*foxes, *plain(1)]})
    assert loud() == 0
    assert "WARNING" not in capsys.readouterr().err
    assert 'class="loud"' not in Path("reports/dedup.html").read_text()


def test_the_similarity_of_the_demo_is_noted_where_no_drawings_of_it_are_compared(own, capsys):
    foxes = [jpeg(scene(1))]
    drawn = ["--set", "dedup.similarity=0.93"]
    for engine, arguments, noted in (
        *(("bing", drawn, True), ("demo", drawn, False)),
        *(("bing", [], False), ("bing", ["--set", "dedup.similarity=0.9"], False)),
    ):
        write_crawl(own, {"fox": foxes}, engine)
        assert loud(*arguments) == 0
        assert ("made for the demo's drawings" in capsys.readouterr().err) is noted


def test_text_of_the_web_is_text_on_the_sheet(own):
    hostile = '"><script>alert(1)</script>'
    copies = [jpeg(scene(1)), jpeg(scene(1), 50)]
    deer = [jpeg(scene(9)), jpeg(scene(9), 50)]
    write_crawl(own, {"<b>fox": [*copies, *plain(1)], "deer": deer}, title=hostile)
    assert dedup("--sheet", "sheet.html") == 0
    page = Path("sheet.html").read_text()
    assert "<script" not in page and "<b>fox" not in page
    assert "&lt;b&gt;fox" in page and "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    links = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert {re.match(r"[a-z]*:?", link)[0] for link in links} == {"data:", "https:", ""}
    assert {link for link in links if link.startswith("#")} == {
        link for link in links if not link.startswith(("data:", "https:"))
    }


# what later runs note


def test_what_was_noted_of_an_image_is_explained_and_traced(own, capsys):
    ids = write_crawl(own, {"fox": [jpeg(scene(1))], "fog": [jpeg(scene(2))]})
    one, other = ids["fox"][0], ids["fog"][0]
    assert dedup() == 0
    path = Path("data/dedup/images.parquet")
    noted = {
        **{"looks_like": [other, None], "issues": [["odd_aspect"], []]},
        **{"distance": [4, None], "similarity": [0.9, None]},
    }
    table = pq.read_table(path)
    table = table.drop_columns([name for name in noted if name in table.column_names])
    for name, values in noted.items():
        table = table.append_column(name, [values])
    pq.write_table(table, path)
    capsys.readouterr()
    assert dedup("--explain", one) == 0
    text = capsys.readouterr().out
    assert f"looks like {other}: 4 of 64 bits apart" in text and "both stay" in text
    assert "issues: odd aspect" in text
    with pytest.raises(SystemExit):
        app(["trace", one], prog_name="pipeline")
    text = capsys.readouterr().out
    assert f"kept, like {other} of another class, 4 bits apart; issues: odd aspect" in text


# what the parameters decide


def kept():
    rows = pq.read_table("data/dedup/images.parquet", columns=["id", "kept"]).to_pylist()
    return {row["id"] for row in rows if row["kept"]}


@pytest.mark.parametrize(
    ("options", "stay"),
    [
        ([], 4),
        (["dedup.second_look=false"], 2),  # which are more than 16 bits apart
        (["dedup.similarity=0"], 2),
    ],
)
def test_a_second_look_tells_signs_apart_unless_it_is_switched_off(own, options, stay):
    write_crawl(own, {"fox": [jpeg(sign(number)) for number in (20, 30, 60, 80)]})
    arguments = [one for option in options for one in ("--set", option)]
    assert dedup("--set", "dedup.radius=16", *arguments) == 0
    assert len(kept()) == stay


def test_turned_copies_go_unless_they_are_not_looked_for(own):
    foxes = [jpeg(photographs()[place]) for place in range(4)]
    turned = [jpeg(image.transpose(Image.Transpose.ROTATE_90)) for image in photographs()[:4]]
    write_crawl(own, {"fox": [*foxes, *turned]})
    assert dedup() == 0
    assert len(kept()) == 4
    assert dedup("--set", "dedup.turned=false") == 0
    assert len(kept()) == 8


def test_of_copies_the_one_that_shows_most_stays_and_not_the_largest(own):
    foxes, worse = [photographs()[place] for place in (0, 1, 2, 4)], []
    for image, edit in zip(foxes, range(4), strict=True):
        small = image.resize((60, 60))
        worse.append(
            (
                small.resize((700, 700)),
                ImageOps.expand(image, 40, "black"),
                image.resize((400, 400)).convert("L").convert("RGB"),
                small.resize((500, 500), Image.Resampling.NEAREST),
            )[edit]
        )
    ids = write_crawl(own, {"fox": [jpeg(image, 92) for image in [*worse, *foxes]]})
    assert dedup() == 0
    assert [ids["fox"].index(id) for id in sorted(kept(), key=ids["fox"].index)] == [4, 5, 6, 7]


def test_issues_are_counted_and_images_with_them_stay_unless_they_are_named(own, capsys):
    strip, fox = jpeg(scene(3, 600, 90)), jpeg(scene(1))
    dark = jpeg(scene(2).point(lambda level: level // 6))
    ids = write_crawl(own, {"fox": [fox, strip, dark]})["fox"]
    assert dedup("--json") == 0
    told = json.loads(capsys.readouterr().out)["issues"]
    assert told["odd_aspect"] == {"found": 1, "dropped": 0}
    assert told["dark"] == {"found": 1, "dropped": 0}
    assert kept() == set(ids)
    assert dedup("--json", "--set", "dedup.drop=[odd_aspect]") == 0
    told = json.loads(capsys.readouterr().out)["issues"]
    assert told["odd_aspect"] == {"found": 1, "dropped": 1}
    assert kept() == {ids[0], ids[2]}


def test_what_counts_as_one_colour_is_a_parameter_that_hashes_nothing_anew(own, monkeypatch):
    faint = Image.new("RGB", (90, 60), (120, 120, 120))
    faint.paste((140, 120, 120), (40, 20, 60, 30))
    write_crawl(own, {"fox": [jpeg(scene(1)), encoded(faint)]})
    assert dedup() == 0
    assert len(kept()) == 2
    monkeypatch.setattr("kd3_pipeline.dedup.shards.fingerprint_images", None)
    assert dedup("--set", "dedup.blank_range=20") == 0
    assert len(kept()) == 1
    assert dedup("--set", "dedup.blank_range=19") == 0
    assert len(kept()) == 2
