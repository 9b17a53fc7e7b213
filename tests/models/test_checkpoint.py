import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import (
    CONFIG,
    WEIGHTS,
    ModelConfig,
    load_model,
    load_state,
    save_model,
)

CPU = torch.device("cpu")
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(1)
    made = build("resnet8", 3)
    made(IMAGES)  # so that the running statistics are not the initial ones
    return made.eval()


@pytest.fixture
def folder(tmp_path, network):
    architecture = {"name": "resnet8", "num_classes": 3}
    names = ["Katze", "犬", "bird"]
    config = ModelConfig(architecture, names, [0.5, 0.4, 0.3], [0.2] * 3, 16, "a test")
    save_model(tmp_path / "model", network, config)
    return tmp_path / "model"


def change(folder, **values) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def refused(folder, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as caught:
        load_model(folder, CPU)
    assert "\n" not in str(caught.value)


def test_whoever_may_read_the_config_may_read_the_weights(folder) -> None:
    weights, config = folder / WEIGHTS, folder / CONFIG
    assert weights.stat().st_mode == config.stat().st_mode


def test_a_network_and_its_config_come_back_as_they_were(folder, network):
    loaded, config = load_model(folder, CPU)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert config.class_names == ["Katze", "犬", "bird"]
    assert (config.mean, config.std, config.input_size) == ([0.5, 0.4, 0.3], [0.2] * 3, 16)
    assert len(config.sha256) == 64


def test_saving_twice_writes_the_same_bytes(folder, network, tmp_path):
    _, config = load_model(folder, CPU)
    save_model(tmp_path / "again", network, config)
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_tampered_weights_are_refused(folder):
    state = load_file(folder / WEIGHTS)
    state["fc.bias"] += 1
    save_file(state, folder / WEIGHTS)
    refused(folder, r"model\.safetensors is not the file that config\.json describes")


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "wrn16_1", "num_classes": 3, "widen": 3},
        {"name": "torchvision/mobilenet_v3_small", "num_classes": 3, "reduced_tail": True},
    ],
    ids=lambda architecture: architecture["name"],
)
def test_options_and_tails_of_several_layers_come_back(tmp_path, architecture):
    torch.manual_seed(1)
    network = build(**architecture).eval()
    save_model(tmp_path, network, ModelConfig(architecture, ["a", "b", "c"], [], [], 32, ""))
    loaded, config = load_model(tmp_path, CPU)
    assert config.architecture == architecture
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))


def test_an_unknown_option_is_named(folder):
    change(folder, architecture={"name": "resnet8", "num_classes": 3, "fused": True})
    refused(folder, "'resnet8' has no option 'fused'")


def test_tensors_that_share_memory_are_saved(tmp_path, network):
    network.layer1[0].conv2.weight = network.layer1[0].conv1.weight
    architecture = {"name": "resnet8", "num_classes": 3}
    save_model(tmp_path, network, ModelConfig(architecture, ["a", "b", "c"], [], [], 16, ""))
    loaded, _ = load_model(tmp_path, CPU)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, rf"{folder / name} not found: run the stage")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("length", [0, 7, 100])
def test_a_cut_off_file_is_no_model(folder, name, length):
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    refused(folder, "holds no model")


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "resnet8"},
        {"architecture": {"nam": "resnet8", "num_classes": 3}},
        {"architecture": {"name": "resnet8"}},
        {"architecture": {"name": ["resnet8"], "num_classes": 3}},
        {"architecture": {"name": "resnet8", "num_classes": "3"}},
        {"architecture": {"name": "resnet8", "num_classes": -3}},
        {"class_names": None},
        {"class_names": ["one", "two"]},
        {"colour": "blue"},
    ],
    ids=str,
)
def test_a_damaged_config_is_one_error(folder, values):
    change(folder, **values)
    refused(folder, "holds no model")


def test_a_config_of_another_kind_of_json_is_one_error(folder):
    (folder / CONFIG).write_text("[1, 2]")
    refused(folder, "holds no model")


def test_an_unknown_architecture_is_named(folder):
    change(folder, architecture={"name": "resnet9", "num_classes": 3})
    refused(folder, "no architecture named 'resnet9'")


def test_weights_of_another_architecture_list_the_keys_that_do_not_fit(folder):
    change(folder, architecture={"name": "resnet14", "num_classes": 3})
    refused(folder, r"does not fit the architecture: missing layer1\.1\.conv1\.weight; .*more$")


def test_wrong_keys_are_all_told(network):
    state = network.state_dict()
    state["fc.bias"] = torch.zeros(5)
    state["extra"] = state.pop("fc.weight")
    with pytest.raises(UserError) as caught:
        load_state(network, state, "here")
    assert str(caught.value) == (
        "here does not fit the architecture: missing fc.weight; unexpected extra;"
        " fc.bias is [5], not [3]"
    )
