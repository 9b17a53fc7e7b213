"""Students that start from pretrained weights: a library's, from its cache, or a file's."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kd3_pipeline import models
from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.pretrained import load_pretrained, pretrained, start_notes
from kd3_pipeline.distill.run import distill, prepare
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.resnet import CifarResNet
from kd3_pipeline.params import Distill
from tests.distill.world import CLASS_COUNT, MEAN, SIDE, STD, equal, section, teacher, web

CONFIG = ModelConfig(
    {"name": "resnet8", "num_classes": CLASS_COUNT}, list("abcdefghij"), MEAN, STD, SIDE, "a test"
)
SMALL = "torchvision/mobilenet_v3_small"
SMALL_FILE = "mobilenet_v3_small-047dcff4.pth"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


def saved(path: Path, name: str = "resnet8", classes: int = 7, **options: Any) -> Network:
    """A network in a file, whose statistics are no initial ones."""
    torch.manual_seed(9)
    network = build(name, classes, **options)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    save_file({key: value.clone() for key, value in network.state_dict().items()}, path)
    return network


def started(path: Path | str, student: str = "resnet8", **changes: Any) -> Distill:
    return section(student=student, student_weights=str(path), **changes)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of torch.hub, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_student_starts_from_the_weights_of_a_file_and_keeps_a_head_of_its_own(tmp_path):
    source = saved(tmp_path / "net.safetensors").state_dict()
    of = started(tmp_path / "net.safetensors")
    torch.manual_seed(0)
    network = build("resnet8", CLASS_COUNT)
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    start = pretrained(of)
    assert load_pretrained(network, start)[0] == ["fc.weight", "fc.bias"]
    for key, value in network.state_dict().items():
        head = key.startswith("fc.")
        assert torch.equal(value, fresh[key] if head else source[key]), key
    digest = hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()
    assert (start.origin, start.weights.sha256) == ("net.safetensors", digest)


def test_the_last_layer_alone_is_left_out_of_a_head_of_several(tmp_path):
    source = saved(tmp_path / "net.safetensors", SMALL, 7)
    network = build(SMALL, 10)
    left, _ = load_pretrained(network, pretrained(started(tmp_path / "net.safetensors", SMALL)))
    assert len(left) == 2  # weight and bias
    assert sorted(key.rpartition(".")[2] for key in left) == ["bias", "weight"]
    hidden = [
        next(layer for layer in of.classifier.modules() if isinstance(layer, nn.Linear))
        for of in (network, source)
    ]
    assert torch.equal(hidden[0].weight, hidden[1].weight)


def test_a_head_of_the_same_size_is_left_out_too(tmp_path):
    saved(tmp_path / "net.safetensors", classes=CLASS_COUNT)
    network = build("resnet8", CLASS_COUNT)
    before = network.fc.weight.clone()
    load_pretrained(network, pretrained(started(tmp_path / "net.safetensors")))
    assert torch.equal(network.fc.weight, before)


def test_a_head_of_another_kind_is_left_out_whole(tmp_path):
    state = saved(tmp_path / "net.safetensors").state_dict()
    other = {key.replace("fc.", "fc.2."): value.clone() for key, value in state.items()}
    save_file(other, tmp_path / "other.safetensors")
    network = build("resnet8", CLASS_COUNT)
    left, _ = load_pretrained(network, pretrained(started(tmp_path / "other.safetensors")))
    assert left == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet14", {}, r"does not fit the student: unexpected layer1\.1\."),
        ("wrn16_1", {}, r"does not fit the student: missing "),
        ("resnet8x4", {}, r"of another shape .*conv1"),
    ],
)
def test_weights_of_another_network_are_refused_with_what_does_not_fit(
    tmp_path, name, options, message
):
    saved(tmp_path / "net.safetensors", name, **options)
    with pytest.raises(UserError, match=r"^distill\.student_weights: .*" + message):
        load_pretrained(build("resnet8", 10), pretrained(started(tmp_path / "net.safetensors")))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = saved(tmp_path / "net.safetensors").state_dict()
    state["conv1.weight"][0] = torch.nan
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=r"bad\.safetensors"):
        load_pretrained(build("resnet8", 10), pretrained(started(tmp_path / "bad.safetensors")))


@pytest.mark.parametrize("file", ["missing.pth", "./missing", "a/b"])
def test_a_file_that_is_not_there_is_named_with_the_parameter(file):
    with pytest.raises(UserError, match=rf"^distill\.student_weights: {Path(file)} not found"):
        pretrained(started(file))


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    torch.save(build("resnet8", 10), tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r"^distill\.student_weights: "):
        pretrained(started(tmp_path / "whole.pt"))


@pytest.mark.parametrize("name", ["default", "IMAGENET1K_V1"])
def test_weights_of_torchvision_come_by_name_with_how_they_were_trained(cache, name):
    network = build(SMALL, 1000)
    torch.save(network.state_dict(), cache / SMALL_FILE)
    start = pretrained(started(name, SMALL))
    assert start.origin == "torchvision mobilenet_v3_small IMAGENET1K_V1"
    assert start.side == 224
    assert start.mean == pytest.approx([0.485, 0.456, 0.406])
    other = build(SMALL, CLASS_COUNT)
    load_pretrained(other, start)
    ours, theirs = other.state_dict(), network.state_dict()
    first = next(name for name in ours if name.endswith("features.0.0.weight"))
    assert torch.equal(ours[first], theirs[first])


def test_weights_of_timm_come_by_name_for_images_of_another_size(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    from kd3_pipeline.weights import sources

    torch.manual_seed(1)
    network = timm.create_model("vit_tiny_patch16_224")
    path = tmp_path / "model.safetensors"
    save_file(network.state_dict(), path)
    monkeypatch.setattr(sources, "_hub_file", lambda *_: path)  # there is no network in tests
    of = started("default", "timm/vit_tiny_patch16_224", student_options={"img_size": 32})
    start = pretrained(of)
    assert start.origin.startswith("timm vit_tiny_patch16_224.")
    assert start.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert start.weights.state["pos_embed"].shape == (1, 1 + 2 * 2, 192)
    assert start.side == 224


def test_without_a_network_the_error_says_how_to_go_on(cache, monkeypatch):
    with pytest.raises(ExternalError, match=r"set distill\.student_weights to its path"):
        pretrained(started("default", SMALL))


@pytest.mark.parametrize(
    ("student", "name", "message"),
    [
        ("resnet8", "default", r"no library has weights 'default' of 'resnet8'.*\./default"),
        (SMALL, "IMAGENET22K", r"^distill\.student_weights: torchvision has no weights"),
        ("torchvision/resnet9", "default", "torchvision has no model 'resnet9'"),
    ],
)
def test_weights_that_nobody_has_are_one_line_that_names_the_parameter(student, name, message):
    with pytest.raises(UserError, match=message):
        pretrained(started(name, student))


def test_what_was_left_out_and_what_is_another_than_in_training_is_told(tmp_path, cache):
    torch.save(build(SMALL, 1000).state_dict(), cache / SMALL_FILE)
    start = pretrained(started("default", SMALL))
    head, normalisation, size = start_notes(start, ["classifier.3.weight"], CONFIG)
    assert "IMAGENET1K_V1" in head
    assert start.weights.sha256 in head
    assert "classifier.3.weight" in head
    assert "[0.485, 0.456, 0.406]" in normalisation
    assert "[0.5, 0.5, 0.5]" in normalisation
    assert "224" in size
    assert str(SIDE) in size
    same = ModelConfig(
        CONFIG.architecture, CONFIG.class_names, start.mean, start.std, 224, "a test"
    )
    assert len(start_notes(start, [], same)) == 1
    saved(tmp_path / "net.safetensors")
    assert len(start_notes(pretrained(started(tmp_path / "net.safetensors")), [], CONFIG)) == 1


def test_a_run_begins_at_these_weights_and_ends_elsewhere_than_a_random_one(tmp_path):
    source = saved(tmp_path / "net.safetensors").state_dict()
    of = started(tmp_path / "net.safetensors", epochs=1)
    ready = prepare(of, web(), teacher(), CONFIG)
    weights = ready.objective.student.state_dict()
    assert equal(
        {key: value for key, value in source.items() if not key.startswith("fc.")}, weights
    )
    assert "SHA-256" in ready.notes[0]
    ends = []
    for number, one in enumerate((of, of.model_copy(update={"student_weights": ""}))):
        found, _ = distill(
            one, web(), teacher(), CONFIG, torch.float32, tmp_path / str(number), no_progress
        )
        ends.append(found.state_dict())
    assert not equal(*ends)
    random = prepare(of.model_copy(update={"student_weights": ""}), web(), teacher(), CONFIG)
    # what is drawn is the same with and without a start: the two runs differ in it alone
    assert equal(ready.objective.transfer.state_dict(), random.objective.transfer.state_dict())


class Sized(CifarResNet):
    """A network that takes images of 32 pixels alone."""

    def features(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == 32, "images of 32 pixels wanted"
        return super().features(images)


def test_a_student_for_images_of_another_size_is_refused_with_the_teachers(monkeypatch):
    made = partial(Sized, depth=8, widths=(16, 16, 32, 64))
    monkeypatch.setitem(models.ARCHITECTURES, "sized", made)
    wanted = rf"'sized' does not take images of {SIDE} .*: images of 32 pixels wanted"
    with pytest.raises(UserError, match=wanted):
        prepare(section(student="sized"), web(), teacher(), CONFIG)
