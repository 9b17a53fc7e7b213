"""A project of one's own, as the README makes it: its snippet, and hand-written parameters."""

import shlex
import sys
from pathlib import Path

import pytest
import yaml

from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from tests.pages import Block, blocks
from tests.stages.workspace import STUB, environment, inside, invoke, repro, run

STAGES = list(Params.model_fields)


def of_readme(language: str, part: str) -> Block:
    (block,) = [
        one for one in blocks(language) if one.page.name == "README.md" and part in one.text
    ]
    return block


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README's commands make; `pipeline` does no work in it, but for `inputs`.

    The checks before a run are off: the teacher and the test set of the README are not here.
    """
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIPELINE_CHECK", "off")
    made, entered = [
        shlex.split(line)
        for line in of_readme("sh", "pipeline init").text.splitlines()
        if line.startswith(("pipeline init", "cd "))
    ]
    assert (made[:2], made[3:]) == (["pipeline", "init"], ["--preset", "own", "--git"])
    assert entered == ["cd", made[2]]
    (tmp_path / "clone").mkdir()
    invoke(tmp_path / "clone", *made[1:])
    folder = (tmp_path / "clone" / made[2]).resolve()
    program = folder / "bin/pipeline"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable))
    program.chmod(0o755)
    return folder


def test_the_keys_of_the_readme_are_set_in_what_init_writes(project: Path) -> None:
    whole = yaml.safe_load((project / "params.yaml").read_text())
    for section, values in yaml.safe_load(of_readme("yaml", "crawl:").text).items():
        assert values.keys() <= whole[section].keys()
        whole[section] |= values
    (project / "params.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True))
    params = read_params(project / "params.yaml")
    assert params.embed.size >= params.teacher.input_size == 224
    assert repro(project) == STAGES


def test_the_readmes_keys_alone_are_a_project_that_dvc_runs_to_its_end(project: Path) -> None:
    (project / "params.yaml").write_text(of_readme("yaml", "crawl:").text)
    assert repro(project) == STAGES
    assert repro(project) == []
    sections = yaml.safe_load((project / "params.yaml").read_text())
    assert set(sections) == set(STAGES)


@pytest.mark.slow
def test_an_experiment_of_a_project_of_ones_own_is_found_in_the_table(project: Path) -> None:
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "start")
    assert repro(project) == STAGES
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "first run")
    run(project, "dvc", "exp", "run", "-S", "distill.lr=0.3")
    table = run(project, "dvc", "exp", "show", "--only-changed", "--csv").stdout.splitlines()
    assert len(table) == 4 and "distill.lr" in table[0]


def test_dvc_says_what_runs_before_a_section_is_there(project: Path) -> None:
    (project / "params.yaml").write_text("crawl: {per_class: 5}\n")
    with inside(project) as repo:
        assert "crawl" in repo.status()
