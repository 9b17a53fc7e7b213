import pytest
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torchvision import models

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.weights.files import Weights, read_weights
from kd3_pipeline.weights.known import _alike, architectures_for
from kd3_pipeline.weights.network import fitted_network


def refused(path, name, **options) -> str:
    with pytest.raises(UserError) as caught:
        fitted_network(read_weights(path), name, input_size=64, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_resnet_with_the_stem_of_large_images_is_told_from_the_one_for_small_ones(tmp_path):
    torch.save(models.resnet18(num_classes=5).state_dict(), tmp_path / "teacher.pt")
    tried = []
    found = refused(
        tmp_path / "teacher.pt", "resnet18", advance=lambda n=1, note="": tried.append(note)
    )
    assert "conv1.weight [64, 3, 7, 7] for [64, 3, 3, 3]" in found
    assert found.endswith("it would fit torchvision/resnet18 (teacher.architecture)")
    assert len(tried) > 100


def test_a_file_that_fits_several_architectures_names_them():
    state = build("resnet20", 7).state_dict()
    weights = Weights({f"net.{name}": value for name, value in state.items()}, "file", "")
    assert architectures_for(weights, 3, lambda n=1, note="": None) == ["resnet20"]


def test_where_nothing_fits_ones_own_code_is_the_way_out(tmp_path):
    torch.save(
        {"a.weight": torch.zeros(4, 3, 3, 3), "b.weight": torch.zeros(2, 4)}, tmp_path / "t.pt"
    )
    found = refused(tmp_path / "t.pt", "resnet20")
    assert "it fits no known architecture" in found
    assert "file.py:Class" in found


@pytest.mark.parametrize("name", ["resnet26t", "mobilenetv4_conv_small"])
def test_a_network_that_only_timm_has_is_found(name):
    timm = pytest.importorskip("timm", reason="needs the extra 'teachers'")
    state = timm.create_model(name, num_classes=3).state_dict()
    found = architectures_for(Weights(state, "file", ""), 3, lambda n=1, note="": None)
    assert f"timm/{name}" in found


def test_an_architecture_of_other_kernels_is_not_built_to_its_end():
    made = []
    record = register_module_parameter_registration_hook(lambda *one: made.append(one))
    try:
        assert (
            _alike("torchvision/resnet152", [frozenset([(64, 0, 7, 7)])], {"conv1.weight"}) is None
        )
    finally:
        record.remove()
    assert len(made) < 30


def test_an_option_that_hinders_is_named_before_other_architectures(tmp_path):
    torch.save(models.mobilenet_v2(num_classes=5).state_dict(), tmp_path / "teacher.pt")
    found = refused(
        tmp_path / "teacher.pt", "torchvision/mobilenet_v2", options={"width_mult": 0.5}
    )
    end = "it would fit torchvision/mobilenet_v2 without width_mult (teacher.options)"
    assert found.endswith(end)
