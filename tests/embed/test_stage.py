"""`pipeline embed`: which scores it leaves where, and whether it notices a wrongly fed teacher."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from kd3_pipeline.console import Console, no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.embed.coverage import warnings
from kd3_pipeline.embed.predictions import Predictions, read_logits
from kd3_pipeline.embed.topic import core_distance, off_topic
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Teacher
from kd3_pipeline.store import read_table, write_table
from kd3_pipeline.teacher.train import train
from kd3_stages.cli import app
from kd3_stages.steps.teacher_check import check_teacher

from .conftest import SIDE, Crawled

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def embed(*changes: str) -> Result:
    options = [word for change in changes for word in ("--set", f"embed.{change}")]
    result = CliRunner().invoke(app, ["embed", *options])
    assert result.exit_code == 0, result.output
    return result


def table(name: str) -> list[dict[str, str]]:
    with Path("reports", name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def workspace(crawled: Crawled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crawled:
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), crawled.network, crawled.config)
    write_table(Path("data/dedup/images.parquet"), crawled.verdicts())
    Path("params.yaml").write_text("embed: {device: cpu, precision: float32}")
    return crawled


def test_scores_are_columns_figures_and_tables(workspace):
    embed("redundant=0.5")
    images = read_table(Path("data/embed/images.parquet"))
    assert images.column_names == ["row", "id", "label", "off_topic", "redundant"]
    predictions = read_logits(np.load("data/embed/logits.npy"))
    features = np.load("data/embed/features.npy")
    expected = off_topic(predictions, core_distance(features, predictions, no_progress))
    assert images["off_topic"].to_numpy().tolist() == expected.tolist()
    figures = json.loads(Path("reports/embed.json").read_text())
    marked = images["redundant"].to_numpy()
    assert figures["redundant"]["images"] == marked.sum() > 0
    assert figures["shift"].keys() == {"weight_cosine", "batch_norms"}
    assert all(isinstance(value, float) for value in figures["shift"].values())
    cells, classes = table("coverage.csv"), table("classes.csv")
    assert sum(int(cell["images"]) for cell in cells) == len(images) == 16
    labels = [workspace.images[row].label for row in workspace.kept]
    for cell in cells:
        asked = [row for row, label in enumerate(labels) if f"class {label}" == cell["asked"]]
        there = [f"class {predictions.predicted[row]}" for row in asked].count(cell["predicted"])
        assert there == int(cell["images"])
    assert [row["class"] for row in classes] == workspace.config.class_names
    assert [int(row["asked"]) for row in classes] == np.bincount(labels, minlength=10).tolist()
    assert {row["coverage"] for row in classes} <= {"", "starved", "flooded"}
    assert figures["coverage"]["starved"] == [row["coverage"] for row in classes].count("starved")


def test_what_is_switched_off_leaves_nothing(workspace):
    embed("off_topic=false", "coverage=false", "shift=false")
    images = read_table(Path("data/embed/images.parquet"))
    assert images.column_names == ["row", "id", "label"]
    figures = json.loads(Path("reports/embed.json").read_text())
    assert figures.keys() == {
        *("images", "mean_confidence", "confident"),
        *("features", "index", "cut", "normalisation"),
    }
    assert Path("reports/coverage.csv").read_text() == "asked,predicted,images,share\n"
    assert {row["off_topic"] + row["weight_cosine"] for row in table("classes.csv")} == {""}


def test_starved_and_flooded_classes_are_told_loudly_and_stay_in_the_figures(workspace):
    network, config = workspace.network, workspace.config
    with torch.no_grad():
        network.classifier.bias[3] += 1e4
    save_model(Path("models/teacher"), network, config)
    told = " ".join(embed().stderr.split())
    starved, flooded = json.loads(Path("reports/embed.json").read_text())["warnings"]
    assert starved.startswith("starved: ") and "9 of 10 classes" in starved
    assert flooded.startswith("flooded: ") and "class 3 16 (found for it: " in flooded
    assert f"warning: {starved}" in told and f"warning: {flooded}" in told
    assert "warning: " not in embed("coverage=false").stderr


def test_a_matrix_in_another_order_is_one_line_and_one_by_chance_another():
    names = ["Red Fox", "badger", "hare"]
    labels = np.repeat([4, 7, 9], 30)
    asked = {4: "hare", 7: "red-fox", 9: "badger"}  # the crawl has an order of its own

    def lines(predicted):
        confidence = np.ones(90, np.float32)
        about = Predictions(predicted, confidence, confidence, 3), labels, asked, names
        return warnings(*about)

    assert lines(np.repeat([2, 0, 1], 30)) == []
    (order,) = lines(np.repeat([0, 1, 2], 30))
    assert "another order, 3 of 3: the teacher sees of the images found for" in order
    assert order.endswith("they would be [hare, Red Fox, badger]")
    (chance,) = lines(np.tile([0, 1, 2], 30))
    assert "the teacher sees 33.3% of the images as the class" in chance


@pytest.fixture(scope="module")
def trained():
    pixels, labels = original_images("train", 600, SIDE)
    torch.manual_seed(0)
    network = build("resnet8", 10)
    section = Teacher(epochs=6, batch_size=50, lr=0.2, mean=MEAN, std=STD)
    train(network, pixels, labels, section, torch.device("cpu"), torch.float32, no_progress)
    return network.eval()


@pytest.mark.parametrize(
    ("mean", "std", "warns"),
    [(MEAN, STD, False), ([0.5] * 3, [0.5] * 3, True), ([0.0] * 3, [1.0] * 3, True)],
    ids=["right", "half as wide", "none"],
)
def test_a_teacher_that_is_fed_otherwise_than_it_was_trained_is_told_of(
    workspace, trained, mean, std, warns
):
    config = workspace.config
    given = ModelConfig(config.architecture, config.class_names, mean, std, SIDE, "a test")
    save_model(Path("models/teacher"), trained, given)
    told = embed().stderr
    assert ("teacher.mean and teacher.std do not seem to be those" in told) == warns
    said = json.loads(Path("reports/embed.json").read_text())["normalisation"]
    assert (said == "wrong") == warns


def test_embed_and_doctor_say_the_same_of_the_same_images(workspace, trained):
    """The crawl's images in a folder, and what `pipeline teacher --check` says with them."""

    config = workspace.config
    verdicts = []
    for mean, std in ((MEAN, STD), ([0.0] * 3, [1.0] * 3)):
        given = ModelConfig(
            config.architecture, config.class_names, mean, std, SIDE, "500 images of demo"
        )
        save_model(Path("models/teacher"), trained, given)
        embed()
        stored = Embeddings.open(Path("data/embed"))
        folder = Path("pictures")
        folder.mkdir(exist_ok=True)
        for row, pixels in enumerate(np.array(stored.centre(SIDE)[np.arange(len(stored.pixels))])):
            Image.fromarray(pixels).save(folder / f"{row:03}.png")
        found = check_teacher(
            read_params(Path("params.yaml"), ["teacher.architecture=resnet8"]),
            folder,
            Console(),
            fetch=False,
            seconds=1,
        )
        by_name = {one.name: one for one in found}
        said = json.loads(Path("reports/embed.json").read_text())["normalisation"]
        assert by_name["mean and std"].values["verdict"] == said
        verdicts.append(said)
    assert verdicts[1] == "wrong" != verdicts[0]
