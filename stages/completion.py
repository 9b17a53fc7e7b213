"""What a shell offers to complete: presets, and keys of params.yaml. Nothing heavy is imported."""

from kd3_pipeline.params import Params
from kd3_pipeline.presets import preset_titles


def presets(begun: str) -> list[tuple[str, str]]:
    """Presets whose names begin so, each with what it is."""
    return [(name, title) for name, title in preset_titles().items() if name.startswith(begun)]


def keys(begun: str) -> list[tuple[str, str]]:
    """Keys for --set that begin so, each with its description."""
    found = []
    for section, field in Params.model_fields.items():
        model = field.annotation
        for key, one in getattr(model, "model_fields", {}).items():
            if (name := f"{section}.{key}=").startswith(begun):
                found.append((name, one.description or ""))
    return found
