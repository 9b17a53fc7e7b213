import pickle
import re
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import UserError
from pipeline.models import build
from pipeline.models.teacher import class_count, load_teacher, read_state

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(name: str = "resnet8", classes: int = 5):
    torch.manual_seed(1)
    network = build(name, classes)
    network(IMAGES)
    return network.eval()


def loads(path, network, name: str = "resnet8") -> None:
    """`path` gives a new network the outputs of this one."""
    fresh = build(name, network.num_classes).eval()
    load_teacher(fresh, path)
    with torch.no_grad():
        assert torch.equal(fresh(IMAGES), network(IMAGES))


def save(path, value) -> None:
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "backbone.", "_orig_mod.module.", "module.backbone."]
)
def test_prefixes_are_undone_in_every_format(tmp_path, suffix, prefix):
    network = trained()
    path = tmp_path / f"teacher{suffix}"
    save(path, {prefix + name: value for name, value in network.state_dict().items()})
    loads(path, network)
    assert class_count(path) == 5


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "model_state_dict", "ema"])
def test_wrappers_are_undone(tmp_path, wrapper):
    network = trained()
    path = tmp_path / "teacher.pth"
    torch.save({"epoch": 3, "acc": 91.5, wrapper: network.state_dict()}, path)
    loads(path, network)


def test_wrappers_in_wrappers_are_undone(tmp_path):
    network = trained()
    path = tmp_path / "teacher.pth"
    torch.save({"model": OrderedDict(state_dict=network.state_dict())}, path)
    loads(path, network)


@pytest.mark.parametrize(
    ("name", "renamings"),
    [
        ("resnet8", [("fc.", "linear.")]),
        ("resnet8", [("downsample.", "shortcut.")]),
        ("resnet8", [("fc.", "linear."), ("downsample.", "shortcut.")]),
        ("resnet18", [("linear.", "fc."), ("shortcut.", "downsample.")]),
        ("shufflev1", [("linear.", "fc.")]),
        ("torchvision/resnet18", [("fc.", "linear."), ("downsample.", "shortcut.")]),
    ],
)
def test_the_other_usual_names_of_layers_are_understood(tmp_path, name, renamings):
    network = trained(name)
    state = network.state_dict()
    for ours, theirs in renamings:
        assert any(ours in key for key in state)
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    path = tmp_path / "teacher.safetensors"
    save_file(state, path)
    loads(path, network, name)
    assert class_count(path) == 5


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "vgg8", "torchvision/mobilenet_v2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_classes_are_counted_at_the_linear_layer_wherever_it_stands(tmp_path, name, suffix):
    state = build(name, 13).state_dict()
    path = tmp_path / f"teacher{suffix}"
    save(path, dict(reversed(state.items())))
    assert class_count(path) == 13


def matrices(**rows: int) -> dict[str, torch.Tensor]:
    return {f"{name.replace('_', '.')}.weight": torch.zeros(n, 2) for name, n in rows.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    "state",
    [
        matrices(classifier_0=8, classifier_3=8, classifier_12=13),
        matrices(fc10=13, fc9=8, fc1=2),
        build("torchvision/mobilenet_v3_small", 13).state_dict(),
    ],
    ids=["sequential", "numbered", "mobilenet"],
)
def test_the_classes_are_counted_at_the_linear_layer_of_the_highest_number(tmp_path, state, suffix):
    path = tmp_path / f"teacher{suffix}"
    save(path, state)
    assert class_count(path) == 13


def test_the_last_linear_layer_is_told_by_the_order_of_a_file_that_has_one(tmp_path):
    state = matrices(neck=8, aux1_fc2=7, head=13)
    torch.save(state, tmp_path / "teacher.pt")
    save_file(state, tmp_path / "teacher.safetensors")
    assert class_count(tmp_path / "teacher.pt") == 13
    with pytest.raises(UserError, match=r"has 3 linear layers.*set teacher\.class_names"):
        class_count(tmp_path / "teacher.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_classes_cannot_be_counted_without_a_linear_layer(tmp_path, suffix):
    path = tmp_path / f"teacher{suffix}"
    save(path, {"a": torch.zeros(3), "b": torch.zeros(3, 3, 1, 1)})
    with pytest.raises(UserError, match=r"has 0 linear layers.*set teacher\.class_names"):
        class_count(path)


def test_files_without_step_counters_are_read(tmp_path):
    network = trained()
    state = network.state_dict()
    path = tmp_path / "teacher.pt"
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)
    loads(path, network)


def test_the_old_names_of_torchvisions_densenet_are_understood(tmp_path):
    network = build("torchvision/densenet121", 3)
    state = network.state_dict()
    old = {re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", key): state[key] for key in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "teacher.pt")
    fresh = build("torchvision/densenet121", 3)
    load_teacher(fresh, tmp_path / "teacher.pt")
    assert all(torch.equal(value, state[key]) for key, value in fresh.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(build("resnet14", 5).state_dict(), path)
    with pytest.raises(UserError, match=r"teacher\.pt does not fit.*unexpected layer1\.1"):
        load_teacher(build("resnet8", 5), path)


class Planted:
    """Runs code when it is unpickled without care."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self):
        return open, (self.proof, "w")


def plain_pickle(value, path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("write", [torch.save, plain_pickle])
def test_a_pickle_with_code_is_refused_without_running_it(tmp_path, write):
    proof, path = tmp_path / "proof", tmp_path / "teacher.pt"
    write({"state_dict": Planted(str(proof))}, path)
    with pytest.raises(UserError, match=r"teacher\.pt is not a file of tensors alone") as caught:
        read_state(path)
    assert not proof.exists()
    assert "weights_only" not in str(caught.value)  # nobody is told how to run the code


def test_a_pickled_network_is_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(trained(), path)
    with pytest.raises(UserError, match=r"not a file of tensors alone.*\.safetensors"):
        read_state(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x02.", bytes(range(256)) * 8])
def test_garbage_is_one_error_that_names_the_file(tmp_path, suffix, data):
    path = tmp_path / f"teacher{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"teacher\.path: {path}") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_cut_off_file_is_one_error(tmp_path, suffix):
    path = tmp_path / f"teacher{suffix}"
    save(path, trained().state_dict())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be read"):
        read_state(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_missing_file_is_named(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    with pytest.raises(UserError, match=rf"teacher\.path: {path} not found"):
        read_state(path)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3), [1, 2], {"state_dict": 4}, {"a": 1.0}, {0: torch.zeros(1)}],
    ids=["tensor", "list", "number", "numbers", "numbered"],
)
def test_other_tensors_and_numbers_are_no_state_dict(tmp_path, value):
    path = tmp_path / "teacher.pt"
    torch.save(value, path)
    with pytest.raises(UserError, match="holds no state dict of tensors"):
        read_state(path)
