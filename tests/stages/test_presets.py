"""Presets are whole parameter files that load, and the README's table is the code's."""

from pathlib import Path

import pytest
import yaml

from pipeline.paramfile import read_params
from pipeline.params import Params
from stages.paramtable import table
from tests.imports import ROOT

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_every_parameter(path: Path) -> None:
    read_params(path)
    values = yaml.safe_load(path.read_text())
    for section, field in Params.model_fields.items():
        assert list(values[section]) == list(field.annotation.model_fields)


def test_the_demo_is_the_default() -> None:
    assert read_params(ROOT / "presets/demo.yaml") == Params()


def test_the_parameters_table_in_the_readme_is_up_to_date() -> None:
    assert table() in (ROOT / "README.md").read_text("utf-8")
