"""Layouts in which people save a network: each gives the network that it was, and says how."""

import argparse
import collections
import datetime
import pathlib
import re
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import backbone_state, fitted_network

SIDE = 32
IMAGES = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
NAME = "torchvision/shufflenet_v2_x0_5"
WIDTH = 1024  # of its features


def trained(head: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(1)
    model = models.shufflenet_v2_x0_5(num_classes=5)
    model.fc = head or model.fc
    model.train()(IMAGES)
    return model.eval()


def fitted(path, value, name: str = NAME, **options):
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)
    choice = options.pop("choice", "")
    return fitted_network(read_weights(path, choice=choice), name, input_size=SIDE, **options)


def same(network, model, close: float = 1e-5) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            network.eval()(IMAGES), model.eval()(IMAGES), rtol=close, atol=close
        )


@pytest.mark.parametrize("prefix", ["net.", "lightning.wrapped.model.", "encoder.module.", "0."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_any_prefix_that_makes_the_keys_fit_is_taken_off(tmp_path, prefix, suffix):
    model = trained()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    found = fitted(tmp_path / f"teacher{suffix}", state)
    same(found.network, model)
    assert found.notes == []
    assert found.class_names == [f"class {k}" for k in range(5)]


def test_a_prefix_that_the_network_has_and_the_file_has_not_is_put_before(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = trained()

        def forward(self, images):
            return self.inner(images)

    from kd3_pipeline.models.cutting import cut
    from kd3_pipeline.weights.network import load_teacher

    model = trained()
    torch.save(model.state_dict(), tmp_path / "teacher.pt")
    network = cut(Wrapped(), "wrapped", 5)
    nn.init.zeros_(network.model.inner.fc.weight)
    load_teacher(network, read_weights(tmp_path / "teacher.pt"), SIDE)
    same(network, model)


def test_what_lies_beside_the_network_is_named_and_left_out(tmp_path):
    model = trained()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {"criterion.weight": torch.ones(5), "decoder.0.weight": torch.ones(3, 3, 3, 3)}
    state |= {"train_acc.tp": torch.ones(5, 5), "train_acc.fp": torch.ones(5, 5)}
    found = fitted(tmp_path / "teacher.ckpt", {"state_dict": state, "callbacks": {}, "epoch": 3})
    same(found.network, model)
    (note,) = found.notes
    for key in ("criterion.weight [5]", "decoder.0.weight [3, 3, 3, 3]", "train_acc.* (2)"):
        assert key in note


def test_a_layer_that_the_network_lacks_is_not_left_out(tmp_path):
    state = trained().state_dict()
    for key in ("stage2.0.extra.weight", "attention.weight"):
        with pytest.raises(UserError, match=f"unexpected {key}"):
            fitted(tmp_path / "teacher.pt", state | {key: torch.ones(24, 24, 3, 3)})


Named = OrderedDict  # of layers
HEADS = {
    "dropout and linear": (nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 5)), "fc.1"),
    "linear without bias": (nn.Linear(WIDTH, 5, bias=False), ""),
    "two linear": (
        nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 5)),
        "Linear 1024 → 8, ReLU, Linear 8 → 5; ReLU is assumed",
    ),
    "three linear and norms": (
        nn.Sequential(
            *(nn.BatchNorm1d(WIDTH), nn.Dropout(0.2), nn.Linear(WIDTH, 8), nn.ReLU()),
            *(nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 5)),
        ),
        "BatchNorm1d, Linear 1024 → 8, ReLU, BatchNorm1d, Linear 8 → 8, ReLU, LayerNorm, Linear",
    ),
    "nothing between": (
        nn.Sequential(nn.Linear(WIDTH, 8), nn.Linear(8, 5)),
        "nothing is between its linear layers",
    ),
    "named": (
        nn.Sequential(
            Named(fc1=nn.Linear(WIDTH, 8), bn=nn.BatchNorm1d(8), act=nn.ReLU(), fc2=nn.Linear(8, 5))
        ),
        "Linear 1024 → 8, BatchNorm1d, ReLU, Linear 8 → 5",
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_heads_of_several_layers_are_rebuilt_and_told(tmp_path, head, suffix):
    layers, told = HEADS[head]
    model = trained(layers)
    found = fitted(tmp_path / f"teacher{suffix}", model.state_dict())
    same(found.network, model)
    assert told in " ".join(found.notes)
    again = build(NAME, 5, **found.options)  # as a checkpoint is loaded
    again.load_state_dict(found.network.state_dict())
    same(again, model)


def test_a_log_softmax_at_the_end_leaves_no_key_and_changes_no_probability(tmp_path):
    model = trained(
        nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 5), nn.LogSoftmax(1))
    )
    found = fitted(tmp_path / "teacher.pt", model.state_dict())
    with torch.no_grad():
        logits = found.network.eval()(IMAGES)
        torch.testing.assert_close(logits.log_softmax(1), model(IMAGES), rtol=1e-5, atol=1e-5)
    assert "a softmax at its end would not be seen" in " ".join(found.notes)


def test_the_activation_in_a_head_can_be_set(tmp_path):
    model = trained(nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 5)))
    path = tmp_path / "teacher.pt"
    same(fitted(path, model.state_dict(), options={"head": "tanh"}).network, model)
    layers = [
        {"type": "Linear", "in_features": WIDTH, "out_features": 8},
        "Tanh",
        {"type": "Linear", "in_features": 8, "out_features": 5},
    ]
    same(fitted(path, model.state_dict(), options={"head": layers}).network, model)
    with pytest.raises(UserError, match=r"teacher\.options\.head: 'tahn'"):
        fitted(path, model.state_dict(), options={"head": "tahn"})
    with pytest.raises(UserError, match=r"does not fit the layers of teacher\.options"):
        fitted(path, model.state_dict(), options={"head": layers[:1]})


def test_a_backbone_and_a_head_under_names_of_their_own_are_put_together(tmp_path):
    model = trained()
    state = {
        f"backbone.{name}": one for name, one in model.state_dict().items() if "fc" not in name
    }
    head = {"head.weight": model.fc.weight, "head.bias": model.fc.bias}
    found = fitted(tmp_path / "teacher.pt", state | head)
    same(found.network, model)
    assert found.notes == ["its last layer is head"]
    deep = trained(nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 5)))
    tail = {"fc1.weight": deep.fc[0].weight, "fc1.bias": deep.fc[0].bias}
    tail |= {"fc2.weight": deep.fc[2].weight, "fc2.bias": deep.fc[2].bias}
    state = {f"backbone.{name}": one for name, one in deep.state_dict().items() if "fc" not in name}
    same(fitted(tmp_path / "teacher.pt", state | tail).network, deep)


def test_a_layer_that_may_follow_the_networks_own_last_one_is_not_left_out(tmp_path):
    state = {f"model.{name}": one for name, one in trained().state_dict().items()}
    after = {"classifier.weight": torch.ones(3, 5), "classifier.bias": torch.ones(3)}
    with pytest.raises(UserError, match=r"classifier \[3, 5\] may follow fc"):
        fitted(tmp_path / "teacher.pt", state | after)


def test_two_heads_that_both_fit_are_not_chosen_from(tmp_path):
    state = {f"net.{name}": one for name, one in trained().state_dict().items() if "fc" not in name}
    heads = {f"{name}.weight": torch.ones(n, WIDTH) for name, n in (("colour", 3), ("kind", 4))}
    with pytest.raises(UserError, match=r"last layers cannot be told \(colour or kind\)"):
        fitted(tmp_path / "teacher.pt", state | heads)


def test_children_of_a_sequence_have_the_networks_order(tmp_path):
    model = models.resnet18(num_classes=5)
    state = nn.Sequential(*list(model.children())[:-1]).state_dict()
    state = {f"features.{name}": value for name, value in state.items()}
    head = {"classifier.weight": model.fc.weight, "classifier.bias": model.fc.bias}
    found = fitted(tmp_path / "teacher.pt", state | head, "torchvision/resnet18")
    same(found.network, model)
    assert "features.0 = conv1, features.1 = bn1, features.4 = layer1" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "replaced", "layers", "at"),
    [
        ("mobilenet_v2", "classifier", nn.Linear(1280, 5), None),
        (
            "mobilenet_v2",
            "classifier",
            nn.Sequential(nn.Dropout(), nn.Linear(1280, 8), nn.ReLU(), nn.Linear(8, 5)),
            "classifier.1",
        ),
        ("mobilenet_v3_small", "classifier", nn.Linear(576, 5), "classifier"),
        (
            "mobilenet_v3_small",
            "classifier",
            nn.Sequential(nn.Linear(576, 8), nn.ReLU(), nn.Linear(8, 5)),
            "classifier",
        ),
        ("mobilenet_v3_small", "classifier.3", nn.Sequential(nn.Linear(1024, 5)), None),
    ],
)
def test_a_classifier_that_was_replaced_as_a_whole_or_in_part_fits(
    tmp_path, name, replaced, layers, at
):
    model = models.get_model(name, num_classes=7)
    model.set_submodule(replaced, layers)
    found = fitted(tmp_path / "teacher.pt", model.state_dict(), f"torchvision/{name}")
    same(found.network, model, 1e-4)
    assert (found.options.get("head") or {"at": None})["at"] == at


@pytest.mark.parametrize("key", ["model_state", "weights", "my_network", "a.b"])
def test_any_key_may_hold_the_only_state_dict(tmp_path, key):
    model = trained()
    optimizer = torch.optim.AdamW(model.parameters())
    model(IMAGES).sum().backward()
    optimizer.step()
    value = {
        key: model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loss": torch.tensor(0.1),
    }
    same(fitted(tmp_path / "teacher.pt", value).network, model)
    assert read_weights(tmp_path / "teacher.pt").choices[0].place == key


def test_of_several_state_dicts_the_one_that_fits_is_taken(tmp_path):
    model = trained()
    value = {"model": nn.Linear(3, 2).state_dict(), "discriminator": model.state_dict()}
    same(fitted(tmp_path / "teacher.pt", value).network, model)


def test_averaged_weights_are_taken_only_if_they_are_chosen(tmp_path):
    plain, averaged = trained(), trained()
    nn.init.ones_(averaged.fc.weight)
    value = {"model_ema": averaged.state_dict(), "model": plain.state_dict()}
    found = fitted(tmp_path / "teacher.pt", value)
    same(found.network, plain)
    assert found.notes == [
        "its weights are 'model'; 'model_ema' would fit as well (teacher.weights chooses, by this"
        " name)"
    ]
    same(fitted(tmp_path / "teacher.pt", value, choice="model_ema").network, averaged)
    with pytest.raises(
        UserError, match=r"teacher\.weights: .* named 'swa': its own: model, model_"
    ):
        fitted(tmp_path / "teacher.pt", value, choice="swa")


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1),
    "scalar of numpy": np.float64(0.93),
    "array of numpy": np.ones((2, 3)),
    "words of numpy": np.array(["a", "b"]),
    "state of numpy": np.random.RandomState(0).get_state(),
    "path": pathlib.PurePosixPath("a/b"),
    "date": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(1),
    "default dict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1]),
    "space": types.SimpleNamespace(a=1),
    "a class": torch.optim.SGD,
    "a loss": nn.CrossEntropyLoss(),
    "a set": {1, 2},
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_values_beside_the_weights_do_not_keep_them_from_being_read(tmp_path, kind):
    model = trained()
    value = {"state_dict": model.state_dict(), "beside": HARMLESS[kind], "epoch": 9}
    same(fitted(tmp_path / "teacher.pt", value).network, model)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floating_types_are_float32_and_it_is_told(tmp_path, kind):
    model = trained().to(kind)
    found = fitted(tmp_path / "teacher.safetensors", model.state_dict())
    same(found.network, model.float())
    assert {value.dtype for value in found.network.parameters()} == {torch.float32}
    assert f"its weights are {str(kind).removeprefix('torch.')}, here float32" in found.notes[0]


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ({"classes": ["a", "b", "c", "d", "e"]}, "abcde"),
        ({"class_to_idx": {"b": 1, "a": 0, "c": 2, "e": 4, "d": 3}}, "abcde"),
        ({"hyper_parameters": {"idx_to_class": dict(enumerate("vwxyz"))}}, "vwxyz"),
        ({"args": argparse.Namespace(class_names=list("vwxyz"))}, "vwxyz"),
        ({"classes": tuple("vwxyz")}, "vwxyz"),
        ({"classes": [letter.encode() for letter in "vwxyz"]}, "vwxyz"),
        ({"classes": np.array(list("vwxyü"))}, "vwxyü"),
        ({"classes": np.array(list("vwxyü"), ">U3")}, "vwxyü"),
        ({"classes": np.array([b"v", b"w", b"x", b"y", b"z"])}, "vwxyz"),
        ({"classes": np.array(list("vwxyz"), object)}, "vwxyz"),
        ({"classes": list(np.array(list("vwxyz")))}, "vwxyz"),
        ({"id2label": {str(place): letter for place, letter in enumerate("vwxyz")}}, "vwxyz"),
        ({"class_to_idx": dict(zip("bacde", np.array([1, 0, 2, 3, 4]), strict=True))}, "abcde"),
        ({"idx_to_class": dict(zip(np.arange(5), "vwxyz", strict=True))}, "vwxyz"),
    ],
)
def test_class_names_beside_the_weights_are_the_teachers(tmp_path, beside, names):
    found = fitted(tmp_path / "teacher.pt", {"weights": trained().state_dict()} | beside)
    assert found.class_names == list(names)
    assert "the class names are " in found.notes[0]
    given = fitted(tmp_path / "teacher.pt", {"weights": trained().state_dict()} | beside,
                   class_names=list("12345"))  # fmt: skip
    assert given.class_names == list("12345")


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        ({"class_to_idx": {"a": 0, "b": 0, "c": 1}}, "its numbers are not 0 to 2, each once"),
        ({"idx_to_class": {1: "a", 2: "b"}}, "its numbers are not 0 to 1, each once"),
        ({"id2label": {"²": "a"}}, "its numbers are not 0 to 0, each once"),
        ({"classes": set("abcde")}, "a set has no order"),
        ({"classes": "a,b,c,d,e"}, "it is no list, no dictionary, and no row of texts"),
        ({"classes": np.array([list("abcde")])}, "it is no list, .* no row of texts"),
        ({"classes": np.arange(5)}, "it is no list, .* no row of texts"),
        ({"classes": [None, "b", "c", "d", "e"]}, "not all of its names are texts"),
    ],
)
def test_class_names_that_cannot_be_read_are_told(tmp_path, beside, why):
    value = {"weights": trained().state_dict()} | beside
    found = fitted(tmp_path / "teacher.pt", value)
    assert found.class_names[0] == "class 0"
    (place,) = beside
    assert re.fullmatch(f"{place} of the file is not read as class names: {why}", found.notes[0])
    assert not fitted(tmp_path / "teacher.pt", value, class_names=list("12345")).notes


def test_a_number_of_classes_is_not_taken_for_their_names(tmp_path):
    value = {"weights": trained().state_dict(), "classes": 5, "labels": torch.arange(9)}
    assert not fitted(tmp_path / "teacher.pt", value).notes


def test_class_names_of_another_number_are_not_used_and_it_is_told(tmp_path):
    found = fitted(tmp_path / "teacher.pt", {"w": trained().state_dict(), "classes": ["a", "b"]})
    assert found.class_names[0] == "class 0"
    assert "classes has 2 names for 5 outputs" in found.notes[0]
    with pytest.raises(UserError, match=r"3 class names for 5 outputs \(teacher\.class_names\)"):
        fitted(tmp_path / "teacher.pt", trained().state_dict(), class_names=["a", "b", "c"])


def test_auxiliary_classifiers_that_a_file_lacks_are_not_asked_for(tmp_path):
    model = models.googlenet(num_classes=5, aux_logits=False, init_weights=False).eval()
    found = fitted(tmp_path / "teacher.pt", model.state_dict(), "torchvision/googlenet")
    same(found.network, model, 1e-4)
    assert found.options == {"aux_logits": False}
    assert "the options aux_logits: False" in found.notes[-1]


def test_a_backbone_goes_into_a_network_of_other_classes(tmp_path):
    model = trained()
    torch.save({"ema": {f"net.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pt")
    network = build(NAME, 3)
    state, notes = backbone_state(network, read_weights(tmp_path / "w.pt"))
    missing = network.load_state_dict(state, strict=False).missing_keys
    assert missing == ["model.fc.weight", "model.fc.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network.eval().features(IMAGES).mean((2, 3)), features(model))
    assert notes == ["left out: net.* (2)"]
    with pytest.raises(UserError, match=r"distill\.student_weights: .* does not fit the student"):
        backbone_state(build("resnet8", 3), read_weights(tmp_path / "w.pt"))


def features(model):
    model.fc = nn.Identity()
    return model(IMAGES)


@pytest.mark.parametrize("names", [("ema.module.", "model."), ("student.", "teacher.")])
def test_of_two_networks_in_one_state_dict_one_is_taken_and_the_other_told(tmp_path, names):
    networks = [trained(), trained()]
    nn.init.ones_(networks[0].fc.weight)
    taken = 1 if "ema" in names[0] else 0
    value = {
        f"{prefix}{name}": tensor
        for prefix, network in zip(names, networks, strict=True)
        for name, tensor in network.state_dict().items()
    }
    found = fitted(tmp_path / "teacher.pt", {"state_dict": value})
    same(found.network, networks[taken])
    mine, other = (names[at].rstrip(".") for at in (taken, 1 - taken))
    assert found.notes == [
        f"its weights are those of '{mine}'; those of '{other}' would fit as well"
        " (teacher.weights chooses, by this name)"
    ]
    chosen = fitted(tmp_path / "teacher.pt", {"state_dict": value}, choice=other)
    same(chosen.network, networks[1 - taken])
