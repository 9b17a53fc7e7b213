from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "data" / "kd3.npz"


class Golden:
    """Recorded inputs and outputs; floating-point tensors come in `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.arrays = np.load(GOLDEN, allow_pickle=False)

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.from_numpy(np.array(self.arrays[name]))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def matches(self, found: Tensor, name: str) -> None:
        assert found.dtype == self.dtype
        # in float64 what is left is the rounding of the recording itself, made in float32
        atol = 1e-6 if self.dtype == torch.float32 else 5e-6
        torch.testing.assert_close(found, self[name], rtol=1e-5, atol=atol)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def golden(request) -> Golden:
    return Golden(request.param)
