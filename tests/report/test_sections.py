"""What the sections of the page say, each from a run made for it."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.metrics import Bin
from kd3_pipeline.report.calibration import reliability_diagram
from kd3_pipeline.report.corruptions import by_kind, read_corruptions
from kd3_pipeline.report.figures import curve_charts, heat_map
from kd3_pipeline.report.flow import count_flow, read_candidates
from kd3_pipeline.report.inputs import Curves, read_thresholds
from kd3_pipeline.report.map import colours, project, read_map
from kd3_pipeline.report.origins import read_origins
from kd3_pipeline.report.page import ReportFiles, build_live, build_report
from kd3_pipeline.report.sampling import disagreements, nearest, turns
from kd3_pipeline.report.sheet import SIDE
from kd3_pipeline.report.stored import read_images
from kd3_pipeline.report.tables import kept_rows
from kd3_pipeline.templates import counted
from tests.report.world import HOSTILE_CLASS, World


def section(html: str, key: str) -> str:
    """The text of one section, tags left out and white space made one."""
    part = html.split(f'<section id="{key}"')[1].split("\n<section id=")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", part.split(">", 1)[1]))


def gallery(html: str, key: str) -> str:
    return html.split(f'<section class="gallery" id="{key}"')[1].split("</section>")[0]


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_summary_has_the_figures_of_the_file(small: ReportFiles, html: str) -> None:
    metrics = json.loads(small.metrics.read_text())
    text = section(html, "summary")
    low, high = (f"{metrics[name]:.1f}" for name in ("gap_low", "gap_high"))
    assert f"95% interval {low} to {high}" in text
    assert "p = 0.064" in text
    assert "right alone: teacher on 14 images, student on 5" in text
    assert "91.2% where it is right, – where it is wrong" in text
    assert "0.247 nats" in text
    assert "Student, temperature 1.32" in text
    assert re.search(r"Negative log-likelihood \(nats\) 0.432 0.432 0.399", text)
    assert re.search(r"Expected calibration error 7.6% 7.6% 2.3%", text)
    assert "first five" not in text  # of three classes


def test_a_temperature_that_was_not_fitted_is_not_said_to_be(tmp_path: Path) -> None:
    files = World().write(tmp_path)
    assert "The temperature was fitted" in section(
        build_report(files, thumbnails=0, map_images=0), "summary"
    )
    metrics = json.loads(files.metrics.read_text())
    metrics["student"]["temperature"] = 1.0  # as evaluate has it with too few held-out images
    files.metrics.write_text(json.dumps(metrics))
    text = section(build_report(files, thumbnails=0, map_images=0), "summary")
    assert "No temperature was fitted." in text and "The temperature was fitted" not in text


def test_top_5_is_shown_where_there_are_classes_enough(tmp_path: Path) -> None:
    world = World(class_names=[f"class {index}" for index in range(6)])
    html = build_report(world.write(tmp_path), thumbnails=0, map_images=0)
    text = section(html, "summary")
    assert re.search(r"first five 97.0% 95.0% to 99.0% 97.0% 95.0% to 99.0%", text)


@pytest.mark.parametrize(
    ("leaked", "contaminated", "said", "banner"),
    [
        (2, 3, "2 test images were found in the crawl, and what shows them was dropped.", True),
        (1, 0, "1 test image was found in the crawl, and what shows it was dropped.", False),
        (0, 0, "No test image was found in the crawl. None was among", False),
        (None, None, "Nobody looked for test images in the crawl", False),
    ],
)
def test_what_became_of_test_images(
    files: ReportFiles, leaked: int | None, contaminated: int | None, said: str, banner: bool
) -> None:
    change(files.metrics, leaked=leaked, contaminated=contaminated)
    text = section(build_report(files, thumbnails=0, map_images=0), "summary")
    assert said in text
    assert ("Do not quote these figures." in text) == banner
    assert ("3 test images were among the images that trained the student" in text) == banner


def test_cost_has_every_batch_measured(html: str) -> None:
    text = section(html, "cost")
    assert "Teacher resnet20 272,474 40.8 M 1.09" in text
    assert "Student by teacher × 0.286 × 0.294 × 0.286" in text
    assert "cpu 1 1 2 4 1 2 × 0.5" in text
    assert "cpu 1 128 256 512 128 256 × 0.5" in text
    assert "not cheaper" not in html


def test_origins_count_stored_and_selected_images(small: ReportFiles) -> None:
    images = read_images(small.dedup, small.selection)
    hosts, queries, licences, engines = read_origins(small.manifest, images)
    assert engines.rows[0].stored == sum(row.stored for row in hosts.rows) == 60
    assert engines.rows[0].selected == int((images.times > 0).sum())
    assert hosts.rows[0].name == "img.example"
    assert {row.name for row in queries.rows} >= {"circle photo", f"{HOSTILE_CLASS} photo"}
    assert sum(row.stored for row in licences.rows if row.name == "CC BY 4.0") == 20
    assert sum(row.stored for row in licences.rows if row.name == "not stated") == 20


def test_the_rest_of_many_origins_is_one_row(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(26)]
    files = World(class_names=names, images=104).write(tmp_path)
    images = read_images(files.dedup, files.selection)
    queries = read_origins(files.manifest, images)[1]
    assert (len(queries.rows), queries.others, queries.rest.stored) == (20, 6, 24)


def test_a_leaked_image_is_shown_beside_the_test_image(html: str) -> None:
    part = gallery(html, "leaks")
    assert part.count("<li") == 3
    assert part.count('alt="Test image 41"') == 3
    assert "similarity 0.93" in part
    assert part.count('<span class="seen">looks like one that does</span>') == 2
    uri = re.search(r'src="data:image/webp;base64,([^"]*)"[^>]*alt="Test image 41"', part)
    assert Image.open(io.BytesIO(base64.b64decode(uri[1]))).size == (32, 32)


def test_leaks_that_nobody_looked_for(tmp_path: Path) -> None:
    html = build_report(World(leaked=0).write(tmp_path), map_images=0)
    assert "Nobody looked: dedup.leaks is off." in gallery(html, "leaks")


def test_near_duplicates_say_how_far_and_how_alike(small: ReportFiles, html: str) -> None:
    part = gallery(html, "near-duplicates")
    rows = pq.read_table(small.dedup).to_pylist()
    twins = [row for row in rows if row["reason"] == "near-duplicate"]
    wanted = sorted((row["distance"], f"{row['similarity']:.2f}") for row in twins)
    found = re.findall(r"distance (\d+)</span>\s*<span class=\"seen\">similarity ([\d.]+)<", part)
    assert sorted((int(distance), alike) for distance, alike in found) == wanted
    distances = [int(distance) for distance, _ in found]
    assert distances == sorted(distances, reverse=True)


def test_what_selection_took_in_and_let_go_of(small: ReportFiles, html: str) -> None:
    images = read_images(small.dedup, small.selection)
    rows = pq.read_table(small.selection).to_pylist()
    ids = images.table.column("id").to_pylist()
    found = turns(images)
    assert [epoch for epoch, _, _ in found] == [2, 3, 5]
    for epoch, taken, left in found:
        now, before = epoch - 1, epoch - 2
        assert {ids[at] for at in taken} == {
            row["id"] for row in rows if row["kept"][now] and not row["kept"][before]
        }
        assert {ids[at] for at in left} == {
            row["id"] for row in rows if row["kept"][before] and not row["kept"][now]
        }
    part = gallery(html, "changes")
    assert "new in epoch 2" in part
    assert "dropped in epoch 5" in part


def test_disagreements_are_the_images_seen_as_another_class(small: ReportFiles) -> None:
    images = read_images(small.dedup, small.selection)
    names = ("circle", HOSTILE_CLASS, "star")
    apart = disagreements(images, dict(enumerate(names)), names)
    assert len(apart) > 0
    assert (images.predicted[apart] != images.labels[apart]).all()
    used = images.predicted >= 0
    assert len(apart) == int((images.predicted[used] != images.labels[used]).sum())
    unknown = disagreements(images, {0: "circle", 1: "a class of no network", 2: "star"}, names)
    assert set(unknown) == {at for at in apart if images.labels[at] != 1}


def test_the_share_selected_by_class(small: ReportFiles) -> None:
    images = read_images(small.dedup, small.selection)
    thresholds = read_thresholds(small.thresholds, images.epochs)
    rows = kept_rows(images, ("circle", HOSTILE_CLASS, "star"), thresholds)
    selection = pq.read_table(small.selection).to_pylist()
    stars = [row for row in selection if row["predicted"] == 2]
    star = next(row for row in rows if row.name == "star")
    assert star.images == len(stars)
    assert star.first == pytest.approx(np.mean([row["kept"][0] for row in stars]))
    assert star.last == pytest.approx(np.mean([row["kept"][-1] for row in stars]))
    assert star.threshold == pytest.approx(0.4)
    assert "threshold from 0.95 to 0.40" in star.figure
    assert star.figure.count("<polyline") == 2


def test_thresholds_are_shown_where_there_are_some(small: ReportFiles, tmp_path: Path) -> None:
    shown = build_report(small, thumbnails=0, map_images=0)
    assert '<th scope="col" class="n">Threshold</th>' in shown
    drawn = r"Thresholds of the classes over 5 epochs: lowest from 0\.2 to .*; mean from 0\.9 to "
    assert re.search(drawn, shown)
    none = build_report(World(selects=False).write(tmp_path), thumbnails=0, map_images=0)
    assert ">Threshold<" not in none
    assert "Thresholds of the classes" not in none


def test_thresholds_of_another_run_are_refused(small: ReportFiles) -> None:
    with pytest.raises(UserError, match="not a threshold for each of 4 epochs"):
        read_thresholds(small.thresholds, 4)


def test_mistakes_come_surest_first(small: ReportFiles) -> None:
    html = build_report(small, thumbnails=12, map_images=0)
    part = gallery(html, "mistakes")
    sure = [
        int(value) for value in re.findall(r"</bdi>, (\d+)%</span>\s*<span class=\"seen\">t", part)
    ]
    assert sure == list(range(100, 88, -1))
    assert "12 of 30 here" in part
    assert "teacher wrong too" in part


def test_mistakes_that_are_not_at_hand(tmp_path: Path) -> None:
    html = build_report(World(mistakes=0).write(tmp_path), map_images=0)
    assert "The test images are not at hand" in section(html, "mistakes-section")


def test_robustness_is_hidden_where_it_was_not_measured(html: str, tmp_path: Path) -> None:
    text = section(html, "robustness")
    assert "gaussian noise 5 75.0% 50.0% −25.0" in text
    assert "on average 201% of the teacher’s" in text
    assert "sketch 40 70.0% 55.0% −15.0" in text
    bare = World(robustness=False).write(tmp_path / "bare")
    assert "robustness" not in build_report(bare, thumbnails=0, map_images=0)


def test_a_teacher_that_never_errs_is_no_measure_of_the_students_errors(
    files: ReportFiles,
) -> None:
    change(files.metrics, corruption_error={"teacher": 0.0, "student": 0.5, "relative": None})
    text = section(build_report(files, thumbnails=0, map_images=0), "robustness")
    assert "Mean error: teacher 0.0%, student 50.0%." in text
    assert "By kind" not in text


def test_means_of_a_corruption_are_over_its_severities(small: ReportFiles) -> None:
    noise, _ = by_kind(read_corruptions(small.corruptions))
    assert (noise.name, noise.images) == ("gaussian noise", 5)
    assert noise.teacher == pytest.approx(0.75)
    assert noise.student == pytest.approx(0.5)


@pytest.mark.parametrize(
    "row", ["fog,6,0.5,0.5", "fog,1,1.5,0.5", "fog,one,0.5,0.5", "fog,1,nan,0"]
)
def test_a_corruption_that_cannot_be_is_named(files: ReportFiles, row: str) -> None:
    files.corruptions.write_text(f"corruption,severity,teacher,student\n{row}\n")
    with pytest.raises(UserError, match=r"corruptions\.csv: row 2"):
        read_corruptions(files.corruptions)


def test_the_reliability_diagram_draws_every_bin_that_has_images() -> None:
    bins = (
        Bin(low=0.0, high=0.5, images=0, confidence=None, accuracy=None),
        Bin(low=0.5, high=0.75, images=10, confidence=0.6, accuracy=0.5),
        Bin(low=0.75, high=1.0, images=30, confidence=0.9, accuracy=1.0),
    )
    svg = reliability_diagram(bins, "<b>")
    assert "<b>" not in svg
    assert svg.count('class="bin"') == 2
    assert "75% of the images are 75% to 100% sure" in svg
    heights = [float(value) for value in re.findall(r'class="bin"[^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.1)


def test_the_map_puts_like_beside_like_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(3), 40)
    features = (rng.normal(size=(120, 8)) + 12 * np.eye(8)[of]).astype(np.float32)
    points = project(features, 0)
    assert points.min() >= 0
    assert points.max() <= 1
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(120)
    assert (of[gaps.argmin(axis=1)] == of).all()
    assert np.array_equal(points, project(features, 0))


@pytest.mark.parametrize("features", [np.zeros((40, 4)), np.ones((40, 4)), np.eye(8)])
def test_no_map_of_what_has_no_differences_or_is_too_little(features: np.ndarray) -> None:
    assert project(features.astype(np.float32), 0) is None


def test_the_map_shows_a_sample_in_the_colours_of_its_key(small: ReportFiles) -> None:
    names = ("circle", HOSTILE_CLASS, "star")
    asked = dict(enumerate(names))
    drawn = read_map(Embeddings.open(small.embed), small.selection, names, asked, 30, 0)
    assert (drawn.shown, drawn.total) == (30, 51)
    selection = pq.read_table(small.selection).to_pylist()
    sample = np.random.default_rng(0).permutation(51)[:30]
    for colour, name in drawn.keys:
        of_class = [selection[at] for at in sample if names[selection[at]["predicted"]] == name]
        paths = "".join(re.findall(rf'stroke="{colour}"[^>]* d="([^"]*)"', drawn.svg))
        assert paths.count("h0") == sum(row["times_kept"] > 0 for row in of_class), name
        assert paths.count("M") == len(of_class) > 0, name
    assert read_map(Embeddings.open(small.embed), small.selection, names, asked, 0, 0) is None


def test_dots_stand_out_on_both_pages() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for colour in [*colours(10), *colours(100)]:
        for page in ("#fbfaf8", "#15171a"):
            light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (colour, page)


def test_the_page_of_a_run_under_way_has_the_curves_alone(small: ReportFiles) -> None:
    html = build_live(small.curves, 3)
    assert "5 epochs have ended. These are the curves alone." in html
    assert '<meta http-equiv="refresh" content="3">' in html
    assert "Loss, nearly all of it feature" in html
    assert 'id="summary"' not in html
    assert "refresh" not in build_report(small, map_images=0)


def test_the_page_before_the_first_epoch(tmp_path: Path) -> None:
    assert "there is nothing to show" in build_live(tmp_path / "distill.csv", 3)


def test_the_input_and_the_cut_of_the_teacher_are_told(files: ReportFiles) -> None:
    def summary() -> str:
        return section(build_report(files, thumbnails=0, map_images=0), "summary")

    text = summary()
    assert "The mean and deviation fit the teacher." in text
    assert "The teacher is cut at its last feature map, before pooling." in text
    assert "Teacher 32 0.5, 0.45, 0.4 0.25, 0.2, 0.3" in text
    change(files.embedded, normalisation="wrong")
    metrics = json.loads(files.metrics.read_text())
    change(files.metrics, teacher=metrics["teacher"] | {"cut": "logits"})
    text = summary()
    assert "do not seem to be those that the teacher was trained with" in text
    assert "The teacher is cut nowhere: only its logits are seen." in text


def test_agreement_stands_beside_that_of_the_commonest_answer(html: str) -> None:
    assert "87.0% 36.0% by always saying its commonest, circle" in section(html, "summary")


# classes that the crawl and the networks have in another order or spelling


def test_counts_of_stored_images_are_the_crawls_and_what_dedup_moved_is_told(
    files: ReportFiles,
) -> None:
    before = build_report(files, thumbnails=0, map_images=0)
    assert "Moved" not in section(before, "flow")
    table = pq.read_table(files.dedup)
    labels = table["label"].to_pylist()
    labels[0], labels[3] = 2, 2  # found for circles
    column = table.column_names.index("label")
    pq.write_table(table.set_column(column, "label", [labels]), files.dedup)
    text = section(build_report(files, thumbnails=0, map_images=0), "flow")
    assert "Candidates Stored Moved Kept" in text
    assert re.search(r"circle 24 20 −2 ", text) and re.search(r"star 24 20 \+2 ", text)


def test_classes_are_compared_by_name_whatever_their_order(files: ReportFiles) -> None:
    """The crawl has another order, and spellings of its own."""
    manifest = pq.read_table(files.manifest)
    renamed = {"circle": "star", HOSTILE_CLASS: HOSTILE_CLASS, "star": "Circle"}
    names = [renamed[name] for name in manifest["class"].to_pylist()]
    column = manifest.column_names.index("class")
    pq.write_table(manifest.set_column(column, "class", [names]), files.manifest)
    flow = count_flow(
        read_candidates(files.manifest),
        Embeddings.open(files.embed),
        read_images(files.dedup, files.selection),
        ("circle", HOSTILE_CLASS, "star"),
    )
    assert [row.name for row in flow.classes] == ["star", HOSTILE_CLASS, "Circle"]
    assert flow.known == {-1: -1, 0: 2, 1: 1, 2: 0}
    asked = np.array([2, 1, 0])[Embeddings.open(files.embed).labels]
    seen = np.load(files.embed / "logits.npy").argmax(axis=1)
    for label, row in enumerate(flow.classes):
        of_class = Embeddings.open(files.embed).labels == label
        assert row.agree == pytest.approx((asked == seen)[of_class].mean())
    part = gallery(build_report(files, map_images=0), "kept")
    pairs = re.findall(
        r'<bdi class="asked">Circle</bdi>\s*<span class="seen(?: differs)?">(?:<bdi>)?([^<,]*)',
        part,
    )
    assert "as asked" in pairs and not {"Circle", "circle"} & set(pairs)


# galleries of scores


def test_off_topic_images_come_worst_first_with_their_score(files: ReportFiles) -> None:
    part = gallery(build_report(files, thumbnails=6, map_images=0), "off-topic")
    scores = [float(one) for one in re.findall(r"off topic ([\d.]+)", part)]
    assert scores[0] == 1.0 and scores == sorted(scores, reverse=True) and len(scores) == 6
    assert "6 of 51 here" in part


def test_a_redundant_image_is_shown_beside_the_one_that_it_is_most_like(
    files: ReportFiles,
) -> None:
    marked = [at % 5 == 0 for at in range(51)]
    part = gallery(build_report(files, thumbnails=60, map_images=0), "redundant")
    cosines = [float(one) for one in re.findall(r"cosine ([\d.]+)", part)]
    assert len(cosines) == sum(marked) and cosines == sorted(cosines, reverse=True)
    embeddings = Embeddings.open(files.embed)
    features = embeddings.features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    seen = embeddings.logits.argmax(axis=1)
    alike = features @ features.T - 9 * np.eye(51) - 9 * (seen[:, None] != seen)
    expected = sorted(alike.max(axis=1)[np.flatnonzero(marked)].round(3), reverse=True)
    assert cosines == pytest.approx(expected, abs=1e-3)


def test_moment_weights_show_what_they_raise_and_lower_and_what_that_does(tmp_path: Path) -> None:
    world = World(moments=True)
    html = build_report(world.write(tmp_path), thumbnails=6, map_images=0)
    weights = [
        float(one) for one in re.findall(r"weight ([\d.]+)", gallery(html, "moment-weights"))
    ]
    every = np.linspace(0, 2, 51)
    assert weights == pytest.approx([*every[::-1][:3], *every[:3]], abs=5e-3)
    text = section(html, "moments")
    for told in ("0.542", "0.312", "17", "bn1", "0.610", "0.290", "but for 3 of 128"):
        assert told in text
    assert "&lt;b&gt;" in text and "<b>" not in text


def test_without_moment_weights_there_is_no_section_of_them(html: str) -> None:
    assert 'id="moments"' not in html
    assert "Nobody looked: embed.moments is off." in gallery(html, "moment-weights")


def test_images_are_shown_beside_the_crop_of_which_the_teacher_is_surest(
    tmp_path: Path,
) -> None:
    files = World().write(tmp_path)
    logits = np.load(files.embed / "logits.npy")
    boxes = np.full((51, 1, 4), np.nan, np.float32)
    boxes[:20] = (0, 0, 8, 8)
    sure = 9 * logits
    np.save(files.embed / "crop_boxes.npy", boxes)
    np.save(files.embed / "crop_logits.npy", sure[:, None])
    np.save(files.embed / "crops.npy", np.zeros((51, 1, 8, 8, 3), np.uint8))
    part = gallery(build_report(files, thumbnails=12, map_images=0), "crops")
    assert "12 of 20 here" in part and "2 views of each image are trained on" in part
    said = re.findall(r": (\d+)% → (\d+)%", part)
    assert len(said) == 12 and np.mean([int(b) - int(a) for a, b in said]) > 5


def test_scores_that_were_not_asked_for_are_said_not_to_be_there(tmp_path: Path) -> None:
    html = build_report(World(scores=False).write(tmp_path), thumbnails=2, map_images=0)
    assert "Nobody looked: embed.off_topic is off." in gallery(html, "off-topic")
    assert "Nobody looked: embed.redundant is 0." in gallery(html, "redundant")
    assert "Nobody looked: embed.crops is 1." in gallery(html, "crops")


def test_the_nearest_row_of_a_group_is_found_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd3_pipeline.report.sampling.BLOCK", 7)
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(60, 5)), np.arange(60) % 3
    features[10] = 0
    groups[59] = 4  # alone
    rows = np.array([59, 0, 10, 33, 1])
    partner, cosine = nearest(features, groups, rows)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T - 9 * np.eye(60) - 9 * (groups[:, None] != groups)
    assert (partner[0], cosine[0]) == (59, 1.0)
    np.testing.assert_allclose(cosine[1:], alike[rows[1:]].max(axis=1), atol=1e-12)
    assert (partner[[1, 3, 4]] == alike[rows[[1, 3, 4]]].argmax(axis=1)).all()


# pictures on the map


def test_each_image_of_the_map_has_its_picture_and_its_words(small: ReportFiles) -> None:
    names, asked = ("circle", HOSTILE_CLASS, "star"), {0: "circle", 1: HOSTILE_CLASS, 2: "star"}
    embeddings = Embeddings.open(small.embed)
    drawn = read_map(embeddings, small.selection, names, asked, 30, 0)
    assert len(drawn.points) == 30
    image = Image.open(io.BytesIO(base64.b64decode(drawn.sheet.uri.split(",")[1]))).convert("RGB")
    assert image.size == (drawn.sheet.columns * SIDE, drawn.sheet.rows * SIDE)
    selection = pq.read_table(small.selection).to_pylist()
    found = []
    for point in drawn.points:
        x, y = (SIDE * part + SIDE // 2 for part in point.tile)
        at = sum(round(part / 60) * 5**k for k, part in enumerate(image.getpixel((x, y))))
        found.append(at)
        row = selection[at]
        assert point.told.startswith(f"{asked[at % 3]}; seen as {names[row['predicted']]}, ")
        trained = row["times_kept"]
        assert point.told.endswith(
            f"in {counted(trained, 'epoch')}" if trained else "never trained on"
        )
    assert len(set(found)) == 30
    seen = [selection[at]["predicted"] for at in found]
    assert seen == sorted(seen)  # the keyboard goes class by class, from left to right
    for label in set(seen):
        across = [float(p.left) for p, one in zip(drawn.points, seen, strict=True) if one == label]
        assert across == sorted(across)
    for point in drawn.points:
        assert ("w" in point.sides) == (float(point.left) > 50)
        assert ("n" in point.sides) == (float(point.top) > 50)


def test_a_term_that_is_the_loss_is_not_drawn_again() -> None:
    def headings(**columns: list[float]) -> list[str]:
        return [chart.heading for chart in curve_charts(Curves([1.0, 2.0], columns, ()))]

    assert headings(loss=[1.0, 0.5], feature=[0.99, 0.495], contrast=[0.01, 0.005]) == [
        "Loss, nearly all of it feature",
        "Loss term: contrast",
    ]
    assert headings(loss=[1.0, 0.5], kd=[1.0, 0.5]) == ["Loss, nearly all of it kd"]
    assert headings(loss=[1.0, 0.5], feature=[0.7, 0.3], contrast=[0.3, 0.2]) == [
        *("Loss", "Loss term: feature", "Loss term: contrast")
    ]
    assert headings(loss=[1.0, 0.5], feature=[1.0, math.nan], other=[math.nan] * 2) == [
        "Loss, nearly all of it feature"
    ]


def test_a_cell_with_anything_in_it_shows_on_a_heat_map() -> None:
    shares = np.array([[0.999, 0.001], [0.0, 1.0]])
    uri, side = heat_map(shares, 1)
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))[..., 3]
    assert side == 2 and alpha[1, 0] == 0 and alpha[0, 1] >= 0.25 * 255 and alpha[1, 1] == 255
