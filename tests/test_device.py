import pytest
import torch

from kd3_pipeline.device import autocast, laid_out, memory_format, resolve_device, resolve_precision
from kd3_pipeline.errors import UserError

CPU = torch.device("cpu")


def set_there(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    set_there(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto").type == expected


def test_a_named_device_is_taken_even_if_there_is_a_faster_one(monkeypatch):
    set_there(monkeypatch, cuda=True, mps=True)
    assert resolve_device("cpu") == CPU
    assert resolve_device("mps").type == "mps"


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_a_device_that_is_not_here_is_an_error_of_the_user(monkeypatch, name):
    set_there(monkeypatch, cuda=False, mps=False)
    with pytest.raises(UserError, match=f"device '{name}' is not available.*cpu"):
        resolve_device(name)


def test_a_named_precision_is_taken():
    assert resolve_precision("float32", CPU) == torch.float32
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_only_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    expected = torch.bfloat16 if native else torch.float32
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", torch.device("cuda")) == expected
    assert resolve_precision("auto", torch.device("mps")) == torch.float32


def test_auto_asks_this_machine_without_failing():
    assert resolve_precision("auto", resolve_device("auto")) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_autocast_multiplies_in_the_given_precision_and_no_further(precision):
    layer = torch.nn.Linear(3, 2)
    with autocast(CPU, precision):
        assert layer(torch.ones(1, 3)).dtype == precision
    assert layer(torch.ones(1, 3)).dtype == layer.weight.dtype == torch.float32


def test_a_gpu_gets_channels_last():
    assert memory_format(torch.device("cuda")) == torch.channels_last
    assert memory_format(CPU) == torch.contiguous_format


def test_a_layout_is_that_of_kernels_and_leaves_weights_of_other_dimensions():
    module = torch.nn.Module()
    module.kernel = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    module.table = torch.nn.Parameter(torch.randn(1, 2, 3, 4, 5))
    module.register_buffer("luma", torch.randn(2, 3, 2, 2))
    values = {name: value.clone() for name, value in module.state_dict().items()}
    kernel = module.kernel
    for layout in (torch.channels_last, torch.contiguous_format):
        assert laid_out(module, layout) is module
        assert module.kernel is kernel
        for value in (module.kernel, module.luma):
            assert value.is_contiguous(memory_format=layout)
        assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())
