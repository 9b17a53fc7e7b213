"""Step of `pipeline predict`: the likeliest classes of images."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.console import Advance, Console, printable
from pipeline.errors import UserError
from pipeline.export.model import Model, open_model
from pipeline.images import ImageError, decode
from stages import paths


def run(images: list[str], model: Path, k: int, trust: bool, as_json: bool) -> None:
    """Prints the `k` likeliest classes of each image.

    Raises:
        UserError: a file is no whole image, or the model may run code and was not trusted.
    """
    if model.suffix == ".pt2" and not trust and not _is_ours(model):
        raise UserError(
            f"{model} is not as this project's export wrote it, and a .pt2 file can run code",
            "add --trust if you know who made it, or take the .onnx or .safetensors file",
        )
    console = Console(as_json=as_json)
    student = open_model(model)
    with console.progress("predict", len(images)) as advance:
        rows = [_classify(image, student, k, advance) for image in images]
    lines = [
        "  ".join(
            [row["file"], *(f"{one['confidence']:.3f} {one['name']}" for one in row["classes"])]
        )
        for row in rows
        if "classes" in row
    ]
    if lines or as_json:
        values = {"model": str(model), "images": rows}
        console.result("\n".join(map(printable, lines)), values)
    failed = [printable(f"{row['file']}: {row['error']}") for row in rows if "error" in row]
    if failed:
        raise UserError("\n".join(failed))


def _classify(image: str, student: Model, k: int, advance: Advance) -> dict[str, Any]:
    """The file with its likeliest classes, or with what is wrong with it."""
    advance(1)
    try:
        pixels = student.frame.of(decode(Path(image).read_bytes()))
    except ImageError as error:
        return {"file": image, "error": f"not a whole image: {error}"}
    except OSError as error:
        return {"file": image, "error": error.strerror or str(error)}
    (shares,) = student.confidences(pixels[None])
    best = (-shares).argsort(kind="stable")[:k].tolist()
    classes = [
        {"name": student.class_names[place], "confidence": round(shares[place], 4)}
        for place in best
    ]
    return {"file": image, "classes": classes}


def _is_ours(model: Path) -> bool:
    checks = paths.EXPORT / "checks.json"
    if not model.is_file() or not checks.is_file():
        return not model.is_file()  # that it is missing is said by who opens it
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    try:
        files = json.loads(checks.read_text("utf-8"))["files"]
        return digest in {one["sha256"] for one in files}
    except (ValueError, KeyError, TypeError):  # then nothing vouches for it
        return False
