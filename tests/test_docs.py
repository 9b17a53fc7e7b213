"""Commands, parameters and code of the pages work as written.

Every command of a page stands in `HOW` of tests/doc_commands.py with how it is checked, so that a
new one fails until someone has said so. Here all of them are parsed.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml

from kd3_pipeline.engine import VARIABLE, Engine
from kd3_pipeline.extras import PACKAGES
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from kd3_pipeline.version import __version__
from kd3_stages.cli import app
from tests.doc_commands import CI, HOW, commands
from tests.imports import ROOT
from tests.pages import PAGES, Block, blocks, shown, spans

COMMANDS = commands()


def test_every_command_says_how_it_is_checked() -> None:
    unknown = [f"{place}: {command}" for command, place in COMMANDS.items() if command not in HOW]
    assert unknown == [], "say in HOW of tests/doc_commands.py how these are checked"
    assert set(HOW) - set(COMMANDS) == set(), "no page has these any more"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_options_that_it_is_given(command: str) -> None:
    words = shlex.split(command)
    if re.fullmatch(r"(RAY|DASK)_ADDRESS=[a-z-]+:[0-9]+", words[0]):
        name, _, address = words.pop(0).partition("=")
        assert Engine.chosen({name: address}).cluster
    if words[:3] == ["python", "-m", "kd3_stages"]:
        words = ["pipeline", *words[3:]]
    if words[0] == "pipeline":
        parse(words[1:])
    elif words[0] == "dvc":
        from dvc.cli import parse_args

        parse_args(words[1:])
        if "-S" in words:
            assert_known(words[words.index("-S") + 1].partition("=")[0])
    elif words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(words[1:])
        assert (given.module, given.training_script) == (True, "kd3_stages")
        parse(given.training_script_args)
    elif words[0] == "make":
        assert_target(words[1])
    elif words[:3] == ["python3", "-m", "venv"]:
        assert len(words) == 4
    elif words[:2] == ["pip", "install"]:
        parts = re.fullmatch(r"(kd3_pipeline-[\d.]+-py3-none-any\.whl)(?:\[(.*)\])?", words[-1])
        assert parts, words
        assert set(filter(None, (parts[2] or "").split(","))) <= PACKAGES.keys()
        assert parts[1] == f"kd3_pipeline-{__version__}-py3-none-any.whl"
    else:
        assert words[0] in (".", "pre-commit", "cd", "git"), words


def parse(words: list[str]) -> None:
    """Reads a command's options as `pipeline` would, and its parameters, and runs nothing."""
    if words[0] == "--engine":
        assert Engine.chosen({VARIABLE: words[1]}).threads
        words = words[2:]
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    with command.make_context(words[0], words[1:]) as context:
        overrides = context.params.get("overrides")
    if overrides:
        read_params(ROOT / "params.yaml", overrides)


def assert_known(key_path: str) -> None:
    section, _, key = key_path.partition(".")
    kind = Params.model_fields[section].annotation
    assert not key or key in kind.model_fields, f"no parameter {key_path}"  # type: ignore[union-attr]


def assert_target(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert name in targets, f"the Makefile has no target {name}"


def test_make_takes_no_python_of_the_environment_that_it_makes(tmp_path: Path) -> None:
    """An activated .venv has a python3 without a pip, as README leaves the shell."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    activated = tmp_path / ".venv/bin"
    activated.mkdir(parents=True)
    (activated / "python3").write_text("#!/bin/sh\nexit 1\n")
    (activated / "python3").chmod(0o755)
    env = os.environ | {"PATH": f"{activated}:{os.environ['PATH']}"}
    command = ["make", "--dry-run", "wheel"]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    assert "python3 -m pip wheel" in said and str(activated) not in said


def test_ci_runs_the_targets_that_it_is_said_to_run() -> None:
    ran = [
        ["make", *target]
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if line.startswith("make ")
        for target in targets(shlex.split(line)[1:])
    ]
    assert [
        command for command, how in HOW.items() if how == CI and shlex.split(command) not in ran
    ] == []


def targets(words: list[str]) -> list[list[str]]:
    """Targets of one call of make, each with the settings that the call ends with."""
    settings = [word for word in words if "=" in word]
    return [[word, *settings] for word in words if "=" not in word]


@pytest.mark.parametrize(
    ("command", "file"), [(c, how) for c, how in HOW.items() if how.startswith("tests/")]
)
def test_the_test_that_runs_a_command_elsewhere_is_there(command: str, file: str) -> None:
    words = [word for word in shlex.split(command)[1:] if re.fullmatch(r"-*[a-z][a-z-]+", word)]
    text = (ROOT / file).read_text()
    lacking = [word for word in words if not re.search(rf"\b{word.lstrip('-')}\b", text)]
    assert lacking == [], f"{file} does not run `{command}`"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_and_parameters_in_the_text_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for span in spans(page):
        words = span.split()
        if words[0] == "make" and len(words) > 1:
            for target in words[1:]:
                if re.fullmatch(r"[a-z-]+", target):
                    assert_target(target)
        elif words[0] == "pipeline" and len(words) > 1 and words[1].islower():
            command = group.commands[words[1]]  # type: ignore[attr-defined]
            assert_options(command, words[2:])
        elif (found := re.match(r"([a-z]+)\.([a-z_0-9]+)(?:: |$)", span)) and (
            found[1] in Params.model_fields and found[2] not in ("py", "pt", "md", "json", "csv")
        ):
            assert_known(f"{found[1]}.{found[2]}")


def assert_options(command: click.Command, words: list[str]) -> None:
    known = {one for option in command.params for one in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}, words


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_python_of_a_page_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


def test_the_engine_of_the_page_reads_a_page() -> None:
    (block,) = [block for block in blocks("python") if "class Example" in block.text]
    names: dict[str, type] = {}
    exec(compile(block.text, block.place, "exec"), names)
    engine, query = names["Example"](), names["Query"]("red fox", "public-domain")
    assert engine.address(query, 50).endswith("q=red+fox&start=50&rights=pd&sort=best")
    images = b'"images": [{"url": "https://e.org/a.jpg", "title": "a"}, {}]'
    page = engine.read(b'{"next": 100, ' + images + b"}", query, 50)
    (found,) = page.results
    assert (found.url, found.title, page.next) == ("https://e.org/a.jpg", "a", 100)
    for answer, kind in ((b"{}", "Unreadable"), (b'{"busy": true}', "NotNow")):
        with pytest.raises(names[kind]):  # type: ignore[call-overload]
            engine.read(answer, query, 50)
    assert isinstance(engine.refusal(402, b""), names["Refused"])
    assert engine.refusal(500, b"") is None


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_parameters_of_a_page_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(block.text)
    read_params(tmp_path / "params.yaml")


def test_the_parameters_of_the_readme_are_keys_of_the_whole_file() -> None:
    (block,) = [block for block in blocks("yaml") if block.page.name == "README.md"]
    whole = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in yaml.safe_load(block.text).items():
        assert set(values) <= set(whole[section])


def test_the_modules_of_the_crawl_are_in_the_page_on_architecture() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    table = page.split("## Modules of `pipeline/crawl`")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)/?`", table))
    folder = ROOT / "pipeline/crawl"
    files = [*folder.glob("*.py"), *folder.glob("removal/*.py")]
    packages = [one.parent for one in folder.glob("*/__init__.py")]
    assert named == {one.stem for one in files + packages} - {"__init__"}
