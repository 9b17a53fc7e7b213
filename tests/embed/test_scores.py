"""Scores of images and classes, against their definitions on data with a known answer."""

import csv

import numpy as np
import pytest
import torch
from torch import nn

from kd3_pipeline.console import no_progress
from kd3_pipeline.embed.coverage import NOT_ASKED, asked_rows, cells, class_rows
from kd3_pipeline.embed.predictions import Predictions, read_logits
from kd3_pipeline.embed.redundancy import redundant
from kd3_pipeline.embed.scores import score
from kd3_pipeline.embed.shift import weight_cosines
from kd3_pipeline.embed.topic import FARTHEST, core_distance, off_topic
from kd3_pipeline.models import build
from kd3_pipeline.params import Embed
from kd3_pipeline.store import write_csv

DRAWS = np.random.default_rng(3)
WIDTH = 16


def seen_as(predicted, energy=None, classes=3) -> Predictions:
    predicted = np.asarray(predicted)
    if energy is None:
        energy = np.arange(len(predicted))
    return Predictions(predicted, np.ones(len(predicted), np.float32), np.float32(energy), classes)


def cosines(features: np.ndarray) -> np.ndarray:
    vectors = np.float64(features) / np.linalg.norm(np.float64(features), axis=1, keepdims=True)
    return vectors @ vectors.T


def web(count: int = 600) -> tuple[np.ndarray, Predictions]:
    """Random features, float16, in three classes of different size, and random energies."""
    predicted = DRAWS.choice(3, count, p=[0.7, 0.25, 0.05])
    features = DRAWS.standard_normal((count, WIDTH)).astype(np.float16)
    return features, seen_as(predicted, DRAWS.standard_normal(count))


def test_the_distance_is_to_the_tenth_nearest_other_one_of_the_core():
    features, predictions = web()
    alike = cosines(features)
    expected = np.empty(len(features))
    for label in range(3):
        rows = [row for row in range(len(features)) if predictions.predicted[row] == label]
        core = sorted(rows, key=lambda row: predictions.energy[row])
        core = core[: min(100, max(11, len(rows) // 4))]
        for row in rows:
            near = sorted((alike[row, other] for other in core if other != row), reverse=True)
            expected[row] = 1 - near[9]
    found = core_distance(features, predictions, no_progress)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_class_with_few_images_has_the_last_of_them_as_its_tenth():
    features = DRAWS.standard_normal((4, WIDTH))
    predictions = seen_as([0, 0, 0, 2])
    alike = cosines(features)[:3, :3]
    found = core_distance(features, predictions, no_progress)
    np.testing.assert_allclose(found[:3], 1 - alike.min(axis=1), atol=1e-5)
    assert found[3] == FARTHEST  # alone in its class


def test_off_topic_is_the_mean_of_two_ranks():
    predictions = seen_as([0] * 5, energy=[-9, -1, -5, -7, -3])
    found = off_topic(predictions, np.array([0.1, 0.5, 0.9, 0.3, 0.3]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, (4 + 3) / 8, (2 + 4) / 8, 2.5 / 8, 4.5 / 8])
    assert off_topic(seen_as([0]), np.zeros(1)).tolist() == [0]


def test_pictures_of_nothing_score_higher_than_those_of_a_class():
    centres = 4 * DRAWS.standard_normal((3, WIDTH))
    labels = np.arange(300) % 3
    features = centres[labels] + DRAWS.standard_normal((300, WIDTH))
    features[::5] = 2 * DRAWS.standard_normal((60, WIDTH))
    nothing = np.arange(300) % 5 == 0
    predictions = read_logits((features @ centres.T / 8).astype(np.float32))
    found = off_topic(predictions, core_distance(features, predictions, no_progress))
    assert np.sort(found[nothing])[5] > np.quantile(found[~nothing], 0.9)


def twins(classes: int = 3, each: int = 40) -> tuple[np.ndarray, Predictions, set[frozenset[int]]]:
    """Images of which a quarter has a near copy in its class, and these pairs."""
    count = classes * each
    predicted = np.arange(count) % classes
    features = DRAWS.standard_normal((count, WIDTH))
    pairs = set()
    for row in range(count // 4):
        other = row + classes * (each // 2)
        features[other] = 2 * features[row] + 0.01 * DRAWS.standard_normal(WIDTH)
        pairs.add(frozenset((row, other)))
    return features, seen_as(predicted), pairs


@pytest.mark.parametrize("cluster", [1000, 15])
def test_one_of_each_pair_is_marked_and_the_share_is_that_of_each_class(monkeypatch, cluster):
    monkeypatch.setattr("kd3_pipeline.embed.redundancy.CLUSTER", cluster)
    features, predictions, pairs = twins()
    marked, cut = redundant(features, predictions, 0.25, no_progress)
    assert [sum(marked[list(pair)]) for pair in pairs] == [1] * len(pairs)
    assert np.bincount(predictions.predicted[marked], minlength=3).tolist() == [10, 10, 10]
    assert (cut > 0.99).all()
    # a smaller share marks those that are most alike, a larger one all of them and more
    fewer, higher = redundant(features, predictions, 0.1, no_progress)
    assert (fewer <= marked).all() and fewer.sum() == 12 and (higher >= cut).all()
    more, lower = redundant(features, predictions, 0.5, no_progress)
    assert (more >= marked).all() and more.sum() == 60 and (lower < 0.99).all()


def test_the_cut_is_the_cosine_to_an_image_that_comes_before():
    features, predictions = web(200)
    share = 0.3
    marked, cut = redundant(features, predictions, share, no_progress)
    alike = cosines(features)
    for label, rows in predictions.by_class():
        # whatever the order is, an image cannot be more like those before than like all
        within = alike[np.ix_(rows, rows)] - 3 * np.eye(len(rows))
        nearest = within.max(axis=1)
        assert marked[rows].sum() == int(share * len(rows))
        assert (nearest[marked[rows]] >= cut[label] - 1e-6).all()
        # of the others, no two are more alike than the cut
        kept = ~marked[rows]
        assert within[np.ix_(kept, kept)].max() <= cut[label] + 1e-6


def test_copies_of_one_image_leave_one():
    features = np.ones((50, WIDTH), np.float16)
    marked, cut = redundant(features, seen_as([1] * 50), 0.99, no_progress)
    assert marked.sum() == 49
    assert cut[1] == pytest.approx(1) and np.isnan(cut[[0, 2]]).all()
    alone, _ = redundant(features[:3], seen_as([0, 1, 2]), 0.9, no_progress)
    assert not alone.any()


def test_memory_maps_and_small_blocks_change_nothing(tmp_path, monkeypatch):
    features, predictions = web()
    np.save(tmp_path / "features.npy", features)
    section = Embed(off_topic=True, redundant=0.2, coverage=True, shift=True)
    teacher = build("resnet8", 3)
    teacher.fc = nn.Linear(WIDTH, 3)
    once = score(features, predictions, teacher, section, no_progress)
    monkeypatch.setattr("kd3_pipeline.embed.predictions.BLOCK", 64)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    steps: list[int] = []
    again = score(mapped, predictions, teacher, section, steps.append)
    np.testing.assert_allclose(again.images["off_topic"], once.images["off_topic"], atol=1e-4)
    assert np.array_equal(again.images["redundant"], once.images["redundant"])
    assert again.classes.keys() == once.classes.keys()
    assert sum(steps) == 3 * len(features)
    nothing = Embed(off_topic=False, redundant=0.0, coverage=False, shift=False)
    none = score(mapped, predictions, teacher, nothing, no_progress)
    assert (none.images, none.classes, none.figures) == ({}, {}, {})


def test_a_shift_is_the_cosine_of_a_mean_and_the_weights():
    teacher = build("resnet8", 3)
    features = DRAWS.standard_normal((30, 64)).astype(np.float16)
    predictions = seen_as([0, 2] * 15)
    found = weight_cosines(features, predictions, teacher, no_progress)
    for label in (0, 2):
        mean = torch.from_numpy(np.float64(features[predictions.predicted == label]).mean(axis=0))
        expected = torch.cosine_similarity(mean, teacher.fc.weight[label].double(), dim=0)
        assert found[label] == pytest.approx(expected.item())
    assert np.isnan(found[1])


def test_a_classifier_of_several_layers_has_no_weights_of_a_class():
    teacher = build("resnet8", 3)
    teacher.fc = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    features, predictions = DRAWS.standard_normal((6, 64)), seen_as([0, 1, 2] * 2)
    assert weight_cosines(features, predictions, teacher, no_progress) is None
    section = Embed(off_topic=False, redundant=0.0, coverage=False, shift=True)
    found = score(features, predictions, teacher, section, no_progress)
    assert found.figures["shift"] == {"weight_cosine": None}
    assert "weight_cosine" not in found.classes


def test_the_matrix_counts_what_was_asked_for_beside_what_is_seen(tmp_path):
    predictions = seen_as([0, 0, 1, 2, 1])
    labels = np.array([7, 7, 7, 3, -1])
    asked, names = {7: "cat", 3: 'a "fox", grey'}, ["cat", "dog", "fox"]
    rows = asked_rows(predictions, labels, asked, names)
    assert {(row["asked"], row["predicted"]): (row["images"], row["share"]) for row in rows} == {
        ("cat", "cat"): (2, 0.6667),
        ("cat", "dog"): (1, 0.3333),
        ('a "fox", grey', "fox"): (1, 1.0),
        (NOT_ASKED, "dog"): (1, 1.0),
    }
    columns = ("asked", "predicted", "images", "share")
    write_csv(tmp_path / "cells.csv", columns, cells(rows, columns))
    with (tmp_path / "cells.csv").open(encoding="utf-8") as file:
        read = [row["asked"] for row in csv.DictReader(file)]
    assert read == [row["asked"] for row in rows]
    table = class_rows(predictions, labels, asked, names, {"cosine": [0.5, float("nan"), 0.25]})
    columns = ("class", "asked", "predicted", "cosine", "off_topic")
    write_csv(tmp_path / "classes.csv", columns, cells(table, columns))
    assert (tmp_path / "classes.csv").read_text() == (
        "class,asked,predicted,cosine,off_topic\ncat,3,2,0.5,\ndog,0,2,,\nfox,0,1,0.25,\n"
    )


def test_a_class_asked_for_with_its_accents_apart_is_the_teachers():
    predictions = seen_as([0, 1, 0])
    asked = {0: "e\u0301lan"}
    table = class_rows(predictions, np.array([0, 0, -1]), asked, ["ant", "\u00e9lan"], {})
    assert [row["asked"] for row in table] == [0, 2]
