"""`pipeline check`, and the first moment of `dvc repro`: what would fail hours later, at once."""

import copy
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.extras import ONNX, install
from kd3_pipeline.models import build
from kd3_pipeline.params import Embed, Params
from kd3_stages import paths
from kd3_stages.steps import check as steps
from kd3_stages.steps import needs, space
from kd3_stages.steps.to_run import stages_to_run
from tests.stages.trained import SIDE
from tests.stages.trained import weights as weights
from tests.stages.workspace import copy_project, fresh_copy, invoke, run, stages_run

GOOD: dict[str, dict[str, Any]] = {
    "crawl": {"per_class": 40},
    "dedup": {},
    "teacher": {
        "source": "file",
        "path": "teacher.pt",
        "architecture": "resnet8",
        "input_size": SIDE,
        "class_names": list(CLASS_NAMES),
    },
    "embed": {},
    "distill": {"student": "resnet8", "objective": "kd"},
    "evaluate": {"test_set": "demo", "images": 200},
    "export": {"formats": ["safetensors"]},
    "report": {},
}
NOT_RUN = "class Net:\n    def __init__(self, num_classes):\n        raise RuntimeError('broken')\n"


def project(folder: Path, weights: Path, changes: dict[str, Any] | None = None) -> Path:
    """A project that is in order, but for `changes`, by key path."""
    params = copy.deepcopy(GOOD)
    for at, value in (changes or {}).items():
        section, _, key = at.partition(".")
        params[section][key] = value
    copy_project(folder, yaml.safe_dump(params))
    shutil.copy(weights, folder / "teacher.pt")
    return folder


def checks(folder: Path, code: int) -> dict[str, dict[str, Any]]:
    done = invoke(folder, "check", "--json", check=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)["checks"]


def wrong_in(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, one in found.items() if one["ok"] is False}


def test_a_project_in_order_has_no_wrong_line_and_nothing_is_written(
    tmp_path: Path, weights: Path
) -> None:
    folder = project(tmp_path / "project", weights)
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    found = checks(folder, 0)
    assert not wrong_in(found)
    assert [*found] == [
        *("params.yaml, dvc.yaml", "crawl", "packages", "room", "teacher", "cut", "classes"),
        *("input", "features", "classes asked for", "mean and std", "order of colours"),
        *("accuracy", "objective", "student", "next"),
    ]
    assert "drawn and served on this machine" in found["crawl"]["text"]
    assert found["student"]["macs"] == found["student"]["teacher_macs"]
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == before


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {  # changes, finding, what it says
    "no such weights": ({"teacher.path": "gone.pt"}, "teacher", "gone.pt"),
    "weights of another network": ({"teacher.architecture": "resnet20"}, "teacher", "resnet8"),
    "weights of other classes": ({"teacher.class_names": ["a", "b"]}, "teacher", "10"),
    "another hash": ({"teacher.sha256": "0" * 8}, "teacher", "not 00000000"),
    "code without consent": ({"teacher.architecture": "unread.py:Net"}, "teacher", "teacher.trust"),
    "code that fails": (
        {"teacher.architecture": "broken.py:Net", "teacher.trust": True},
        "teacher",
        "broken.py, line 3: RuntimeError: broken",
    ),
    "no such data": (
        {"teacher.source": "train", "teacher.path": "", "teacher.data": "labelled"},
        "teacher",
        "labelled not found",
    ),
    "no such weights of a library": (
        {
            "teacher.source": "torchvision",
            "teacher.path": "",
            "teacher.architecture": "torchvision/resnet18",
            "teacher.weights": "IMAGENET9",
        },
        "teacher",
        "known: IMAGENET1K_V1",
    ),
    "a repository that is not pinned": (
        {"teacher.source": "torch.hub", "teacher.path": "", "teacher.repository": "a/b"}
        | {"teacher.weights": "f", "teacher.trust": True},
        "teacher",
        "expected owner/name:commit",
    ),
    "no such student": ({"distill.student": "resnet9"}, "student", "resnet8"),
    "a student of another size": (
        {"distill.student": "torchvision/alexnet"},
        "student",
        "does not take images of 16 pixels",
    ),
    "no weights to start from": (
        {"distill.student_weights": "./start.pt"},
        "student",
        "start.pt",
    ),
    "a start that no library has": (
        {"distill.student_weights": "IMAGENET1K_V1"},
        "student",
        "no library has weights",
    ),
    "no such test set": ({"evaluate.test_set": "tests"}, "accuracy", "tests not found"),
    "a test set of other classes": (
        {"evaluate.test_set": "cifar10"},
        "accuracy",
        "none of the classes of cifar10",
    ),
    "no such styles": ({"evaluate.styles": "styles"}, "styles", "styles not found"),
    "styles of other classes": ({"evaluate.styles": "art"}, "styles", "art: none of its classes"),
    "no key": ({"crawl.engine": "flickr"}, "crawl", "FLICKR_API_KEY"),
    "no such licence there": (
        {"crawl.engine": "commons", "crawl.licence": "creative-commons"},
        "crawl",
        "cannot filter by",
    ),
    "no such collection": (
        {"crawl.engine": "files", "crawl.source": "web"},
        "crawl",
        "crawl.source: web not found",
    ),
    "no such blocklist": ({"crawl.blocklist": "no.txt"}, "crawl", "crawl.blocklist: no.txt"),
    "a blocklist that is a folder": ({"crawl.blocklist": "pipeline"}, "crawl", "Is a directory"),
    "a folder without a file": (
        {"crawl.engine": "files", "crawl.source": "empty"},
        "crawl",
        "empty is empty",
    ),
    "a list without addresses": (
        {"crawl.engine": "urls", "crawl.source": "list.txt"},
        "crawl",
        "list.txt has no addresses",
    ),
    "a folder for a list": ({"crawl.engine": "urls", "crawl.source": "pipeline"}, "crawl", "is no"),
    "no address of a page": (
        {"crawl.engine": "site", "crawl.source": "not an address"},
        "crawl",
        "give the address of a page",
    ),
    "no such classes": ({"crawl.classes": "cifar11"}, "crawl", "did you mean 'cifar10'"),
    "a proxy that is none": ({"crawl.proxy": "socks5://localhost:1"}, "crawl", "crawl.proxy"),
    "rounds without a teacher": ({"crawl.rounds": 2}, "crawl.rounds", "`dvc repro teacher`"),
    "no such device": ({"distill.device": "mps"}, "distill.device", "'mps' is not available"),
}


@pytest.mark.parametrize(("changes", "name", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_project_is_told_before_anything_is_crawled(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    name: str,
    said: str,
) -> None:
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    folder = project(tmp_path / "project", weights, changes)
    for code in ("unread.py", "broken.py"):  # consent to one is given for all of the process
        (folder / code).write_text(NOT_RUN)
    (folder / "empty").mkdir()
    (folder / "art/ink/cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "art/ink/cat/1.png")
    (folder / "list.txt").touch()
    found = checks(folder, 2)
    assert name in wrong_in(found)
    assert said in found[name]["text"]
    assert name in found["next"]["text"]


def test_a_run_ends_where_it_is_sure_to_fail_and_can_be_had_all_the_same(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    changes = {"teacher.path": "gone.pt", "crawl.engine": "flickr"}
    folder = project(tmp_path / "project", weights, changes)
    done = invoke(folder, "inputs", check=False)
    assert done.exit_code == 2
    crawl, teacher, way_out = done.stderr.splitlines()[-3:]
    assert crawl.startswith("error: crawl: ") and "FLICKR_API_KEY" in crawl
    assert teacher.startswith("error: teacher: ") and "gone.pt" in teacher
    assert "PIPELINE_CHECK=off" in way_out
    monkeypatch.setenv("PIPELINE_CHECK", "off")
    assert invoke(folder, "inputs").exit_code == 0


def test_a_package_that_is_missing_is_told_with_what_installs_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = needs.find_spec
    lacking = ("onnxscript", "timm")
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name in lacking else here(name))
    changes = {"export.formats": ["onnx"], "dedup.drop": []}
    folder = project(tmp_path / "project", weights, changes)
    said = checks(folder, 2)["packages"]["text"]
    assert said == f"export.formats: onnx needs onnxscript: {install(*ONNX)}"
    assert "timm" not in said, "nothing of it is asked for"


def test_too_little_room_is_told_and_ends_no_run(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage(10**12, 0, 2 * 10**9))
    changes = {"crawl.engine": "bing", "crawl.per_class": 1000, "crawl.contact": "a@example.org"}
    folder = project(tmp_path / "project", weights, changes)
    found = checks(folder, 3)
    assert wrong_in(found) == {"room"}
    images, pixels = 10_000 * space.WEB_IMAGE, 10_000 * SIDE**2 * 3
    assert found["room"]["needed"] == images + pixels + space.LEAST
    assert "3.0 GB for up to 10,000 images, taken as 300.0 kB each" in found["room"]["text"]
    said = invoke(folder, "inputs").stderr  # an estimate
    assert "warning: room: about 4.0 GB needed" in " ".join(said.split())
    assert "bing: up to " in found["crawl"]["text"] and "pages" in found["crawl"]["text"]


def test_refined_images_are_counted_as_pixels_whatever_the_store() -> None:
    def needed(**changes: object) -> float:
        params = Params(embed=Embed(**changes))
        return space.disk_finding(params, space.Need(10_000), {"embed"}).values["needed"]

    pixels = 10_000 * Params().teacher.input_size ** 2 * 3
    assert needed(refine=8) == needed() + pixels
    assert needed(refine=8, store="jpeg") == needed(store="jpeg") + pixels
    assert needed(refine=8, crops=3) == needed() + 5 * pixels


def test_the_room_for_files_counts_rows_of_tables_and_members_of_archives(tmp_path: Path) -> None:
    picture = pa.array([b"x" * 100] * 40)
    pq.write_table(pa.table({"image": picture, "label": [0] * 40}), tmp_path / "all.parquet")
    size = (tmp_path / "all.parquet").stat().st_size
    alone = space.Need.of_files(tmp_path / "all.parquet", 0)
    assert (alone.images, alone.each, alone.guessed) == (40, size / 40, False)
    pq.write_table(pa.table({"url": ["a"] * 9}), tmp_path / "about.parquet")
    (tmp_path / "one.jpg").write_bytes(b"y" * 300)
    assert space.Need.of_files(tmp_path, 0) == space.Need(41, (size + 300) / 41)
    assert space.Need.of_files(tmp_path, 7).images == 7
    (tmp_path / "more.tar").write_bytes(b"z" * 3 * space.WEB_IMAGE)
    packed = space.Need.of_files(tmp_path, 0)
    assert (packed.images, packed.guessed) == (44, True)


def test_a_student_that_costs_more_is_loud(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, {"distill.student": "resnet8x4"})
    student = checks(folder, 0)["student"]
    assert student["warning"] and student["macs"] > student["teacher_macs"] > 0
    share = f"({student['macs'] / student['teacher_macs']:.0%} of the teacher's)"
    assert share in student["text"] and "costs more than the teacher" in student["text"]
    assert student["seconds"] > 0 and f"for {student['batch']} images" in student["text"]
    assert "warning: student: resnet8x4" in " ".join(invoke(folder, "inputs").stderr.split())


def test_a_network_for_small_images_is_named_as_what_makes_a_student_dear(
    tmp_path: Path, weights: Path
) -> None:
    changes = {
        "teacher.source": "torchvision",
        "teacher.path": "",
        "teacher.architecture": "torchvision/mobilenet_v3_small",
        "teacher.weights": "IMAGENET1K_V1",
        "teacher.class_names": [],
        "teacher.input_size": 96,
        "distill.student": "resnet20",
        "evaluate.test_set": "demo",
    }
    folder = project(tmp_path / "project", weights, changes)
    found = checks(folder, 2)
    assert found["teacher"]["ok"] is None and "not here yet" in found["teacher"]["text"]
    assert found["classes"]["names"][:2] == ["tench", "goldfish"]  # torchvision knows them
    assert found["classes asked for"]["warning"]
    assert "none of the classes of demo" in found["accuracy"]["text"]
    assert "'resnet20' is made for images of 32 pixels" in found["student"]["text"]


def test_classes_that_the_teacher_does_not_know_are_loud(tmp_path: Path, weights: Path) -> None:
    changes = {"crawl.classes": ["cat", "dog"], "crawl.per_class": 100}
    found = checks(project(tmp_path / "project", weights, changes), 0)
    assert "bing: up to 12 pages" in found["crawl"]["text"]
    assert found["classes asked for"]["warning"]
    assert found["classes asked for"]["unknown"] == ["cat", "dog"]


def test_some_classes_in_common_are_counted(tmp_path: Path, weights: Path) -> None:
    changes = {"crawl.classes": ["Circle", "star", "dog"], "crawl.per_class": 100}
    found = checks(project(tmp_path / "project", weights, changes), 0)
    one = found["classes asked for"]
    assert one["ok"] is None and "warning" not in one
    assert one["text"].startswith("2 of the teacher's 10; 8 of the teacher's are not: square")
    assert one["unknown"] == ["dog"]


def test_a_teacher_that_guesses_ends_a_run_before_it_begins(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights)
    torch.manual_seed(1)
    torch.save(build("resnet8", 10).state_dict(), folder / "teacher.pt")
    found = checks(folder, 2)
    assert "no better than guessing" in found["accuracy"]["text"]
    assert "no better than guessing" in invoke(folder, "inputs", check=False).stderr


def test_a_measured_doubt_is_loud_and_ends_no_run(tmp_path: Path, weights: Path) -> None:
    changes = {"teacher.mean": [0.3, 0.3, 0.3]}
    folder = project(tmp_path / "project", weights, changes)
    found = checks(folder, 2)
    assert found["mean and std"]["ok"] is False
    said = " ".join(invoke(folder, "inputs").stderr.split())
    assert "warning: mean and std: " in said


def test_a_test_set_of_ones_own_is_matched_with_a_teacher_that_is_not_here(
    tmp_path: Path, weights: Path
) -> None:
    changes = {"teacher.source": "train", "teacher.path": "", "teacher.data": "images"}
    changes |= {"evaluate.test_set": "images", "teacher.class_names": []}
    folder = project(tmp_path / "project", weights, changes)
    for name, pixels in zip(("cat", "dog"), original_images("test", 2, SIDE)[0], strict=True):
        (folder / "images" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "images" / name / "1.png")
    found = checks(folder, 0)
    assert found["classes"]["names"] == ["cat", "dog"]
    assert found["test set"]["ok"] and found["test set"]["images"] == 2
    assert found["classes asked for"]["warning"]


def test_a_dvc_yaml_of_another_version_is_told(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights)
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(
        text.replace("      - data/embed\n      - models/teacher\n", "", 1)
    )
    one = checks(folder, 0)["params.yaml, dvc.yaml"]
    assert one["warning"] and "dvc.yaml has distill otherwise than this version" in one["text"]
    assert "`pipeline init --renew .`" in one["text"]
    (folder / "dvc.yaml").unlink()
    assert "dvc.yaml not found" in checks(folder, 2)["dvc.yaml"]["text"]


def test_what_was_found_of_the_networks_is_remembered_until_something_changes(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "project", weights, {"distill.student": "resnet8x4"})
    done = invoke(folder, "inputs")
    assert "inputs: 1 input that params.yaml names → data/inputs" in done.stdout
    first = done.stderr
    looked: list[int] = []
    monkeypatch.setattr(steps, "network_findings", lambda *_: looked.append(1) or [])
    again = invoke(folder, "inputs").stderr
    assert not looked
    assert "warning: student" in first and "warning: student" in again  # told again all the same
    (folder / "teacher.pt").write_bytes(b"others")
    invoke(folder, "inputs")
    assert looked == [1]


def test_what_is_done_needs_nothing_any_more(
    project_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone with its outputs has neither the teacher's data nor a key."""
    monkeypatch.chdir(project_run)
    invoke(project_run, "inputs", "--quiet")
    assert stages_to_run() == set()
    monkeypatch.setattr(steps, "light_findings", lambda *_: pytest.fail("nothing will run"))
    invoke(project_run, "inputs", "--quiet")
    text = paths.PARAMS.read_text()
    paths.PARAMS.write_text(text.replace("report: {thumbnails: 4}", "report: {thumbnails: 5}"))
    assert stages_to_run() == {"report"}
    paths.PARAMS.write_text(text.replace("radius: 4", "radius: 5"))
    assert stages_to_run() == {"dedup", "embed", "distill", "evaluate", "export", "report"}


@pytest.mark.slow
def test_after_a_commit_to_dvc_all_that_reads_it_will_run(
    project_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pipeline forget` and `pipeline import` leave it."""
    monkeypatch.chdir(project_run)
    invoke(project_run, "inputs", "--quiet")
    with Path("models/student/config.json").open("a") as file:
        file.write(" ")
    run(project_run, "dvc", "commit", "--force", "distill")
    assert stages_to_run() == {"evaluate", "export", "report"}


@pytest.fixture
def project_run(project: Path, tmp_path: Path) -> Path:
    """The project that went through the pipeline, as `tests/stages/conftest.py` has it."""
    return fresh_copy(project, tmp_path)


def test_weights_that_are_elsewhere_and_known_end_no_run(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "project", weights)
    invoke(folder, "inputs", "--quiet")  # notes them in inputs.lock
    (folder / "teacher.pt").unlink()
    invoke(folder, "inputs", "--quiet")
    (folder / "inputs.lock").unlink()
    assert invoke(folder, "inputs", check=False).exit_code == 2


@pytest.mark.slow
def test_dvc_repro_stops_before_the_crawl(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, {"evaluate.test_set": "gone"})
    run(folder, "git", "init", "-q")
    done = run(folder, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert stages_run(done) == ["inputs"]
    assert "error: accuracy: gone not found: expected labelled images" in done.stderr
    assert not (folder / "data/crawl").exists() and not (folder / ".cache/crawl").exists()
