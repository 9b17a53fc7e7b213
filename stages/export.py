"""`pipeline export`: the student as files that stand alone, checked, with a model card."""

from importlib.util import find_spec

from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import ONNX, PACKAGES, install
from kd3_stages.command import Json, Quiet, Set, start

# format -> modules that it needs, and the packages that bring them
NEEDED = {
    "onnx": (("onnx", "onnxscript", "onnxruntime"), ONNX),
    "litert": (("litert_torch", "ai_edge_litert"), PACKAGES["litert"]),
}


def export(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Write the student to ship into models/export: weights, ONNX, torch.export, model card."""
    params, console = start("export", overrides, quiet, as_json)
    for name, (modules, packages) in NEEDED.items():
        lacking = [module for module in modules if find_spec(module) is None]
        if name in params.export.formats and lacking:
            raise UserError(
                f"'{name}' in export.formats needs {', '.join(lacking)}",
                f"{install(*packages)}, or take it out of the formats",
            )
    from kd3_pipeline.export.runtimes import RUNTIMES

    for name in params.export.runtimes:
        if lacking := RUNTIMES[name].lacking:
            raise UserError(
                f"'{name}' in export.runtimes needs {', '.join(lacking)}",
                f"{install(*lacking)}, or take it out of the runtimes",
            )
    from kd3_stages.steps.export import run

    run(params, console)
