"""`pipeline export`: the student as files that stand alone, checked, with a model card."""

from importlib.util import find_spec

from pipeline.errors import UserError
from stages.command import Json, Quiet, Set, start

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Write the student to ship into models/export: weights, ONNX, torch.export, model card."""
    params, console = start("export", overrides, quiet, as_json)
    lacking = [name for name in PACKAGES if find_spec(name) is None]
    if "onnx" in params.export.formats and lacking:
        raise UserError(
            f"'onnx' in export.formats needs {', '.join(lacking)}",
            "install the extra: pip install 'kd3-pipeline[export]', or take it out of the formats",
        )
    from stages.steps.export import run

    run(params, console)
