"""The page as text: what it says, what it escapes, what it refuses."""

import dataclasses
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline.errors import UserError
from kd3_pipeline.metrics import read_metrics
from kd3_pipeline.report.page import MOST_THUMBNAILS, STEPS, ReportFiles, build_report
from kd3_pipeline.report.sections import headline
from kd3_pipeline.report.sheet import make_sheet
from tests.report.world import HOSTILE_CLASS, HOSTILE_TITLE, World


class Elements(HTMLParser):
    """Every element of a page as (tag, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def step_count(html: str, name: str) -> int:
    found = re.search(rf"<h3>{name}</h3>\s*<p class=\"size\"><strong>([\d,]+)<", html)
    assert found, name
    return int(found[1].replace(",", ""))


def loss_count(html: str, reason: str) -> int:
    found = re.search(rf"<dt>{re.escape(reason)}</dt><dd>−([\d,]+)</dd>", html)
    assert found, reason
    return int(found[1].replace(",", ""))


def test_hostile_text_is_text(html: str) -> None:
    page = Elements(html)
    assert HOSTILE_CLASS not in html
    assert HOSTILE_CLASS in page.text
    assert HOSTILE_TITLE in page.text
    assert not page.all("script")
    assert not [name for _, attributes in page.found for name in attributes if name[:2] == "on"]
    assert "\u202e" not in html
    assert "a new reason <b>" in page.text


def test_nothing_leaves_the_page(html: str) -> None:
    page = Elements(html)
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            if name not in attributes:
                continue
            value = attributes[name]
            if tag == "a":
                assert re.match(r"(#|https?://)", value), value
            else:
                assert value.startswith("data:"), (tag, value)
    links = [a for a in page.all("a") if not a["href"].startswith("#")]
    assert links
    assert all(a["rel"] == "noopener noreferrer nofollow" for a in links)
    styles = (Path(__file__).parents[2] / "pipeline/report/page.css").read_text()
    assert "url(" not in styles
    assert "@import" not in styles


def test_content_security_policy(html: str) -> None:
    metas = Elements(html).all("meta")
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_image_has_alternative_text(html: str) -> None:
    images = Elements(html).all("img")
    assert images
    assert all(image["alt"] for image in images)


def test_flow_counts_are_those_of_the_files(small: ReportFiles, html: str) -> None:
    dedup = pq.read_table(small.dedup)
    selection = pq.read_table(small.selection)
    times = selection.column("times_kept").to_pylist()
    kept = sum(dedup.column("kept").to_pylist())
    candidates = pq.read_table(small.manifest).num_rows
    assert step_count(html, "Candidates") == candidates
    assert step_count(html, "Stored") == dedup.num_rows
    assert step_count(html, "Kept") == kept
    assert step_count(html, "Selected at least once") == sum(t > 0 for t in times)
    assert loss_count(html, "HTTP error") == 7
    assert loss_count(html, "timed out") == 3
    assert loss_count(html, "near-duplicate") == 6
    assert loss_count(html, "shows a test image") == dedup.num_rows - kept - 6 == 3
    assert loss_count(html, "never selected") == sum(t == 0 for t in times)
    assert "different runs" not in html


def test_headline(small: ReportFiles, html: str) -> None:
    page = Elements(html)
    metrics = json.loads(small.metrics.read_text())
    student, gap = metrics["student"]["accuracy"], metrics["gap_points"]
    sentence = (
        f"The student is right on {100 * student:.1f}% of 90 test images, "
        f"{gap:.1f}\u00a0points below its teacher, with 29% of the parameters and 29% of the"
        " multiply-adds."
    )
    assert sentence in page.text


@pytest.mark.parametrize(
    ("gap", "parameters", "macs", "said"),
    [
        (0.04, 100, 100, "level with its teacher, with as many parameters and as many multiply-a"),
        (-1.25, 250, None, "1.2 points above its teacher, with 2.5 times the parameters."),
        (
            3.0,
            0,
            50,
            "below its teacher, with 0.0% of the parameters and 50% of the multiply-adds.",
        ),
        (3.0, 9, 112, "with 9% of the parameters but 1.12 times the multiply-adds."),
        (3.0, 9, 744, "with 9% of the parameters but 7.44 times the multiply-adds."),
    ],
)
def test_headline_of_other_results(
    small: ReportFiles, gap: float, parameters: int, macs: int | None, said: str
) -> None:
    metrics = read_metrics(small.metrics)
    of_teacher = {"parameters": 100, "macs": 100}
    changes = {
        "gap_points": gap,
        "teacher": metrics.teacher.model_copy(update=of_teacher),
        "student": metrics.student.model_copy(update={"parameters": parameters, "macs": macs}),
    }
    assert said in headline(metrics.model_copy(update=changes))


def test_same_files_and_seed_give_the_same_page(small: ReportFiles) -> None:
    first = build_report(small, thumbnails=10, map_images=20, seed=3)
    assert first == build_report(small, thumbnails=10, map_images=20, seed=3)
    assert first != build_report(small, thumbnails=10, map_images=20, seed=4)


@pytest.mark.parametrize(
    "name",
    [
        "crawl/manifest.parquet",
        "crawl/images-00000.parquet",
        "dedup/images.parquet",
        "embed/images.parquet",
        "embed/logits.npy",
        "embed/features.npy",
        "embed/pixels.npy",
        "distill/selection.parquet",
        "reports/distill.csv",
        "reports/embed.json",
        "reports/metrics.json",
        "reports/predictions.csv",
        "reports/corruptions.csv",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_bad_file_is_named(files: ReportFiles, tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"\xff\x00garbage")
    with pytest.raises(UserError, match=re.escape(str(path))):
        build_report(files)


def test_files_of_different_runs_are_refused(files: ReportFiles, tmp_path: Path) -> None:
    other = World(images=30, size=(48, 48)).write(tmp_path / "other")
    with pytest.raises(UserError, match="different runs"):
        build_report(dataclasses.replace(files, selection=other.selection))
    with pytest.raises(UserError, match="is not the image"):
        build_report(dataclasses.replace(files, crawl=other.crawl))


def test_many_classes(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(30)]
    world = World(class_names=names, test_images=600)
    html = build_report(world.write(tmp_path), thumbnails=0, map_images=0)
    assert "largest confusions" in html
    assert 'class="matrix"' not in html
    assert "Show 5 more classes" in html


def test_one_class(tmp_path: Path) -> None:
    html = build_report(World(class_names=["circle"]).write(tmp_path), map_images=0)
    assert "The student is wrong on 0 of 90 test images" in html


def test_nothing_dropped_and_nothing_selected_out(tmp_path: Path) -> None:
    world = World(near_duplicates=0, leaked=0, lost={}, selects=False, epochs=1)
    html = build_report(world.write(tmp_path), map_images=0)
    assert step_count(html, "Candidates") == step_count(html, "Selected at least once") == 60
    assert "There are none." in html
    assert html.count("used equally often") == 2
    assert "0 of 0 here" in html


def test_a_broken_image_leaves_a_placeholder(tmp_path: Path) -> None:
    world = World(pictures={0: b"not an image", 1: b"\xff\xd8\xff"})
    html = build_report(world.write(tmp_path), map_images=0)
    assert html.count("frame broken") >= 2


def test_a_class_counts_for_every_reason(html: str) -> None:
    part = html.split("What was left out, by class and reason")[1].split("</table>")[0]
    reasons = re.findall(r'<th scope="col" class="n">([^<]+)</th>', part)
    totals = dict.fromkeys(reasons, 0)
    for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", part):
        for reason, cell in zip(
            reasons, re.findall(r"<td class=\"n\">([^<]+)</td>", row), strict=True
        ):
            totals[reason] += 0 if cell == "·" else int(cell)
    assert totals == {
        "HTTP error": 7,
        "near-duplicate": 6,
        "shows a test image": 3,
        "timed out": 3,
        "a new reason &lt;b&gt;": 2,
    }


def test_sample_and_progress(small: ReportFiles) -> None:
    calls: list[int] = []
    html = build_report(small, thumbnails=5, progress=calls.append)
    assert calls == [1] * STEPS
    assert "5 of 51 here" in html
    assert "5 of 6 here" in html
    assert "3 of 3 here" in html
    assert "5 of 30 here" in html
    shown = [len(Elements(part).all("li")) for part in html.split('class="gallery"')[1:]]
    assert shown[:6] == [5, 5, 0, 0, 0, 3]
    assert max(shown) <= 6


def test_what_dedup_noted_and_dropped_is_shown(files: ReportFiles) -> None:
    table = pq.read_table(files.dedup)
    rows = table.to_pylist()
    (one, other), gone = [row["id"] for row in rows if row["kept"]][:2], rows[-1]["id"]
    reasons = ["low-information" if row["id"] == gone else row["reason"] for row in rows]
    issues = [["blurred", "dark"] if row["id"] == other else [] for row in rows]
    like = [other if row["id"] == one else None for row in rows]
    table = table.set_column(table.column_names.index("reason"), "reason", [reasons])
    for name, values in (("issues", issues), ("looks_like", like)):
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, [values])
    pq.write_table(table, files.dedup)
    html = build_report(files)
    found = {
        key: html.split(f'id="{key}"')[1].split("</section>")[0]
        for key in ("unfit", "issues", "look-alikes")
    }
    assert all("1 of 1 here" in part for part in found.values())
    assert found["look-alikes"].count('alt="Stays: ') == 2
    assert found["issues"].count("<img") == 1


def test_too_many_thumbnails(small: ReportFiles) -> None:
    with pytest.raises(UserError, match="18 MB"):
        build_report(small, thumbnails=MOST_THUMBNAILS + 1)


def test_size_with_pictures_that_compress_badly(tmp_path: Path) -> None:
    pictures = {}
    for index in range(240):
        out = io.BytesIO()
        Image.frombytes("RGB", (96, 96), os.urandom(3 * 96 * 96)).save(out, "BMP")
        pictures[index] = out.getvalue()
    world = World(images=240, near_duplicates=70, pictures=pictures)
    html = build_report(world.write(tmp_path), map_images=0)
    assert len(html.encode()) < 18_000_000
    # The limit on the parameter rests on this: the worst thumbnails leave room for the rest.
    largest = max(len(uri) for uri in re.findall(r'src="(data:image/webp[^"]*)"', html))
    noise = np.frombuffer(os.urandom(400 * 32 * 32 * 3), np.uint8).reshape(400, 32, 32, 3)
    sheet = 10 * len(make_sheet(noise, np.arange(400)).uri)  # of the 4,000 images of a map
    assert 17 * MOST_THUMBNAILS * largest + sheet < 17_000_000
