"""`pipeline init`: a project that DVC takes, and nothing of the user's written over."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from kd3_pipeline.params import Params
from kd3_pipeline.presets import preset_names, whole_file
from kd3_stages.code import ROOT
from tests.stages.workspace import environment, invoke, status

GIT = {name: value for name, value in environment(Path()).items() if name.startswith("GIT_")}


@pytest.fixture(autouse=True)
def committer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIT.items():
        monkeypatch.setenv(name, value)


def test_a_project_without_git_is_one_for_dvc(tmp_path: Path) -> None:
    done = invoke(tmp_path, "init", "my project", "--preset", "quick")
    assert "cd 'my project'; pipeline repro" in done.stdout
    assert "in no git repository" in done.stderr
    folder = tmp_path / "my project"
    assert (folder / "params.yaml").read_text() == whole_file("quick")
    with Repo(str(folder)) as repo:
        names = {stage.name for stage in repo.index.stages}
    assert names == {"inputs", *Params.model_fields}


@pytest.mark.parametrize("preset", preset_names())
def test_what_is_told_to_run_next_can_be_run(tmp_path: Path, preset: str) -> None:
    alone = preset in ("demo", "quick")
    said = invoke(tmp_path, "init", "new", "--preset", preset).stdout
    assert ("pipeline repro" in said, "pipeline check" in said) == (alone, not alone)
    said = invoke(tmp_path / "new", "preset", preset).stdout
    assert ("dvc repro" in said, "pipeline check" in said) == (alone, not alone)


def test_a_first_commit_has_all_files_and_leaves_nothing_to_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CHECK", "off")  # which loads the networks
    folder = tmp_path / "own"
    found = json.loads(invoke(tmp_path, "init", "own", "--git", "--json").stdout)
    assert git(folder, "status", "--porcelain") == ""
    assert sorted(git(folder, "ls-files").split()) == found["files"]
    assert "no_scm" not in (folder / ".dvc/config").read_text()
    invoke(folder, "inputs")
    assert git(folder, "status", "--porcelain") == "", "what stages write is ignored"
    assert "crawl" in status(folder)


def test_files_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pt\n/models/teacher")
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    git(tmp_path, "init", "-q")
    invoke(tmp_path, "init", ".", "--git")
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[:2] == ["*.pt", "/models/teacher"]
    assert "/data/crawl" in ignored and ignored.count("/models/teacher") == 1
    assert "teacher.pt" not in git(tmp_path, "ls-files")
    before = {path: path.read_bytes() for path in tmp_path.glob("*") if path.is_file()}
    (tmp_path / "dvc.yaml").unlink()
    done = invoke(tmp_path, "init", ".", check=False)
    assert done.exit_code == 2
    assert "params.yaml" in done.stderr and "nothing was written" in done.stderr
    assert not (tmp_path / "dvc.yaml").exists()
    assert all(path.read_bytes() == text for path, text in before.items() if path.exists())


def test_no_project_is_made_in_the_clone_of_the_software() -> None:
    for place in ("wildlife", "docs/../my wildlife"):
        done = invoke(ROOT, "init", place, "--git", check=False)
        assert done.exit_code == 2
        assert "inside the software's own folder" in done.stderr and "../" in done.stderr
        assert not (ROOT / place).exists()


def test_a_folder_with_a_repository_of_its_own_is_no_part_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd3_stages.steps.init.ROOT", tmp_path)
    assert invoke(tmp_path, "init", "new", check=False).exit_code == 2
    (tmp_path / "own").mkdir()
    subprocess.run(["git", "init", "--quiet", "own"], cwd=tmp_path, check=True)
    invoke(tmp_path, "init", "own")
    assert (tmp_path / "own/dvc.yaml").exists()


def test_a_preset_that_is_unknown_makes_no_folder(tmp_path: Path) -> None:
    done = invoke(tmp_path, "init", "new", "--preset", "dmeo", check=False)
    assert done.exit_code == 2 and "known: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_git_that_refuses_is_told_and_the_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GIT:
        monkeypatch.setenv(name, "")
    done = invoke(tmp_path, "init", "new", "--git", check=False)
    assert done.exit_code == 2
    assert "git commit: " in done.stderr and "not committed" in done.stderr
    assert (tmp_path / "new/params.yaml").exists()


def git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=folder, text=True)


@pytest.mark.parametrize("end", ["", "\n"])
def test_sections_that_are_lacking_are_added_and_told(tmp_path: Path, end: str) -> None:
    invoke(tmp_path, "init", ".")
    own = "# mine\ncrawl:\n  classes: [cat, dog]\ndistill: {epochs: 3}" + end
    (tmp_path / "params.yaml").write_text(own)
    done = invoke(tmp_path, "inputs")
    text = (tmp_path / "params.yaml").read_text()
    assert text.startswith(own.rstrip("\n") + "\ndedup: {}\n")
    assert set(yaml.safe_load(text)) == set(Params.model_fields)
    assert "lacked dedup, teacher" in done.stderr
    assert "lacked" not in invoke(tmp_path, "inputs").stderr
    assert (tmp_path / "params.yaml").read_text() == text


def test_a_file_to_which_no_section_can_be_added_is_left_alone(tmp_path: Path) -> None:
    invoke(tmp_path, "init", ".")
    (tmp_path / "params.yaml").write_text("{crawl: {per_class: 3}}\n")
    done = invoke(tmp_path, "inputs", check=False)
    assert done.exit_code == 2 and "lacks the sections dedup" in done.stderr
    assert (tmp_path / "params.yaml").read_text() == "{crawl: {per_class: 3}}\n"
    found = json.loads(invoke(tmp_path, "check", "--json", check=False).stdout)["checks"]
    assert "lacks the sections dedup" in found["dvc.yaml"]["text"]


def test_an_earlier_project_is_renewed_and_nothing_of_its_own_lost(tmp_path: Path) -> None:
    invoke(tmp_path, "init", ".", "--preset", "quick")
    new = (tmp_path / "dvc.yaml").read_text()
    own = new.replace("      - models/teacher\n", "", 1).replace(
        "plots:\n", "  mine: {cmd: echo mine}\nplots:\n", 1
    )
    (tmp_path / "dvc.yaml").write_text(own)
    (tmp_path / ".dvc/plots/curve.json").write_text("{}")
    (tmp_path / ".dvc/config").write_text("[core]\n    remote = storage\n")
    (tmp_path / ".gitignore").write_text("*.pt\n")
    (tmp_path / "params.yaml").write_text("distill: {epochs: 7}\n")
    done = invoke(tmp_path, "init", "--renew", ".", "--json")
    found = json.loads(done.stdout)
    assert found["files"] == ["dvc.yaml", ".dvc/plots/curve.json", ".gitignore"]
    assert found["own"] == ["stage mine"] and "stage mine of dvc.yaml" in done.stderr
    assert (tmp_path / "dvc.yaml").read_text() == new
    assert (tmp_path / found["kept"]["dvc.yaml"]).read_text() == own
    assert (tmp_path / found["kept"][".dvc/plots/curve.json"]).read_text() == "{}"
    assert (tmp_path / ".gitignore").read_text().startswith("*.pt\n/.venv/\n")
    assert "remote = storage" in (tmp_path / ".dvc/config").read_text()
    assert (tmp_path / "params.yaml").read_text() == "distill: {epochs: 7}\n"
    again = invoke(tmp_path, "init", "--renew", ".")
    assert "nothing to do" in again.stdout and again.stderr == ""


def test_what_is_no_project_is_not_renewed(tmp_path: Path) -> None:
    assert "params.yaml not found" in refused_to_renew(tmp_path, ".")
    assert "make generated" in refused_to_renew(tmp_path, str(ROOT))
    assert "--preset" in refused_to_renew(tmp_path, ".", "--preset", "quick")
    assert list(tmp_path.iterdir()) == []


def refused_to_renew(folder: Path, *arguments: str) -> str:
    done = invoke(folder, "init", "--renew", *arguments, check=False)
    assert done.exit_code == 2
    return done.stderr


def link_to_nothing(folder: Path) -> None:
    (folder / "params.yaml").symlink_to(folder / "gone")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (link_to_nothing, "has params.yaml already"),
        (lambda folder: (folder / ".gitignore").mkdir(), ".gitignore cannot be read: Is a dir"),
        (lambda folder: (folder / ".gitignore").symlink_to("gone"), "is a link to nothing"),
        (lambda folder: (folder / ".dvc").write_text("mine"), ".dvc/plots cannot be made"),
    ],
)
def test_a_folder_in_the_way_is_told_and_nothing_is_written(tmp_path: Path, make, said) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    make(folder)
    before = sorted(folder.iterdir())
    done = invoke(tmp_path, "init", "new", check=False)
    assert done.exit_code == 2 and said in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["a" * 300, "file", "loop"])
def test_a_place_where_no_folder_can_be_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    done = invoke(tmp_path, "init", name, check=False)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_gitignore_keeps_its_bytes_and_its_link(tmp_path: Path) -> None:
    own = b"*.o\r\n# caf\xe9"
    (tmp_path / "shared").write_bytes(own)
    (tmp_path / ".gitignore").symlink_to("shared")
    invoke(tmp_path, "init", ".")
    assert (tmp_path / ".gitignore").is_symlink()
    text = (tmp_path / "shared").read_bytes()
    assert text.startswith(own + b"\n/.venv/\n") and b"/data/crawl\n" in text


def test_a_folder_that_git_ignores_is_refused_for_dvc_sees_no_stages_there(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/out\n")
    done = invoke(tmp_path, "init", "out/new", check=False)
    assert done.exit_code == 2 and "is ignored by the git repository around it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_bare_repository_is_no_work_tree(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare")
    invoke(tmp_path, "init", "new")
    assert "no_scm = true" in (tmp_path / "new/.dvc/config").read_text()


def test_a_leading_dash_is_no_option_of_cd(tmp_path: Path) -> None:
    done = invoke(tmp_path, "init", "--", "-x")
    assert "next: cd ./-x; pipeline repro" in done.stdout
