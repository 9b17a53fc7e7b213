"""Configuration of a teacher by the parameters, for one that is made and one that is only built."""

from typing import Any

from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.params import Teacher


def teacher_config(
    section: Teacher, names: list[str], options: dict[str, Any], source: str
) -> ModelConfig:
    """The configuration of a teacher with these class names and options of its architecture."""
    return ModelConfig(
        {"name": section.architecture, "num_classes": len(names)} | options,
        names,
        list(section.mean),
        list(section.std),
        section.input_size,
        source,
        known_input=section.source == "train",
    )
