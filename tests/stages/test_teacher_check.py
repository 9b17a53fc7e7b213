"""`pipeline teacher --check` as a user meets it: what the teacher is, before any crawl."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kd3_pipeline.classes import load_classes
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.params import Params, Teacher
from kd3_pipeline.teacher.inspection import Accuracy, _wilson
from kd3_stages.steps.teacher_check import _accuracy, _needed
from tests.stages.trained import MEAN, NAMES, SIDE, STD
from tests.stages.trained import weights as weights
from tests.stages.workspace import copy_project, invoke

PARAMS = """
crawl: {{per_class: 16}}
teacher:
  {{source: file, path: {path}, architecture: resnet8, input_size: 16, {more}}}
evaluate: {{test_set: {test}, images: 200}}
distill: {{student: resnet8}}
"""


def check(folder: Path, code: int, *arguments: str, command: str = "teacher") -> dict[str, dict]:
    given = ["--check", *arguments] if command == "teacher" else []
    done = invoke(folder, command, *given, "--json", check=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)["checks"]


def project(folder: Path, weights: Path, more: str = NAMES, test: str = "demo") -> Path:
    return copy_project(folder, PARAMS.format(path=weights, more=more, test=test))


def test_a_good_teacher_is_ok_in_every_line_and_nothing_is_written(
    tmp_path: Path, weights: Path
) -> None:
    folder = project(tmp_path / "project", weights)
    found = check(folder, 0)
    assert found["cut"]["cut"] == "map" and "(a)" in found["cut"]["text"]
    assert found["classes"]["names"] == list(CLASS_NAMES)
    assert found["features"] == {
        "ok": True,
        "text": "64×4×4 an image; tail: Linear 64 → 10",
        "shape": [64, 4, 4],
        "tail": ["Linear 64 → 10"],
    }
    assert found["mean and std"]["verdict"] == "fits"
    low, high = found["accuracy"]["interval"]
    assert 0.15 < low < found["accuracy"]["accuracy"] < high
    assert found["objective"]["objective"] == "kd3"
    transfer = 2 * 64 * 32 * 4**2 + 32 * 32 * 9 * 4**2  # on the last map
    assert found["student"]["macs"] == found["student"]["teacher_macs"] + transfer > transfer
    assert all(one["ok"] is not False for one in found.values())
    assert not (folder / "models").exists() and not (folder / "reports").exists()


def test_a_wrong_mean_and_std_is_exit_2_with_the_better_one(tmp_path: Path, weights: Path) -> None:
    more = f"{NAMES}, mean: [0, 0, 0], std: [1, 1, 1]"
    found = check(project(tmp_path / "project", weights, more), 2)
    assert found["mean and std"]["ok"] is False
    better = found["mean and std"]["better"]
    assert better in found["mean and std"]["text"] and better in found["accuracy"]["text"]
    assert found["accuracy"]["ok"] is False  # the labels say so too
    assert found["next"]["text"] == "set right: mean and std, accuracy"


def test_the_student_is_counted_as_it_is_shipped(tmp_path: Path, weights: Path) -> None:
    """With the module that carries its features to the teacher's, where there is one."""
    kd3 = project(tmp_path / "kd3", weights)
    kd = project(tmp_path / "kd", weights)
    params = (kd / "params.yaml").read_text().replace("student: resnet8", "objective: kd")
    (kd / "params.yaml").write_text(params)  # the student is resnet8 by default
    found, plain = check(kd3, 0)["student"], check(kd, 0)["student"]
    assert plain["macs"] == plain["teacher_macs"]
    assert plain["parameters"] == parameter_count(fuse(build("resnet8", 10)))
    transfer = 2 * 64 * 32 + 32 * 32 * 9 + 32 + 32 + 64  # with the norms in the convolutions
    assert found["parameters"] == plain["parameters"] + transfer


def test_a_student_of_another_size_is_told_with_the_way_out(tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("timm", reason="needs the extra 'teachers'")
    folder = project(tmp_path / "project", weights)
    student = "distill.student=timm/vit_tiny_patch16_224"
    said = check(folder, 2, "--set", student)["student"]["text"]
    assert "does not take images of 16 pixels" in said
    assert "distill.student_options (timm: img_size" in said
    options = "distill.student_options={img_size: 16}"
    assert check(folder, 0, "--set", student, "--set", options)["student"]["parameters"] > 5e6


def test_doctor_looks_at_what_params_yaml_says_now(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, f"{NAMES}, mean: [0, 0, 0], std: [1, 1, 1]")
    invoke(folder, "teacher", "--quiet")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("[0, 0, 0], std: [1, 1, 1]", "[0.5, 0.5, 0.5]"))
    assert check(folder, 0, command="doctor")["mean and std"]["verdict"] == "fits"
    weights_here = folder / "gone.pt"
    params.write_text(params.read_text().replace(str(weights), str(weights_here)))
    found = check(folder, 2, command="doctor")  # all that is left of it is models/teacher
    assert "models/teacher, made before teacher.mean, teacher.std" in found["teacher"]["text"]
    assert found["mean and std"]["verdict"] == "wrong"


def test_classes_that_nothing_names_are_no_good_line(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights, "seed: 0")
    found = check(folder, 2)  # the test set has names
    assert found["classes"]["ok"] is None
    assert "set teacher.class_names, in the order of its outputs" in found["classes"]["text"]
    assert "set teacher.class_names in the order" in found["accuracy"]["text"]
    assert found["next"]["text"] == "set right: accuracy"
    said = invoke(folder, "teacher").output
    assert "the classes are class 0 to class 9: nothing names them: set teacher.class_names" in said


def test_labels_tell_the_other_order_of_colours(tmp_path: Path, weights: Path) -> None:
    found = check(project(tmp_path / "project", weights, f"{NAMES}, order: bgr"), 0)
    both = found["order of colours"]
    assert both["ok"] is None and both["text"].endswith("too close to tell")  # shapes have none
    assert both["accuracy"] == found["accuracy"]["accuracy"]


def test_one_channel_has_no_order_of_colours(tmp_path: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
    torch.save(state, tmp_path / "grey.pt")
    folder = project(tmp_path / "project", tmp_path / "grey.pt", f"{NAMES}, channels: 1")
    found = check(folder, 0)
    assert found["order of colours"] == {"ok": True, "text": "one channel has none"}
    assert "1 channel (brightness)" in found["input"]["text"]


def test_doctor_leaves_out_what_takes_long_and_says_what_does_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without batch norms all of the network is passed for each normalisation."""
    source = project(tmp_path / "project", weights)
    monkeypatch.setattr("kd3_stages.steps.teacher_check._needed", lambda *_: 11.0)
    said = check(source, 0, command="doctor")["mean and std"]
    assert said["ok"] is None
    assert "about 11 s; `pipeline teacher --check` does" in said["text"]
    assert check(source, 0)["mean and std"]["verdict"] == "fits"


def test_what_a_pass_of_all_the_network_takes_is_measured_where_it_is_needed(
    weights: Path,
) -> None:
    network = build("resnet8", 10).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    config = ModelConfig({}, list(CLASS_NAMES), list(MEAN), list(STD), SIDE, "")
    pixels = original_images("test", 64, SIDE)[0]
    assert _needed(network, config, pixels) == 0  # its first batch norm is enough
    assert _needed(fuse(network), config, pixels) > 0
    assert _needed(fuse(network), config, pixels[:0]) == 0


@pytest.mark.parametrize(("images", "right", "ok"), [(20, 13, None), (200, 110, False)])
def test_few_images_condemn_no_teacher(images: int, right: int, ok: bool | None) -> None:
    """Of two classes, 65% of 20 images is what guessing gives, and what a good teacher gives."""
    low, high = _wilson(right, images)
    share, hits = right / images, np.zeros(images, bool)
    found = Accuracy(share, images, low, high, share, 2, hits)
    own = Params(teacher=Teacher(source="file", path="teacher.pt"))
    said = _accuracy(found, None, None, own)
    assert (said.ok, said.code) == (ok, 2 * (ok is False))
    assert ("too few images" in said.text) == (ok is None)


def test_a_teacher_that_was_trained_here_is_weak_and_not_wrong() -> None:
    low, high = _wilson(110, 200)
    found = Accuracy(0.55, 200, low, high, 0.55, 2, np.zeros(200, bool))
    said = _accuracy(found, None, None, Params())
    assert (said.loud, said.code) == (True, 0)
    assert "no better than guessing; it was trained here" in said.text


def test_names_in_another_order_are_told_by_the_labels(tmp_path: Path, weights: Path) -> None:
    turned = [*CLASS_NAMES[3:], *CLASS_NAMES[:3]]
    found = check(project(tmp_path / "project", weights, f"class_names: [{', '.join(turned)}]"), 2)
    assert found["accuracy"]["ok"] is False
    said = found["accuracy"]["text"]
    assert "another order" in said or "no better than guessing" in said


def test_a_test_set_of_other_classes_is_a_finding_and_the_rest_goes_on(
    tmp_path: Path, weights: Path
) -> None:
    more = "class_names: [" + ", ".join(f"k{k}" for k in range(10)) + "]"
    found = check(project(tmp_path / "project", weights, more), 2)
    assert found["accuracy"]["ok"] is False
    assert "set evaluate.test_set to images of the teacher's classes" in found["accuracy"]["text"]
    assert found["mean and std"]["ok"] is None  # no images that are known to be of its kind
    assert "no images" in found["mean and std"]["text"]
    assert found["student"]["parameters"] > 0


def test_pictures_of_ones_own_check_the_normalisation(tmp_path: Path, weights: Path) -> None:
    cifar = [one.name for one in load_classes("cifar10").classes]
    names = f"class_names: [{', '.join(cifar)}]"
    folder = project(tmp_path / "project", weights, names, test="cifar10")
    pictures = folder / "my-pictures"
    pictures.mkdir()
    for row, pixels in enumerate(original_images("test", 80, SIDE, seed=4)[0]):
        Image.fromarray(pixels).save(pictures / f"{row}.png")
    found = check(folder, 0, "--images", "my-pictures")
    assert (found["mean and std"]["verdict"], found["mean and std"]["images"]) == ("fits", 80)
    assert found["accuracy"]["ok"] is None and "cifar10" in found["accuracy"]["text"]
    said = invoke(folder, "teacher", "--check", "--images", "my-pictures").output
    assert "my-pictures: read as 80 files of a folder" in said
    done = invoke(folder, "teacher", "--images", "my-pictures", check=False)
    assert done.exit_code == 2 and "--images needs --check" in done.output


def test_a_file_that_is_no_teacher_is_one_wrong_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(b"no weights")
    found = check(project(tmp_path / "project", path), 2)
    assert found["teacher"]["ok"] is False
    assert str(path) in found["teacher"]["text"]
    # by names and architecture alone, so that nothing else is left for later
    assert found["test set"]["ok"] and found["student"]["ok"] is not False
    assert "cut" not in found and "accuracy" not in found


def test_code_of_ones_own_is_not_run_without_consent(tmp_path: Path, weights: Path) -> None:
    folder = project(tmp_path / "project", weights)
    (folder / "net.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    params = folder / "params.yaml"
    params.write_text(
        params.read_text().replace("architecture: resnet8", "architecture: net.py:Net")
    )
    for command in ("teacher", "doctor"):
        found = check(folder, 2, command=command)
        assert "trust" in found["teacher"]["text"]
    assert not (folder / "ran").exists()


def test_a_teacher_that_is_trained_here_is_said_to_be(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", "teacher: {source: train}\n")
    found = check(folder, 0)
    assert found["teacher"]["text"] == "resnet20, will be trained here on demo"
    assert found["network"]["text"] == "resnet20, 272,474 parameters"
    assert found["classes"]["names"] == list(CLASS_NAMES)
    assert found["student"]["macs"] < found["student"]["teacher_macs"]  # with random weights


def test_doctor_asks_no_network_for_a_teacher(tmp_path: Path) -> None:
    folder = copy_project(
        tmp_path / "project",
        "teacher: {source: torchvision, architecture: torchvision/resnet18, input_size: 224,"
        " weights: IMAGENET1K_V1}\n",
    )
    done = invoke(folder, "doctor", "--json", check=False)
    found = json.loads(done.stdout)["checks"]["teacher"]
    assert found["ok"] is None and "`pipeline teacher --check`" in found["text"]
