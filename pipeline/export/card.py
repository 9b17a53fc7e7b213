"""The model card of an exported student: Markdown with the metadata that the hub reads."""

import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.errors import UserError
from pipeline.export.sources import History
from pipeline.models.checkpoint import ModelConfig

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
PLAIN = set(",;'\"/%=? ")  # punctuation without a meaning within a line of Markdown
REQUIRED = ("architecture", "accuracy", "accuracy_low", "accuracy_high", "parameters")


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        config: of the student.
        metrics: as `read_metrics` gives them.
        checks: content of checks.json.
        licences, hosts: images that the student learnt from, most first; "" is not known.
        licence: of the student, as the hub names it; may be empty.
    """

    config: ModelConfig
    metrics: dict[str, Any]
    checks: dict[str, Any]
    history: History
    licences: list[tuple[str, int]]
    hosts: list[tuple[str, int]]
    licence: str


def read_metrics(path: Path) -> dict[str, Any]:
    """What `evaluate` wrote; keys that an earlier one did not know yet are None.

    Raises:
        UserError: missing, no JSON, or without an accuracy.
    """
    if not path.is_file():
        raise UserError(f"{path} not found", "run `pipeline evaluate` or `dvc repro evaluate`")
    try:
        metrics = json.loads(path.read_text("utf-8"))
        for who in ("teacher", "student"):
            _ = [metrics[who][name] for name in REQUIRED]
        _ = metrics["test_set"] + "", metrics["test_images"] + 0
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} has no metrics: {reason}", "run `pipeline evaluate`") from None
    later = ("gap_points", "gap_low", "gap_high", "agreement", "leaked", "contaminated")
    ours = ("top5", "top5_low", "top5_high", "nll", "ece", "ece_tempered", "temperature", "macs")
    student = dict.fromkeys(ours) | metrics["student"]
    return dict.fromkeys((*later, "corruption_error")) | metrics | {"student": student}


def model_card(facts: Facts) -> str:
    """The text of README.md. Names, licences and hosts are hostile, and shown as they are."""
    environment = Environment(
        loader=PackageLoader("pipeline.export", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is no HTML: every text goes through `md`
    )
    environment.filters |= {"md": plain_markdown, "percent": lambda share: f"{share:.1%}"}
    return environment.get_template("card.md.j2").render(
        metadata=_metadata(facts), test_set=_test_set(facts.metrics), **vars(facts)
    )


def plain_markdown(text: str) -> str:
    """Text as one line of Markdown that shows it: no markup, HTML or link, nothing unprintable."""
    return "".join(
        ENTITIES.get(letter)
        or (f"\\{letter}" if letter in string.punctuation and letter not in PLAIN else letter)
        for letter in _one_line(text)
    )


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _test_set(metrics: dict[str, Any]) -> str:
    return _one_line(Path(metrics["test_set"]).name)  # of a path only what says no place


def _metadata(facts: Facts) -> str:
    """https://huggingface.co/docs/hub/model-cards#model-card-metadata"""
    student, name = facts.metrics["student"], _test_set(facts.metrics)
    measured = [{"type": "accuracy", "value": student["accuracy"], "name": "Accuracy"}]
    if student["top5"] is not None:
        measured.append({"type": "accuracy", "value": student["top5"], "name": "Top-5 accuracy"})
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": name, "type": name},
        "metrics": measured,
    }
    values = ({"license": _one_line(facts.licence)} if facts.licence.strip() else {}) | {
        "library_name": "kd3-pipeline",
        "pipeline_tag": "image-classification",
        "tags": ["knowledge-distillation", "data-free-distillation", "kd3"],
        "model-index": [{"name": f"{_one_line(student['architecture'])}-kd3", "results": [result]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**6)
