"""Teachers that are programs, through the stages that ask them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import load_model
from tests.stages.workspace import run

SECTIONS = """
teacher: {{source: file, path: {path}, input_size: 32, class_names: [{names}]}}
embed: {{}}
distill: {{objective: {objective}, epochs: 2, batch_size: 32, lr: 0.1, held_out: 0.1, cutoff: 0.1,
  teacher_views: {views}}}
evaluate: {{test_set: demo, images: 60, latency: false}}
export: {{formats: [onnx]}}
"""


class Hidden(torch.nn.Module):
    """A network of which a graph shows no last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = build("resnet8", len(CLASS_NAMES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images) * 3.0


def written(kind: str, folder: Path) -> str:
    model, example = Hidden().eval(), torch.zeros(2, 3, 32, 32)
    if kind == "onnx":
        names = {"input_names": ["images"], "dynamic_axes": {"images": [0]}}
        torch.onnx.export(model, (example,), folder / "teacher.onnx", dynamo=False, **names)
        return "teacher.onnx"
    torch.jit.trace(model, example).save(str(folder / "teacher.pt"))
    return "teacher.pt"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "objective", "views"), [("onnx", "kd3", 0), ("script", "kd", 2)])
def test_a_program_teaches_through_all_stages(
    project: Path, tmp_path: Path, kind: str, objective: str, views: int
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    sections = SECTIONS.format(
        path=written(kind, folder), names=", ".join(CLASS_NAMES), objective=objective, views=views
    )
    lines = (folder / "params.yaml").read_text().splitlines()
    kept = [line for line in lines if line.startswith(("crawl:", "dedup:", "report:"))]
    (folder / "params.yaml").write_text("\n".join(kept) + sections)
    said = {}
    for stage in ("teacher", "embed", "distill", "evaluate", "export"):
        said[stage] = run(folder, "pipeline", stage).stderr
    assert "only logits are seen" in said["embed"]
    student = json.loads((folder / "models/student/config.json").read_text())
    teacher, _ = load_model(folder / "models/teacher", torch.device("cpu"))
    assert teacher.cut == "logits"
    if objective == "kd3":
        assert "objective kd, in place of kd3" in said["distill"]
        assert student["source"].startswith("kd, in place of kd3")
        assert "asked at every step" in said["distill"]
    else:
        assert student["source"].startswith("kd from")
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert metrics["teacher"]["macs"] is None
    assert metrics["teacher"]["parameters"] > 70_000
    assert (folder / "models/export/model.onnx").exists()
    assert not list((folder / ".cache/distill").glob("*"))
