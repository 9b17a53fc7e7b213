"""Commands, parameters and code of the pages work as written.

Every command of a page stands in `HOW` with how it is checked, so that a new one fails until
someone has said so. All of them are parsed; those marked `RUN` also run, on a project that went
through the whole pipeline.
"""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from pipeline.paramfile import read_params
from pipeline.params import Params
from stages.cli import app
from tests.imports import ROOT
from tests.pages import PAGES, Block, blocks, spans
from tests.stages.workspace import fresh_copy, run, stages_run

RUN = "runs here"  # on the shared project, whose results it leaves as they are
SCENARIO = "runs here, in a test of its own"
NETWORK, MINUTES, FOREVER = "asks the web", "takes minutes", "runs until Ctrl-C"
INSTALLS = "changes the environment"
HOW: dict[str, str] = {  # RUN, SCENARIO, a test that runs it, or why none does
    "make demo": MINUTES,
    "make demo QUICK=1": MINUTES,
    "make setup": INSTALLS,
    "make test": MINUTES,
    "pre-commit install": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "dvc repro": "tests/stages/test_repro.py",
    "dvc repro --pull --allow-missing distill": SCENARIO,
    "dvc commit -f distill": SCENARIO,
    "dvc commit -f crawl": "tests/stages/test_crawl.py",
    "dvc exp run -S distill.lr=0.3": "tests/stages/test_repro.py",
    "dvc exp show": "tests/stages/test_repro.py",
    "dvc metrics show": "tests/stages/test_repro.py",
    "dvc plots show": "tests/stages/test_repro.py",
    "dvc remote add --default storage /mnt/storage": SCENARIO,
    "dvc push --run-cache": SCENARIO,
    "dvc pull --run-cache": SCENARIO,
    "pipeline preset demo": SCENARIO,
    "pipeline preset cifar10-local": SCENARIO,
    "pipeline crawl --search-again": "tests/stages/test_crawl.py",
    "pipeline crawl --retry-failed timeout,5xx": "tests/stages/test_crawl.py",
    "pipeline dedup --dry-run": RUN,
    "pipeline dedup --explain ID": RUN,
    "pipeline dedup --radius 8": RUN,
    "pipeline distill --epochs 50": MINUTES,
    "pipeline distill --set distill.lr=auto": "tests/stages/test_distill_rate.py",
    "python -m stages distill": SCENARIO,
    "torchrun --nproc-per-node 4 -m stages distill": "wants 4 GPUs",
    "pipeline evaluate": RUN,
    "pipeline evaluate --corruptions": "tests/evaluate/test_corruptions.py",
    "pipeline evaluate --styles my-styles": "tests/stages/test_evaluate.py",
    "pipeline tune --trials 20": "tests/stages/test_tune.py",
    "pipeline tune --search lr=0.3:3 --search feature_weight=0.5,1,2": "tests/stages/test_tune.py",
    "pipeline predict IMAGE": RUN,
    "pipeline predict IMAGE --model models/export/model.onnx": RUN,
    "pipeline trace ID": RUN,
    "pipeline neighbours IMAGE --html sheet.html": RUN,
    "pipeline report --open": RUN,
    "pipeline report --watch": FOREVER,
    "pipeline doctor --engine commons": NETWORK,
    "pipeline doctor --engine bing --query 'red fox'": NETWORK,
    "pipeline serve-demo": FOREVER,
}
NOT_INSTALLED = {"datasets"}  # named by a page, and no dependency of this project


def commands() -> dict[str, str]:
    """Every command of the pages' sh blocks as it would be typed, with its first place."""
    found: dict[str, str] = {}
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s&&\s", line):
                if words := shlex.split(part, comments=True):
                    found.setdefault(shlex.join(words), block.place)
    return found


COMMANDS = commands()
RUN_HERE = [command for command, how in HOW.items() if how == RUN]


def test_every_command_says_how_it_is_checked() -> None:
    unknown = [f"{place}: {command}" for command, place in COMMANDS.items() if command not in HOW]
    assert unknown == [], "say in HOW of tests/test_docs.py how these are checked"
    assert set(HOW) - set(COMMANDS) == set(), "no page has these any more"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_options_that_it_is_given(command: str) -> None:
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "stages"]:
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
        assert (given.module, given.training_script) == (True, "stages")
        parse(given.training_script_args)
    elif words[0] == "make":
        assert_target(words[1])
    else:
        assert words[0] in (".", "pre-commit"), words


def parse(words: list[str]) -> None:
    """Reads a command's options as `pipeline` would, and its parameters, and runs nothing."""
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


@pytest.mark.parametrize(
    ("command", "file"), [(c, how) for c, how in HOW.items() if how.startswith("tests/")]
)
def test_the_test_that_runs_a_command_elsewhere_is_there(command: str, file: str) -> None:
    words = [word for word in shlex.split(command)[1:] if re.fullmatch(r"-*[a-z][a-z-]+", word)]
    text = (ROOT / file).read_text()
    lacking = [word for word in words if f'"{word}"' not in text]
    assert lacking == [], f"{file} does not run `{command}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


@pytest.fixture(scope="module")
def ran(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that went through the pipeline, with the image that commands ask of."""
    folder = fresh_copy(project, tmp_path_factory.mktemp("docs"))
    shard = pq.ParquetFile(next((folder / "data/crawl").glob("images-*.parquet")))
    first = shard.read_row_group(0, ["id", "image"]).slice(0, 1).to_pylist()[0]
    (folder / "IMAGE").write_bytes(first["image"]["bytes"])
    (folder / "ID").write_text(first["id"])
    return folder


@pytest.fixture(scope="module")
def exported(ran: Path) -> Path:
    """The same, with the student as ONNX, which the shared project leaves out."""
    if find_spec("onnxscript") is None:
        pytest.skip("the extra export is not installed")
    run(ran, "pipeline", "export", "--set", "export.formats=[onnx, torch]")
    return ran


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_command_runs(
    command: str, ran: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "onnx" in command:
        request.getfixturevalue("exported")
    monkeypatch.chdir(ran)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    words = [(ran / word).read_text() if word == "ID" else word for word in shlex.split(command)]
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    assert done.output.strip()


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_python_of_a_page_runs(
    block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = compile(block.text, block.place, "exec")
    lacking = {name for name in imports(block.text) if find_spec(name) is None}
    assert lacking <= NOT_INSTALLED | {"onnxruntime"}
    if lacking:
        pytest.skip(f"compiled only: {', '.join(lacking)} is not installed")
    if "models/export" in block.text:
        monkeypatch.chdir(request.getfixturevalue("exported"))
    names: dict[str, object] = {}
    exec(code, names)
    if "logits" in names:
        assert tuple(names["logits"].shape) == (1, 10)  # type: ignore[attr-defined]


def imports(code: str) -> set[str]:
    found = re.findall(r"^(?:from (\w+)|import ([\w, ]+))", code, re.M)
    return {name.strip() for one, many in found for name in [one, *many.split(",")] if name.strip()}


def test_the_engine_of_the_page_reads_a_page() -> None:
    (block,) = [block for block in blocks("python") if "class Example" in block.text]
    names: dict[str, type] = {}
    exec(compile(block.text, block.place, "exec"), names)
    engine = names["Example"]()
    assert next(engine.pages("red fox", 10, "public-domain")).endswith(
        "q=red+fox&start=0&rights=pd"
    )
    (found,) = engine.results(b'{"images": [{"url": "https://e.org/a.jpg", "title": "a"}, {}]}')
    assert (found.url, found.title) == ("https://e.org/a.jpg", "a")
    with pytest.raises(names["Unreadable"]):  # type: ignore[call-overload]
        engine.results(b"{}")


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_parameters_of_a_page_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(block.text)
    read_params(tmp_path / "params.yaml")


def test_readmes_parameters_go_into_the_file_that_dvc_reads(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    shutil.copy(ROOT / "params.yaml", folder)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    (block,) = [block for block in blocks("yaml") if block.page.name == "README.md"]
    for section, own in yaml.safe_load(block.text).items():
        assert set(own) <= set(values[section])
        values[section] |= own
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    read_params(folder / "params.yaml")
    changed = run(folder, "dvc", "status", "crawl", "dedup", "teacher").stdout
    for section in ("crawl", "dedup", "teacher"):
        assert re.search(rf"{section}:\n\s+changed deps:(.*\n)*?\s+params.yaml", changed), changed


def test_presets_of_the_pages_are_written_and_the_own_file_is_kept(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ran / "params.yaml", tmp_path)
    own = (tmp_path / "params.yaml").read_text()
    for command in ("pipeline preset cifar10-local", "pipeline preset demo"):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(app, said(command)[1:])
        assert done.exit_code == 0, done.output
    assert read_params(tmp_path / "params.yaml") == read_params(ROOT / "params.yaml")
    assert own in [path.read_text() for path in tmp_path.iterdir()]


def said(command: str) -> list[str]:
    """The words of a command that a page has, and that a test of its own runs."""
    assert HOW[command] == SCENARIO
    return command.split()


def test_results_of_another_machine_are_taken_by_commit(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    run(folder, *said("python -m stages distill"))
    run(folder, *said("dvc commit -f distill"))
    assert stages_run(run(folder, "dvc", "repro")) == []  # the same student: nothing to do


def test_a_remote_brings_results_to_another_machine(project: Path, tmp_path: Path) -> None:
    folder, other = fresh_copy(project, tmp_path), tmp_path / "other"
    *add, _ = said("dvc remote add --default storage /mnt/storage")
    run(folder, *add, str(tmp_path / "storage"))
    run(folder, *said("dvc push --run-cache"))
    run(folder, "git", "commit", "-qam", "a remote")
    run(tmp_path, "git", "clone", "-q", str(folder), str(other))
    done = run(other, *said("dvc repro --pull --allow-missing distill"))
    assert stages_run(done) == []
    run(other, *said("dvc pull --run-cache"))
    ours, theirs = (one / "models/student/model.safetensors" for one in (folder, other))
    assert theirs.read_bytes() == ours.read_bytes()
