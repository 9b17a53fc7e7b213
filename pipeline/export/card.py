"""Model card of an exported student: Markdown with the metadata that the hub reads."""

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kd3_pipeline.crawlsummary import CrawlSummary
from kd3_pipeline.export.provenance import History
from kd3_pipeline.metrics import Metrics
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.templates import environment

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
PLAIN = set(",;'\"/%=? ")  # punctuation without a meaning within a line of Markdown


@dataclass(frozen=True)
class Licence:
    """Licence of the student.

    Attributes:
        identifier: the hub's; empty: none is stated.
        name, link: of `other`, which has no identifier of its own; may be empty.
    """

    identifier: str = ""
    name: str = ""
    link: str = ""


@dataclass(frozen=True)
class Facts:
    """Content of a card.

    Attributes:
        config: of the student.
        checks: content of checks.json.
        licences, hosts: images that the student learnt from, most first; "" is not known.
        harvest: the crawl's summary; None where there is none.
        made: how the crawl says that it was made; empty where it does not.
        fetched: the first and the last day of it.
        creators: who is to be credited, for what licence and how many images.
        uncredited: images whose licence asks for a credit, and whose creator is not known.
    """

    config: ModelConfig
    metrics: Metrics
    checks: dict[str, Any]
    history: History
    licences: list[tuple[str, int]]
    hosts: list[tuple[str, int]]
    licence: Licence
    harvest: CrawlSummary | None = None
    made: dict[str, Any] = field(default_factory=dict)
    fetched: tuple[str, str] = ("", "")
    creators: list[tuple[str, str, int]] = field(default_factory=list)
    uncredited: int = 0


def model_card(facts: Facts) -> str:
    """The text of README.md. Names, licences and hosts are hostile, and shown as they are."""
    card = (
        environment("kd3_pipeline.export", md=plain_markdown)
        .get_template("card.md.j2")
        .render(
            metadata=_metadata(facts),
            test_set=_test_set(facts.metrics),
            own_code=_own_code(facts.config.architecture),
            **vars(facts),
        )
    )
    return card + "\n"


def _own_code(architecture: dict[str, Any]) -> list[str]:
    """Names of networks whose code is its author's own, and not in this project."""
    names = [architecture.get("backbone"), (architecture.get("teacher") or {}).get("name")]
    return [name for name in dict.fromkeys(names) if name and ":" in name]


def plain_markdown(text: str) -> str:
    """Text as one line of Markdown that shows it: no markup, HTML or link, nothing unprintable."""
    return "".join(
        ENTITIES.get(letter)
        or (f"\\{letter}" if letter in string.punctuation and letter not in PLAIN else letter)
        for letter in _one_line(text)
    )


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _test_set(metrics: Metrics) -> str:
    return _one_line(Path(metrics.test_set).name)  # of a path only what says no place


def _metadata(facts: Facts) -> str:
    """https://huggingface.co/docs/hub/model-cards#model-card-metadata"""
    student, name = facts.metrics.student, _test_set(facts.metrics)
    measured = [{"type": "accuracy", "value": student.accuracy, "name": "Accuracy"}]
    if student.top5 is not None:
        measured.append({"type": "accuracy", "value": student.top5, "name": "Top-5 accuracy"})
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": name, "type": name},
        "metrics": measured,
    }
    told = facts.licence
    licence = {"license": told.identifier, "license_name": told.name, "license_link": told.link}
    values = {key: _one_line(text) for key, text in licence.items() if text.strip()} | {
        "library_name": "kd3-pipeline",
        "pipeline_tag": "image-classification",
        "tags": ["knowledge-distillation", "data-free-distillation", "kd3"],
        "model-index": [{"name": f"{_one_line(student.architecture)}-kd3", "results": [result]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**6)
