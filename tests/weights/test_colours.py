"""Teachers of one channel, and of blue before red: as networks of RGB with the same answers."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms.v2 import functional as transforms

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.adapting import adapted
from kd3_pipeline.weights.files import read_weights
from kd3_pipeline.weights.network import fitted_network

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GREY = transforms.rgb_to_grayscale(IMAGES)
NAMES = ("resnet20", "torchvision/resnet18", "chenyaofo/repvgg_a0", "timm/regnetx_002")


def model_of(name: str, channels: int) -> nn.Module:
    from kd3_pipeline.models import build
    from kd3_pipeline.weights.known import inner_of

    torch.manual_seed(0)
    model = inner_of(build(name, 5))
    if channels == 1:
        for path, layer in list(model.named_modules()):
            if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
                given = (layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
                bias = layer.bias is not None
                model.set_submodule(path, nn.Conv2d(1, *given, bias=bias))
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "order"), [(1, "rgb"), (3, "bgr")])
def test_a_teacher_of_other_colours_answers_as_it_does_on_them(tmp_path, name, channels, order):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="needs the extra 'teachers'")
    model = model_of(name, channels)
    torch.save(model.state_dict(), tmp_path / "teacher.pt")
    found = fitted_network(
        read_weights(tmp_path / "teacher.pt"), name, input_size=32, channels=channels, order=order
    )
    with torch.no_grad():
        expected = model(GREY if channels == 1 else IMAGES.flip(1))
        torch.testing.assert_close(found.network.eval()(IMAGES), expected, rtol=1e-3, atol=1e-4)
    assert not {"channels", "order"} & set(found.options)  # it is a network of RGB
    assert "first layer" in found.notes[-1]


@pytest.mark.parametrize(("has", "set_to"), [(1, 3), (3, 1)])
def test_a_file_of_another_number_of_channels_gives_the_hint(tmp_path, has, set_to):
    model = models.resnet18(num_classes=5)
    model.conv1 = nn.Conv2d(has, 64, 7, 2, 3, bias=False)
    torch.save(model.state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(
        UserError, match=rf"takes images of {has} channels?: teacher\.channels: {has}"
    ):
        fitted_network(
            read_weights(tmp_path / "teacher.pt"),
            "torchvision/resnet18",
            input_size=32,
            channels=set_to,
        )


def test_a_module_of_ones_own_is_given_the_colours_that_it_takes():
    seen = nn.Identity()
    torch.testing.assert_close(adapted(seen, 1, "rgb")(IMAGES), GREY, rtol=0, atol=2e-4)
    assert torch.equal(adapted(seen, 3, "bgr")(IMAGES), IMAGES.flip(1))
    assert adapted(nn.Linear(2, 2), 1, "rgb").state_dict().keys() == {"model.weight", "model.bias"}
