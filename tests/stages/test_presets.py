"""Presets are whole parameter files that load, and docs/parameters.md is the code's."""

from pathlib import Path

import pytest
import yaml

from pipeline.paramfile import read_params
from pipeline.params import Params
from stages.generate import page
from tests.imports import ROOT

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_every_parameter(path: Path) -> None:
    read_params(path)
    values = yaml.safe_load(path.read_text())
    for section, field in Params.model_fields.items():
        assert list(values[section]) == list(field.annotation.model_fields)


def test_the_demo_is_the_default_but_for_what_is_alike() -> None:
    demo, default = read_params(ROOT / "presets/demo.yaml"), Params()
    # drawings on plain grounds are more alike than photographs, which the default is for
    assert demo.dedup.similarity > default.dedup.similarity
    dedup = demo.dedup.model_copy(update={"similarity": default.dedup.similarity})
    assert demo.model_copy(update={"dedup": dedup}) == default


def test_the_page_of_parameters_is_up_to_date() -> None:
    assert (ROOT / "docs/parameters.md").read_text("utf-8") == page() + "\n"
