import json
from pathlib import Path

import pytest

from kd3_pipeline.errors import UserError
from kd3_pipeline.metrics import Metrics, read_metrics
from tests.export.world import METRICS


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_metrics_are_read_as_they_were_written(tmp_path: Path) -> None:
    read = read_metrics(write(tmp_path / "metrics.json", METRICS))
    assert read.model_dump(mode="json") == METRICS
    assert list(METRICS) == list(Metrics.model_fields)


def test_without_a_file_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.json not found: run `dvc repro evaluate`"):
        read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"agreement": 1.5}, "agreement"),
        ({"kl": float("nan")}, "kl"),
        ({"gap_low": "1"}, "gap_low"),
        ({"calibration": [{"low": 0.0}]}, r"calibration\.0\.high"),
        ({"student": {}}, r"student\.architecture"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, values: dict, where: str) -> None:
    path = write(tmp_path / "metrics.json", METRICS | values)
    with pytest.raises(UserError, match=rf"metrics\.json: {where}: .*: run `dvc repro evaluate`"):
        read_metrics(path)


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff"])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: "):
        read_metrics(tmp_path / "metrics.json")
