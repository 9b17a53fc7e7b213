from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.one_thread import one_thread as one_thread

GOLDEN = Path(__file__).parent.parent / "data" / "kd3.npz"
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class Golden:
    """Recorded inputs and outputs on `device`; floating-point tensors come in `dtype`."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.arrays = np.load(GOLDEN, allow_pickle=False)

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.from_numpy(np.array(self.arrays[name])).to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def matches(self, found: Tensor, name: str) -> None:
        assert found.dtype == self.dtype
        # elsewhere than where it was recorded, what is left is the recording's own rounding
        recorded_here = self.dtype == torch.float32 and self.device.type == "cpu"
        atol = 1e-6 if recorded_here else 5e-6
        torch.testing.assert_close(found, self[name], rtol=1e-5, atol=atol)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_CUDA)])
def device(request, monkeypatch) -> torch.device:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 10 bits of mantissa
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def golden(request, device) -> Golden:
    return Golden(request.param, device)
