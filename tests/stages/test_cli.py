"""The commands as a user meets them: exit codes, one line an error, nothing heavy for help."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from PIL import Image

from kd3_pipeline.errors import UserError
from kd3_pipeline.presets import preset_names
from kd3_pipeline.version import __version__
from kd3_stages.cli import with_exit_codes
from kd3_stages.completion import keys, presets
from tests.stages.workspace import ROOT, copy_project, environment, fresh_copy, invoke, run

HEAVY = {"torch", "faiss", "icrawler", "imagehash", "dvc", "PIL", "numpy", "aiohttp", "ray"}
NO_NETWORK = """
import socket

def nothing(*_, **__):
    raise socket.gaierror(-3, "Temporary failure in name resolution")

socket.getaddrinfo = nothing
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project", "")


def test_help_loads_nothing_heavy() -> None:
    code = "import kd3_stages.cli, sys; print(*sys.modules)"
    done = run(ROOT, sys.executable, "-c", code)
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}


def test_every_command_has_help(folder: Path) -> None:
    stages = ("crawl", "dedup", "teacher", "embed", "distill", "evaluate", "export", "report")
    for command in stages:
        text = invoke(folder, command, "--help").stdout
        assert "--set" in text
        assert "--json" in text


def test_the_list_of_commands_cuts_no_sentence_short(folder: Path) -> None:
    text = invoke(folder, "--help").stdout
    assert "..." not in text.split("Commands:")[1]
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(text.split()).count("DVC's folder, .gitignore") == 1


def test_a_crawl_without_a_network_says_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    settings = environment(folder) | {"PYTHONPATH": f"{tmp_path}:{folder}"}
    done = subprocess.run(
        [sys.executable, "-m", "kd3_stages", "crawl", "--classes", "cifar10"],
        cwd=folder,
        env=settings,
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    forecast, error = done.stderr.splitlines()
    assert "pages of results" in forecast
    assert error.startswith("error: bing: ")
    assert "www.bing.com" in error
    assert "network" in error
    assert not (folder / "data").exists()


def test_a_misspelt_parameter_stops_every_stage_with_one_line(folder: Path) -> None:
    (folder / "params.yaml").write_text("crawl: {}\n\ndistill: {epohcs: 3}\n")
    for stage in ("crawl", "distill"):
        done = invoke(folder, stage, check=False)
        assert done.exit_code == 2
        assert done.stderr == (
            "error: params.yaml:3: distill.epohcs: unknown key 'epohcs'; did you mean 'epochs'?\n"
        )
    assert not (folder / "data").exists()


def test_wrong_usage_exits_with_2(folder: Path) -> None:
    for command in (
        ("crawl", "--nonsense"),
        ("nonsense",),
        ("crawl", "--set", "crawl.per_class"),
        ("crawl", "--classes", "cifar11"),
        ("crawl", "--engine", "altavista"),
        ("preset", "nonsense"),
        ("neighbours", "nothing.jpg"),
        ("distill",),
    ):
        done = invoke(folder, *command, check=False)
        assert done.exit_code == 2, command
        assert "Traceback" not in done.stderr


def test_a_result_is_one_json_object_on_request(project: Path) -> None:
    done = invoke(project, "evaluate", "--json", "--quiet")
    assert json.loads(done.stdout)["test_images"] == 60
    assert "note: " not in done.stderr and "evaluate:" not in done.stderr
    done = invoke(project, "dedup", "--json", "--quiet")
    assert json.loads(done.stdout)["images"]
    assert done.stderr == ""


def test_neighbours_of_an_image_begin_with_itself(project: Path) -> None:
    import pyarrow.parquet as pq

    first = pq.read_table(project / "data/embed/images.parquet")["id"][0].as_py()
    done = invoke(project, "neighbours", first[:20], "--k", "3", "--json")
    rows = json.loads(done.stdout)["neighbours"]
    assert len(rows) == 3
    assert rows[0]["id"] == first
    assert rows[0]["cosine"] > 0.999
    assert rows[0]["url"].startswith("http://host")


def test_a_preset_keeps_parameters_that_were_edited(folder: Path) -> None:
    (folder / "params.yaml").write_text("distill: {epochs: 7}\n")
    done = invoke(folder, "preset", "quick")
    assert done.stderr == "note: your params.yaml is kept as params.previous.yaml\n"
    assert "preset 'quick'" in done.stdout
    assert (folder / "params.previous.yaml").read_text() == "distill: {epochs: 7}\n"
    assert invoke(folder, "preset", "demo").stderr == ""
    assert (folder / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    listed = invoke(folder, "preset").stdout.splitlines()
    assert [line.split()[0] for line in listed] == preset_names()
    assert all(len(line.split()) > 4 for line in listed)


def test_inputs_outside_the_project_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CHECK", "off")  # which would say that these are no weights
    (folder / "params.yaml").write_text("teacher: {source: file, path: own.pt}\n")
    (folder / "own.pt").write_bytes(b"weights")
    done = invoke(folder, "inputs")
    assert done.stdout.startswith("teacher.path: own.pt, 1 file, 0.0 MB\n")


@pytest.mark.slow
def test_an_interrupted_crawl_exits_with_130_and_goes_on(folder: Path, tmp_path: Path) -> None:
    params = "crawl: {per_class: 60}\n"
    (folder / "params.yaml").write_text(params)
    command = [sys.executable, "-m", "kd3_stages", "crawl", "--quiet"]
    journal = folder / ".cache/crawl/journal.jsonl"
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stderr=subprocess.PIPE)
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 10_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    assert not (folder / "data").exists()
    before = journal.read_text().splitlines()
    run(folder, "pipeline", "crawl")
    after = journal.read_text().splitlines()
    assert after[: len(before)] == before
    good = [record["url"] for record in map(json.loads, after) if record["outcome"] == "ok"]
    assert len(good) == len(set(good)), "an image was fetched twice"
    undisturbed = copy_project(tmp_path / "undisturbed", params)
    run(undisturbed, "pipeline", "crawl")
    for name in ("manifest.parquet", "images-00000.parquet"):
        one, other = (path / "data/crawl" / name for path in (folder, undisturbed))
        assert one.read_bytes() == other.read_bytes(), name


def test_the_demos_web_stops_on_request(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kd3_stages", "serve-demo", "--port", "0"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_an_error_that_quotes_control_characters_does_not_send_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise UserError("no output 'a\x1b[2Jb\x9b'", "it has c\r")

    with pytest.raises(typer.Exit):
        with_exit_codes(fail)()
    assert capsys.readouterr().err == "error: no output 'a[2Jb': it has c\n"


def test_the_version_is_told(folder: Path) -> None:
    assert invoke(folder, "--version").stdout == f"kd3-pipeline {__version__}\n"


def test_a_value_of_a_section_that_is_not_read_is_refused(folder: Path) -> None:
    done = invoke(folder, "crawl", "--set", "distill.lr=9", check=False)
    assert done.exit_code == 2
    assert "nothing here reads distill.lr" in done.stderr
    assert "`pipeline distill`" in done.stderr
    assert "epohcs" in invoke(folder, "embed", "-S", "embed.epohcs=9", check=False).stderr
    done = invoke(folder, "check", "-S", "distill.lr=9", check=False)  # which reads all of them
    assert "nothing here reads" not in done.stderr
    done = invoke(folder, "embed", "-S", "teacher.trust=true", check=False)  # consent counts
    assert "nothing here reads" not in done.stderr


@pytest.mark.parametrize(
    "command, change",
    [
        ("dedup", "crawl.per_class=3"),
        ("dedup", "evaluate.latency=false"),
        ("crawl", "teacher.path=other.pt"),
        ("distill", "embed.size=64"),
        ("export", "embed.coverage=false"),
    ],
)
def test_a_value_that_is_not_read_of_a_section_that_is_in_part_is_refused(
    folder: Path, command: str, change: str
) -> None:
    done = invoke(folder, command, "--set", change, check=False)
    assert done.exit_code == 2
    assert f"nothing here reads {change.partition('=')[0]}, only {command}" in done.stderr


def test_an_outcome_that_does_not_exist_cannot_be_retried(folder: Path) -> None:
    done = invoke(folder, "crawl", "--retry-failed", "bogus", check=False)
    assert done.exit_code == 2
    assert "'bogus' is no outcome" in done.stderr
    done = invoke(folder, "crawl", "--retry-failed", ",", check=False)
    assert (done.exit_code, "names no outcome" in done.stderr) == (2, True)


def test_commands_work_below_the_projects_folder(project: Path, tmp_path: Path) -> None:
    folder = fresh_copy(project, tmp_path)
    below = folder / "my/pictures"
    below.mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(below / "red.png")
    shown = json.loads(invoke(below, "predict", "red.png", "--json").stdout)
    assert [one["file"] for one in shown["images"]] == ["my/pictures/red.png"]
    assert invoke(below, "predict", ".", "--json").stdout.count('"file"') == 1
    assert "inputs:" in invoke(below, "inputs").stdout
    assert not (below / "data").exists()
    done = invoke(tmp_path, "inputs", check=False)  # above it, there is none
    assert (done.exit_code, "params.yaml not found" in done.stderr) == (2, True)


def test_a_folder_without_images_is_told(project: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = invoke(project, "predict", str(tmp_path / "nothing"), check=False)
    assert (done.exit_code, "no image in" in done.stderr) == (2, True)


def test_shells_complete_presets_and_keys() -> None:
    assert [name for name, _ in presets("cifar10-")] == ["cifar10-gpu", "cifar10-local"]
    assert all(title for _, title in presets(""))
    found = dict(keys("distill.l"))
    assert {"distill.lr=", "distill.label_smoothing="} & found.keys()
    assert all(name.startswith("distill.l") for name in found)


def test_help_and_errors_are_printed_in_any_locale(folder: Path) -> None:
    narrow = environment(folder) | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (["preset", "--help"], ["embed", "-S", "embed.x=ä…"], ["preset"]):
        command = [sys.executable, "-m", "kd3_stages", *arguments]
        done = subprocess.run(command, cwd=folder, env=narrow, capture_output=True, timeout=60)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (2 if "-S" in arguments else 0)


def test_repro_ends_with_the_code_of_the_stage_that_failed(stub: Path, tmp_path: Path) -> None:
    folder = fresh_copy(stub, tmp_path)
    (folder / "web/1.jpg").write_bytes(b"no image")  # so that the real crawl ends with 3
    for quiet in ((), ("--quiet",)):
        done = run(folder, "pipeline", "repro", *quiet, check=False)
        assert done.returncode == 3, done.stdout + done.stderr
    assert run(folder, "pipeline", "repro", "nothing", check=False).returncode == 2


@pytest.mark.parametrize("image", ["", "  "])
def test_a_trace_of_nothing_is_refused(folder: Path, image: str) -> None:
    done = invoke(folder, "trace", image, check=False)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and line.startswith("error: no image is named: give an id")
