"""Refined images: what a step does, what is left of it, and who is refused."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d
from typer.testing import CliRunner, Result

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.distill.web import load_web_images
from kd3_pipeline.embed import pieces
from kd3_pipeline.embed import refine as module
from kd3_pipeline.embed.pieces import Pieces
from kd3_pipeline.embed.refine import (
    Remembering,
    batch_rows,
    corners_of,
    distance,
    joined,
    measured,
    moments,
    refine,
    refine_batch,
    surest,
    to_bytes,
)
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import norms_to_match
from kd3_pipeline.params import Distill, Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import write_table
from kd3_stages.cli import app

from .conftest import SIDE, Crawled, contents
from .test_resume import PROCESSES

CPU = torch.device("cpu")
SECTION = Embed(refine=4, refine_batch=12)


@pytest.fixture(scope="module")
def taught() -> Network:
    """A teacher whose running statistics are those of blurred drawings."""
    torch.manual_seed(5)
    network = build("resnet8", 10)
    pixels = torch.from_numpy(original_images("train", 64, SIDE, 1)[0])
    for _ in range(60):
        network(avg_pool2d(normalise(pixels, [0.5, 0.4, 0.3], [0.25] * 3), 3, 1, 1))
    return network.eval()


def remembering(network: Network) -> Remembering:
    norms = norms_to_match(network, SIDE, "embed.refine")
    return Remembering(network, norms, SIDE, CPU, torch.float32)


def images(count: int, side: int = SIDE) -> torch.Tensor:
    pixels = torch.from_numpy(original_images("train", count, side, 9)[0])
    return normalise(pixels, [0.5, 0.4, 0.3], [0.25] * 3)


def refined(crawled: Crawled, taught: Network, folder: Path, pixels: np.ndarray, **changes):
    section = SECTION.model_copy(update=changes)
    return refine(pixels, remembering(taught), crawled.config, folder, section, no_progress)


def test_the_distance_is_the_equation_and_nothing_where_moments_are_remembered():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4) * torch.tensor([1.0, 2.0, 5.0]).view(1, 3, 1, 1)
    norm = torch.nn.BatchNorm2d(3)
    values = x.double().numpy()
    mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    expected = (mean**2 / (1 + 1e-5) + np.log((variance + 1e-5) / (1 + 1e-5)) ** 2).mean()
    assert float(distance(moments(x), norm)) == pytest.approx(expected, rel=1e-5)
    norm.running_mean, norm.running_var = moments(x)
    assert float(distance(moments(x), norm)) < 1e-10


def test_moments_of_parts_make_those_of_the_whole():
    torch.manual_seed(1)
    x = 3 + torch.randn(7, 4, 5)
    parts = x.split([4, 2, 1])
    whole = joined([moments(part) for part in parts], [4, 2, 1])
    for found, expected in zip(whole, moments(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_batch_in_parts_is_pulled_as_in_one_pass(taught):
    teacher, shown = remembering(taught), images(7)
    expected, distances = teacher.pull(shown)
    logits, same = teacher.answers(shown)
    teacher.most = 3
    found, again = teacher.pull(shown)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(again, distances)
    for one, other in zip(teacher.answers(shown), (logits, same), strict=True):
        torch.testing.assert_close(one, other)
    assert float(expected.abs().sum()) > 0


def test_steps_come_nearer_and_what_keeps_the_pixels_keeps_them(taught):
    teacher, shown = remembering(taught), images(12)
    corners = [(0, 0)] * 6
    found, before = refine_batch(teacher, shown, corners, SECTION)
    kept, _ = refine_batch(teacher, shown, corners, Embed(refine_keep=1e3))
    assert float(teacher.answers(found)[1].mean()) < 0.5 * float(before.mean())
    assert 0 < float((kept - shown).square().mean()) < float((found - shown).square().mean())
    assert torch.equal(shown, images(12)), "the images stay as they are"


def test_batches_have_every_image_once_and_all_classes():
    labels = np.repeat(np.arange(10), 30)  # a crawl is in order of class
    batches = batch_rows(len(labels), 50)
    assert sorted(np.concatenate(batches).tolist()) == list(range(300))
    assert [len(set(labels[rows].tolist())) for rows in batches] == [10] * 6
    assert [len(rows) for rows in batch_rows(7, 250)] == [7]


def test_nothing_is_changed_by_the_way_to_numbers_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
    assert torch.equal(to_bytes(normalise(pixels, mean, std), mean, std), pixels)
    beyond = torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2).expand(1, 3, 2, 2)
    assert to_bytes(beyond, mean, std)[0, 0, :, 0].tolist() == [0, 255]


def test_margins_are_refined_as_well_and_answers_are_those_to_the_centre(crawled, taught, tmp_path):
    pixels = original_images("train", 12, SIDE + 6, 3)[0]
    assert corners_of(0, SIDE + 6, SIDE, 9)[0] == (3, 3)
    refined(crawled, taught, tmp_path, pixels, refine=9)
    found = np.load(tmp_path / "refined.npy")
    changed = (found != pixels).any(axis=(0, 3))
    assert changed[:3].any() and changed[-3:].any() and changed[:, :3].any()
    centre = normalise(torch.from_numpy(found[:, 3:-3, 3:-3]), [0.5, 0.4, 0.3], [0.25] * 3)
    with torch.no_grad():
        expected = taught(centre)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "refined_logits.npy")), expected)


def test_stopped_between_two_batches_it_goes_on_to_the_same_bytes(
    crawled, taught, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    pixels = original_images("train", 36, SIDE, 3)[0]
    refined(crawled, taught, tmp_path / "whole", pixels)
    calls: list[int] = []

    def stop(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if calls == [0, 12, 12]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine(pixels, remembering(taught), crawled.config, tmp_path / "two", SECTION, stop)
    refine(pixels, remembering(taught), crawled.config, tmp_path / "two", SECTION, stop)
    assert calls == [0, 12, 12, 24, 12]
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


def test_steps_beyond_all_numbers_are_an_error(crawled, taught, tmp_path):
    pixels = original_images("train", 12, SIDE, 3)[0]
    with pytest.raises(UserError, match="no numbers"):
        refined(crawled, taught, tmp_path, pixels, refine_rate=1e30)


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    def full(file, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pieces, "take_room", full)
    with pytest.raises(ExternalError, match="No space left"):
        Pieces(tmp_path, {"a.npy": (np.uint8, (4, 2))})


def embed(*changes: str) -> Result:
    options = [word for change in changes for word in ("--set", f"embed.{change}")]
    return CliRunner().invoke(app, ["embed", *options])


@pytest.fixture
def workspace(crawled: Crawled, taught: Network, tmp_path, monkeypatch) -> Crawled:
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), taught, crawled.config)
    write_table(Path("data/dedup/images.parquet"), crawled.verdicts())
    Path("params.yaml").write_text("embed: {device: cpu, precision: float32}")
    return crawled


@pytest.mark.parametrize("store", ["raw", "jpeg"])
def test_the_stage_leaves_refined_images_beside_the_same_ones_as_ever(workspace, store):
    assert embed(f"store={store}").exit_code == 0
    plain = contents(Path("data/embed"))
    result = embed(f"store={store}", "refine=4", "refine_batch=8")
    assert result.exit_code == 0, result.output
    assert "embed.refine: 4 steps on 16 images take about" in result.stderr
    found = contents(Path("data/embed"))
    assert {name: found[name] for name in plain} == plain
    assert found.keys() - plain.keys() == {"refined.npy", "refined_logits.npy"}
    embeddings = Embeddings.open(Path("data/embed"))
    figures = json.loads(Path("reports/embed.json").read_text())["refine"]
    moved = (embeddings.refined_pixels / 255.0 - np.array(embeddings.pixels[:]) / 255.0) / 0.25
    assert figures["moved"] == pytest.approx(np.sqrt(np.square(moved).mean()), abs=1e-3)
    assert figures["moved"] > 0.01
    assert figures["after"] < figures["before"]
    assert len(figures["layers"]) == 9  # of a resnet8
    assert figures["layers"][0]["name"] == "bn1"
    assert not list(Path(".cache/embed").iterdir())


def test_distil_is_given_the_refined_images_with_the_answers_to_them(workspace):
    assert embed("refine=4").exit_code == 0
    embeddings = Embeddings.open(Path("data/embed"))
    section = Distill(held_out=0.1)
    web = load_web_images(Path("data/embed"), section, CPU)
    shown = next(iter(web.pixels.batches([torch.arange(16)])))
    assert np.array_equal(shown.numpy(), embeddings.refined_pixels)
    assert np.array_equal(web.teacher_logits.numpy(), embeddings.refined_logits)
    untouched = section.model_copy(update={"refined": False})
    web = load_web_images(Path("data/embed"), untouched, CPU)
    shown = next(iter(web.pixels.batches([torch.arange(16)])))
    assert np.array_equal(shown.numpy(), embeddings.pixels)
    assert np.array_equal(web.teacher_logits.numpy(), embeddings.logits)


@pytest.mark.parametrize("refined", [True, False])
def test_agreement_is_measured_on_refined_images_whatever_is_trained_on(workspace, refined):
    assert embed("refine=4").exit_code == 0
    embeddings = Embeddings.open(Path("data/embed"))
    measure = load_web_images(Path("data/embed"), Distill(refined=refined), CPU).yardstick
    shown = next(iter(measure.pixels.batches([torch.arange(16)])))
    assert np.array_equal(shown.numpy(), embeddings.refined_pixels)
    assert np.array_equal(measure.logits.numpy(), embeddings.refined_logits)
    assert measure.weights is None


def test_the_surest_of_each_class_are_chosen_and_where_one_has_few_more_of_the_others():
    answers = [0] * 6 + [1] * 2 + [2] * 4
    sure = [3.0, 9, 5, 7, 4, 6, 1, 2, 8, 5, 6, 7]
    logits = np.zeros((12, 4), np.float32)  # of the last class there is none
    logits[np.arange(12), answers] = sure
    assert surest(logits, 6).tolist() == [1, 3, 6, 7, 8, 11]
    # the fourth of the first class is as sure as the third of the last is, which is less far down
    assert surest(logits, 8).tolist() == [1, 3, 5, 6, 7, 8, 10, 11]
    assert surest(logits, 50).tolist() == list(range(12))


def test_some_images_are_refined_and_these_alone_trained_on(workspace):
    assert embed("refine=4", "refine_batch=8").exit_code == 0
    every = Embeddings.open(Path("data/embed"))
    untouched, answers = np.array(every.pixels), np.array(every.logits)
    result = embed("refine=4", "refine_batch=8", "refine_images=9")
    assert result.exit_code == 0, result.output
    assert "refined of 16 images: 9 to train on" in " ".join(result.output.split())
    embeddings = Embeddings.open(Path("data/embed"))
    rows, chosen = embeddings.refined_rows, embeddings.surest_rows
    assert rows is not None and chosen is not None
    assert chosen.tolist() == surest(answers, 9).tolist()
    assert set(chosen) <= set(rows) and len(rows) < 16
    assert len(np.load("data/embed/refined.npy")) == len(rows)
    # what was not refined is as it was, with the answers that belong to it
    others = np.setdiff1d(np.arange(16), rows)
    pixels, logits = np.array(embeddings.refined_pixels[:]), embeddings.refined_logits
    assert np.array_equal(pixels[others], untouched[others])
    assert np.array_equal(logits[others], answers[others])
    assert (pixels[rows] != untouched[rows]).any(axis=(1, 2, 3)).all()
    assert np.array_equal(np.load("data/embed/refined_logits.npy"), logits[rows])
    figures = json.loads(Path("reports/embed.json").read_text())["refine"]
    assert figures["images"] == 9 and figures["after"] < figures["before"]

    web = load_web_images(Path("data/embed"), Distill(held_out=0.3), CPU)
    plain = load_web_images(Path("data/embed"), Distill(held_out=0.3, refined=False), CPU)
    out = {at for at, name in enumerate(embeddings.ids) if int(name[:8], 16) / 2**32 < 0.3}
    assert web.held_out.tolist() == plain.held_out.tolist() == sorted(out & set(rows.tolist()))
    assert web.train.tolist() == sorted(set(chosen.tolist()) - out)
    assert plain.train.tolist() == sorted(set(range(16)) - out)
    assert web.looked_at.tolist() == rows.tolist()
    assert plain.looked_at.tolist() == list(range(16))
    more = web.holding_out(0.6)
    assert set(more.train.tolist()) < set(web.train.tolist())
    assert set(more.held_out.tolist()) <= set(rows.tolist())


def test_as_many_images_to_refine_as_there_are_is_all_of_them(workspace):
    assert embed("refine=4").exit_code == 0
    found = contents(Path("data/embed"))
    assert embed("refine=4", "refine_images=16").exit_code == 0
    assert contents(Path("data/embed")) == found


def test_images_that_measure_agreement_are_those_that_are_held_out_first():
    ids = [f"{hash:08x}" + 56 * "0" for hash in (2**31, 9 * 2**20, 2**30, 5, 2**20)] * 40
    ids = [name[:60] + f"{at:04x}" for at, name in enumerate(ids)]
    assert len(measured(ids, 100)) == 6  # 3% of 200
    assert {ids[row][:8] for row in measured(ids, 4)} == {"00000005"}


def test_a_teacher_that_remembers_nothing_is_refused_before_the_pass(workspace):
    save_model(Path("models/teacher"), workspace.network, workspace.config)
    result = embed("refine=4")
    assert result.exit_code == 2
    assert "embed.refine: the teacher's 9 batch norms have seen too few images" in result.stderr
    assert not Path("data/embed").exists() and not Path(".cache/embed").exists()


def test_a_teacher_that_is_fed_wrongly_is_refused(workspace, taught):
    config = workspace.config
    wrong = ModelConfig(config.architecture, config.class_names, [0.0] * 3, [1.0] * 3, SIDE, "")
    save_model(Path("models/teacher"), taught, wrong)
    result = embed("refine=4")
    assert result.exit_code == 2
    assert "embed.refine: teacher.mean and teacher.std do not seem" in " ".join(
        result.stderr.split()
    )


def killed(network: Network, config: ModelConfig, pixels: np.ndarray, folder: Path) -> None:
    """Refines, saves every batch, and is killed after the second one."""
    torch.set_num_threads(1)
    module.SAVE_EVERY = 0.0
    calls: list[int] = []

    def advance(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    refine(pixels, remembering(network), config, folder, SECTION, advance)


@pytest.mark.slow
def test_killed_it_goes_on_behind_the_saved_batches_to_the_same_bytes(crawled, taught, tmp_path):
    pixels = original_images("train", 36, SIDE, 3)[0]
    about = (taught, crawled.config, pixels, tmp_path / "two")
    process = PROCESSES.Process(target=killed, args=about)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    calls: list[int] = []
    refine(
        pixels,
        remembering(taught),
        crawled.config,
        tmp_path / "two",
        SECTION,
        lambda n=1, note="": calls.append(n),
    )
    assert calls == [24, 12]
    refined(crawled, taught, tmp_path / "whole", pixels)
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3)])
def test_moments_and_their_gradient_are_those_of_plain_arithmetic(shape):
    torch.manual_seed(2)
    x = 3 + torch.randn(shape, dtype=torch.float64) * torch.rand(5).view(5, *[1] * (len(shape) - 2))
    over = [axis for axis in range(len(shape)) if axis != 1]
    weights = torch.randn(2, 5)
    gradients = []
    for found in (moments, lambda x: (x.mean(over), x.var(over, correction=0))):
        values = x.float().requires_grad_()
        mean, variance = found(values)
        assert mean.tolist() == pytest.approx(x.mean(over).tolist(), rel=1e-5)
        assert variance.tolist() == pytest.approx(x.var(over, correction=0).tolist(), rel=1e-4)
        gradients.append(
            torch.autograd.grad((weights * torch.stack([mean, variance])).sum(), values)[0]
        )
    assert torch.allclose(*gradients, atol=1e-6)
