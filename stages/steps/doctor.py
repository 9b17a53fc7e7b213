"""Step of `pipeline doctor`: checks of the environment."""

import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd3_pipeline.console import Console
from kd3_pipeline.errors import ExternalError, PipelineError, UserError
from kd3_pipeline.extras import install
from kd3_pipeline.paramfile import read_params
from kd3_stages import paths
from kd3_stages.steps.consent import consented

if TYPE_CHECKING:
    from kd3_stages.steps.teacher_check import Finding

LIBRARIES = {"torch": "torch", "faiss": "faiss-cpu", "dvc": "dvc", "icrawler": "icrawler==0.6.10"}
LEAST_SPACE = 1.0  # GB free; a crawl of 40,000 images and its models need about as much


def check_environment(console: Console) -> int:
    """Checks what is installed and what is here; the exit code that it asks for."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        *((name, lambda name=name: _version(name)) for name in LIBRARIES),
        ("device", _device),
        ("disk", _disk),
        ("git", lambda: _tool(["git", "rev-parse", "--show-toplevel"], "git init")),
        ("dvc project", lambda: _tool([sys.executable, "-m", "dvc", "root"], "dvc init")),
        (str(paths.PARAMS), _params),
    ]
    rows = [(name, *_outcome(check)) for name, check in checks]
    lines = [f"{'wrong' if code else 'ok':5}  {name}: {text}" for name, text, code in rows]
    found: dict[str, Any] = {name: {"ok": not code, "text": text} for name, text, code in rows}
    worst = max(code for _, _, code in rows)
    if found["torch"]["ok"] and found[str(paths.PARAMS)]["ok"]:
        teacher = _teacher(console)
        lines += [one.line for one in teacher]
        found |= {one.name: one.as_json for one in teacher}
        worst = max(worst, *(one.code for one in teacher))
    console.result("\n".join(lines), {"checks": found})
    return worst


def _teacher(console: Console) -> list["Finding"]:
    """Findings about the teacher, as far as it is here; code of others runs only by consent."""
    from kd3_stages.steps.teacher_check import QUICK, check_teacher  # imports torch: may be broken

    params = read_params(paths.PARAMS)
    consented(params)
    return check_teacher(params, None, console, fetch=False, seconds=QUICK)


def _outcome(check: Callable[[], str]) -> tuple[str, int]:
    """Text of what a check found, and the exit code that it asks for."""
    try:
        return check(), 0
    except PipelineError as error:
        return "; ".join(str(error).splitlines()), error.exit_code


def _version(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(str(error), install(LIBRARIES[name])) from None
    return str(getattr(module, "__version__", None) or metadata.version(name))


def _device() -> str:
    import torch

    from kd3_pipeline.device import resolve_device

    device = resolve_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return f"{device.type} {name}".strip()


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < LEAST_SPACE:
        raise ExternalError(f"{free:.1f} GB free", f"the pipeline needs {LEAST_SPACE:g} GB")
    return f"{free:,.0f} GB free"


def _tool(command: list[str], remedy: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]} cannot be run: {error}", "install it") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(said, f"`{remedy}` makes one here")
    return done.stdout.strip()


def _params() -> str:
    read_params(paths.PARAMS)
    return "valid"
