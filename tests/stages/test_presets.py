"""Presets: differences with reasons, and the whole files that are made of them."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from kd3_pipeline.presets import FOLDER, preset_names, whole_file, write_preset
from kd3_stages.code import ROOT
from kd3_stages.generate import PRESET, keys_of, parameter_page

NAMES = preset_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_holds_differences_each_with_its_reason(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    params = read_params(path)
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    for section, values in yaml.safe_load("\n".join(lines)).items():
        for key in values:
            default = getattr(getattr(Params(), section), key)
            assert getattr(getattr(params, section), key) != default, f"{section}.{key}"
    for before, line in pairwise(lines):
        if line.startswith("  ") and not line.startswith("  #"):
            assert before.startswith("  # "), line


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_file_has_every_key_and_the_presets_values(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "params.yaml"
    whole.write_text(whole_file(name), "utf-8")
    assert read_params(whole) == read_params(FOLDER / f"{name}.yaml")
    values = yaml.safe_load(whole.read_text())
    assert list(values) == list(Params.model_fields)
    for section, field in Params.model_fields.items():
        assert list(values[section]) == list(keys_of(field))
    first, *rest = whole.read_text().splitlines()
    assert f"Preset {name}" in first
    reasons = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if "#" in line]
    assert [line for line in rest if line in reasons] == reasons


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_a_preset_are_inside_of_the_project(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert "../" not in text
    assert ": /" not in text


def test_the_demo_is_the_default_but_for_what_is_alike() -> None:
    demo, default = read_params(FOLDER / "demo.yaml"), Params()
    # drawings on plain grounds are more alike than photographs, which the default is for
    assert demo.dedup.similarity > default.dedup.similarity
    own = {"similarity": default.dedup.similarity, "second_look": True}
    dedup = demo.dedup.model_copy(update=own)
    assert demo.model_copy(update={"dedup": dedup}) == default


def test_generated_files_are_up_to_date() -> None:
    assert (ROOT / "docs/parameters.md").read_text("utf-8") == parameter_page(), "make generated"
    assert (ROOT / "params.yaml").read_text("utf-8") == whole_file(PRESET), "make generated"


def test_a_file_that_a_person_wrote_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert write_preset("demo", path) is None
    assert write_preset("quick", path) is None, "no one's work was there"
    kept = {}
    for name, number in (("demo", ""), ("quick", "-2"), ("demo", "-3")):
        path.write_text(f"distill: {{epochs: {len(number)}}}\n")
        copy = write_preset(name, path)
        assert copy == tmp_path / f"params.previous{number}.yaml"
        assert path.read_text() == whole_file(name)
        kept[copy] = f"distill: {{epochs: {len(number)}}}\n"
    assert {copy: copy.read_text() for copy in kept} == kept


def test_a_second_preset_leaves_the_copy_of_a_hand_written_file(tmp_path: Path) -> None:
    path, copy = tmp_path / "params.yaml", tmp_path / "params.previous.yaml"
    path.write_text("distill: {epochs: 7}\n")
    assert write_preset("quick", path) == copy
    for name in ("demo", "quick", "demo"):
        assert write_preset(name, path) is None
    path.write_text(path.read_text().replace("epochs: 20", "epochs: 21"))
    assert write_preset("quick", path) == tmp_path / "params.previous-2.yaml"
    assert copy.read_text() == "distill: {epochs: 7}\n"


def test_a_file_of_another_version_is_no_ones_work_until_it_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    older = whole_file("demo").replace("  map_images: 2000\n", "").partition("\n")[2]
    digest = hashlib.sha256(older.encode()).hexdigest()[:12]
    first = f"# Preset demo as `pipeline preset demo` writes it (unedited: {digest}).\n"
    path.write_text(first + older)
    assert write_preset("demo", path) is None
    path.write_text(first + older.replace("epochs: 20", "epochs: 21"))
    assert write_preset("demo", path) == tmp_path / "params.previous.yaml"


def test_an_unknown_preset_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("distill: {}\n")
    with pytest.raises(UserError, match="no preset named 'dmeo': known: cifar10"):
        write_preset("dmeo", path)
    assert path.read_text() == "distill: {}\n"
    assert list(tmp_path.iterdir()) == [path]
