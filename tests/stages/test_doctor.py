"""`pipeline doctor` as a user meets it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crawl.hosts import Host, Route, reply, serving
from tests.stages.loopback import pipeline
from tests.stages.workspace import copy_project, environment, invoke, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project", "")


def checks(folder: Path, code: int, path: str | None = None) -> dict[str, dict[str, object]]:
    settings = environment(folder) | ({"PATH": path} if path is not None else {})
    done = subprocess.run(
        [sys.executable, "-m", "kd3_stages", "doctor", "--json"],
        cwd=folder,
        env=settings | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
        text=True,
        capture_output=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (code, "")
    return json.loads(done.stdout)["checks"]


def test_a_project_in_order_is_one_good_line_for_each_thing(folder: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = invoke(folder, "doctor")
    lines = done.stdout.splitlines()
    names = [line.removeprefix("ok").strip().partition(":")[0] for line in lines]
    assert names == [
        *("python", "torch", "faiss", "dvc", "icrawler", "device", "disk", "git", "dvc project"),
        *("params.yaml, dvc.yaml", "crawl", "packages", "room", "teacher", "network"),
        *("classes", "classes asked for", "test set", "objective", "student", "next   `dvc repro`"),
    ]
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert "0.6.10" in lines[4]


def test_what_is_wrong_is_named_with_its_remedy_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "params.yaml").write_text("crawl: {per_class: no}\ndistill: {epohcs: 3}\n")
    shutil.rmtree(folder / ".dvc")
    (folder / "icrawler.py").write_text("raise ImportError('icrawler is broken')\n")
    found = checks(folder, 2, path=os.fspath(folder))
    assert found.pop("next")["text"].startswith("set right: icrawler, dvc project")
    assert found["git"]["ok"] is None  # a project may do without
    wrong = {name: check["text"] for name, check in found.items() if check["ok"] is False}
    assert wrong.keys() == {"icrawler", "dvc project", "params.yaml"}
    assert "icrawler is broken: " in wrong["icrawler"] and "install icrawler" in wrong["icrawler"]
    assert "`dvc init`" in wrong["dvc project"]
    assert "params.yaml:1: crawl.per_class" in wrong["params.yaml"]
    assert "epohcs" in wrong["params.yaml"]


def ask(folder: Path, route: Route, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pipeline doctor --engine bing` of a Bing on loopback."""
    with serving(Host({"/images/async": route})) as hosts:
        return pipeline(folder, hosts, "doctor", "--engine", "bing", *arguments)


def test_the_demos_engine_answers(folder: Path) -> None:
    done = run(folder, "pipeline", "doctor", "--engine", "demo", "--query", "star", "--json")
    found = json.loads(done.stdout)
    assert (found["engine"], found["query"]) == ("demo", "star")
    assert (found["status"], found["results"]) == (200, 20)
    assert len(found["urls"]) == 3
    assert all(url.startswith("http://host") for url in found["urls"])
    assert found["licences"] == ["CC BY 4.0", "CC BY-SA 4.0"]
    assert not (folder / ".cache/crawl/unreadable.html").exists()


def test_a_page_that_cannot_be_read_is_kept_and_the_exit_is_3(folder: Path) -> None:
    done = ask(folder, reply(b"<h1>captcha</h1>"), "--query", "cat")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: bing: 'cat': HTTP 200, 16 bytes: it has neither results")
    assert len(done.stderr.splitlines()) == 1
    assert "another engine" in done.stderr
    kept = Path(".cache/crawl/unreadable.html")
    assert str(kept) in done.stderr
    assert (folder / kept).read_bytes() == b"<h1>captcha</h1>"


def test_an_engine_that_refuses_is_told_with_its_status(folder: Path) -> None:
    done = ask(folder, reply(b"slow down", 429))
    assert done.returncode == 3
    assert "HTTP 429, 9 bytes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "altavista"), "known: demo, bing, flickr"),
        (("--engine", "files"), "no search engine named 'files'"),
        (("--engine", "flickr"), "FLICKR_API_KEY"),
        (("--query", "cat"), "--query needs --engine"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    done = run(folder, "pipeline", "doctor", *arguments, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
