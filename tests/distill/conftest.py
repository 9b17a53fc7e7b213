from pathlib import Path

import numpy as np
import pytest

from tests.one_thread import one_thread as one_thread


@pytest.fixture
def published_alpha() -> list[float]:
    """The teacher's weight in epochs 1 to 240, as recorded."""
    golden = Path(__file__).parent.parent / "data" / "kd3.npz"
    return np.load(golden, allow_pickle=False)["alpha"].tolist()
