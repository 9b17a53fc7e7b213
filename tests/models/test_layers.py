import json
from collections import OrderedDict

import pytest
import torch
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.layers import ARGUMENTS, build_layers, layers_of

VECTORS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
MAPS = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))

TAILS = {
    "linear": nn.Linear(6, 3, bias=False),
    "dropout and linear": nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 3)),
    "named": nn.Sequential(
        OrderedDict(fc1=nn.Linear(6, 8), act=nn.GELU("tanh"), fc2=nn.Linear(8, 3))
    ),
    "nested": nn.Sequential(
        nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, 1e-3)), nn.LogSoftmax(1)
    ),
    "norms": nn.Sequential(
        nn.LayerNorm(6, 1e-6, bias=False), nn.GroupNorm(2, 6), nn.LeakyReLU(0.3), nn.Linear(6, 3)
    ),
    "map again": nn.Sequential(
        nn.Unflatten(1, (6, 1, 1)), nn.BatchNorm2d(6), nn.Flatten(1), nn.Linear(6, 3)
    ),
    "none": nn.Sequential(),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_tail_of_plain_layers_is_rebuilt_from_json_with_its_keys_and_logits(tail):
    torch.manual_seed(1)
    tail.train()(VECTORS)
    rebuilt = build_layers(json.loads(json.dumps(layers_of(tail))))
    rebuilt.load_state_dict(tail.state_dict())
    assert repr(rebuilt) == repr(tail)
    assert torch.equal(rebuilt.eval()(VECTORS), tail.eval()(VECTORS))


def test_a_convolution_and_poolings_are_plain_layers():
    tail = nn.Sequential(
        nn.Conv2d(6, 3, (1, 3), padding="same"), nn.ReLU(True), nn.AdaptiveAvgPool2d(1)
    )
    rebuilt = build_layers(layers_of(tail))
    rebuilt.load_state_dict(tail.state_dict())
    assert torch.equal(rebuilt(MAPS), tail(MAPS))


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_every_known_layer_says_all_that_it_was_made_with(kind):
    made_with = {
        **{"in_features": 6, "out_features": 3, "in_channels": 6, "out_channels": 3},
        **{"kernel_size": [3, 1], "output_size": 2, "dim": 1, "unflattened_size": [2, 3]},
        **{"num_features": 6, "num_channels": 6, "num_groups": 2, "normalized_shape": [6]},
    }
    given = {name: made_with[name] for name in ARGUMENTS[kind] if name in made_with}
    layer = build_layers([{"name": "", "type": kind} | given])
    spec = layers_of(layer)
    assert repr(build_layers(spec)) == repr(layer)
    assert spec[0] | given == spec[0]


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_layer_of_another_kind_or_with_a_hook_is_not_plain():
    hooked = nn.Linear(6, 3)
    hooked.register_forward_hook(lambda module, given, output: 2 * output)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    for layer in (Doubled(6, 3), hooked, normed, nn.LSTM(6, 3)):
        assert layers_of(layer) is None
        assert layers_of(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) is None


def test_layers_may_be_written_by_hand():
    tail = build_layers([{"type": "Linear", "in_features": 6, "out_features": 3}, "ReLU"])
    assert [str(layer) for layer in tail] == [str(nn.Linear(6, 3)), "ReLU()"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"type": "ReLU"}, "layers are a list"),
        (["Linaer"], "no layer of the type 'Linaer': did you mean 'Linear'"),
        (["__import__"], "no layer of the type"),
        (["Module"], "no layer of the type 'Module'"),
        ([{"type": "ReLU", "inplce": True}], "has no argument 'inplce'"),
        ([{"type": "Linear", "in_features": 3}], "cannot be built"),
        ([{"type": "Linear", "in_features": {}, "out_features": 1}], "has {} for in_features"),
        ([{"type": "Linear", "in_features": -1, "out_features": 1}], "cannot be built"),
        ([{"type": "Sequential", "layers": "ReLU"}], "layers are a list"),
        ([{"type": "Sequential"}], "has `layers` and nothing else"),
        ([{"type": "ReLU", "name": "a.b"}], "name 'a.b'"),
        ([{"type": "ReLU", "name": "a"}, {"type": "ReLU", "name": "a"}], "name 'a'"),
    ],
)
def test_what_is_no_layer_is_said(spec, said):
    with pytest.raises(UserError) as caught:
        build_layers(spec)
    assert said in str(caught.value)
