"""Commands of the pages, run as they stand there."""

import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from kd3_pipeline.paramfile import read_params
from kd3_stages.cli import app
from tests.doc_commands import HOW, RUN, SCENARIO
from tests.imports import ROOT
from tests.stages.workspace import fresh_copy, inside, run


@pytest.fixture(scope="module")
def ran(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that went through the pipeline, and what commands ask the user for."""
    folder = fresh_copy(project, tmp_path_factory.mktemp("docs"))
    shard = pq.ParquetFile(next((folder / "data/crawl").glob("images-*.parquet")))
    first = shard.read_row_group(0, ["id", "image"]).slice(0, 1).to_pylist()[0]
    (folder / "IMAGE").write_bytes(first["image"]["bytes"])
    (folder / "ID").write_text(first["id"])
    (folder / "my-styles/photo/circle").mkdir(parents=True)
    (folder / "my-styles/photo/circle/one.png").write_bytes(first["image"]["bytes"])
    (folder / "my-photos").mkdir()
    (folder / "my-photos/one.png").write_bytes(first["image"]["bytes"])
    return folder


@pytest.mark.parametrize("command", [command for command, how in HOW.items() if how == RUN])
def test_a_command_runs(command: str, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    words = [(ran / word).read_text() if word == "ID" else word for word in shlex.split(command)]
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    assert done.output.strip()


def said(command: str) -> list[str]:
    """The words of a command that a page has, and that a test of its own runs."""
    assert HOW[command] == SCENARIO
    return command.split()


def test_presets_of_the_pages_are_written_and_the_own_file_is_kept(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ran / "params.yaml", tmp_path)
    own = (tmp_path / "params.yaml").read_text()
    names = ("cifar10-local", "demo")
    for command in (f"pipeline preset {name}" for name in names):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(app, said(command)[1:])
        assert done.exit_code == 0, done.output
    assert read_params(tmp_path / "params.yaml") == read_params(ROOT / "params.yaml")
    assert own in [path.read_text() for path in tmp_path.iterdir()]


def dvc(folder: Path, words: list[str]) -> None:
    """Runs a command of DVC in this process: its start takes longer than its work."""
    from dvc.cli import main

    with inside(folder):
        assert main(words[1:]) == 0, words


@pytest.mark.slow
def test_a_remote_brings_results_to_another_machine(
    stub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, other = fresh_copy(stub, tmp_path), tmp_path / "other"
    for stage in ("crawl", "distill"):
        dvc(folder, said(f"dvc commit -f {stage}"))
    *add, _ = said("dvc remote add --default storage /mnt/storage")
    dvc(folder, [*add, str(tmp_path / "storage")])
    dvc(folder, said("dvc push --run-cache"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "results")
    run(tmp_path, "git", "clone", "-q", str(folder), str(other))
    shutil.copytree(folder / "teacher", other / "teacher", dirs_exist_ok=True)  # not in git
    caplog.clear()
    dvc(other, said("dvc repro --pull --allow-missing distill"))
    ran = [text for text in caplog.messages if text.startswith("Running stage")]
    assert ran == ["Running stage 'inputs':"]
    assert not (other / "data/crawl").exists()
    dvc(other, said("dvc pull --run-cache"))
    for output in ("data/crawl", "models/student"):
        ours, theirs = (one / output / "file" for one in (folder, other))
        assert theirs.read_bytes() == ours.read_bytes()
