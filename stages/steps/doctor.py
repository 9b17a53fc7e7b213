"""Step of `pipeline doctor`: checks of the environment, then those of the project."""

import importlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from kd3_pipeline.console import Console
from kd3_pipeline.errors import ExternalError, PipelineError, UserError
from kd3_pipeline.extras import install
from kd3_pipeline.paramfile import read_params
from kd3_stages import paths
from kd3_stages.steps.consent import consented
from kd3_stages.steps.findings import Finding, show, what_next, wrong

LIBRARIES = {"torch": "torch", "faiss": "faiss-cpu", "dvc": "dvc", "icrawler": "icrawler==0.6.10"}
LEAST_SPACE = 1.0  # GB free; a crawl of 40,000 images and its models need about as much


def check_environment(console: Console) -> int:
    """Checks what is installed, what is here, and what the project needs; the exit code that it
    asks for."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        *((name, lambda name=name: _version(name)) for name in LIBRARIES),
        ("device", _device),
        ("disk", _disk),
        ("dvc project", lambda: _tool([sys.executable, "-m", "dvc", "root"], "dvc init")),
    ]
    found = [_outcome(name, check) for name, check in checks]
    found.insert(-1, _git())
    broken = [one.name for one in found if one.name in LIBRARIES and not one.ok]
    found += _project(broken, console)
    return show([*found, what_next(found, "`dvc repro`")], console)


def _project(broken: list[str], console: Console) -> list[Finding]:
    """What `pipeline check` finds, as far as the libraries that it needs can be imported."""
    try:
        params = read_params(paths.PARAMS)
    except PipelineError as error:
        return [wrong(str(paths.PARAMS), error)]
    if broken:
        text = f"not looked at: {', '.join(broken)} cannot be imported"
        return [Finding(str(paths.PARAMS), f"valid; its project is {text}", None)]
    from kd3_stages.steps.check import project_findings  # needs them

    consented(params)
    return project_findings(params, console)


def _outcome(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check())
    except PipelineError as error:
        return wrong(name, error)


def _git() -> Finding:
    """Where the repository is; a project may do without."""
    try:
        return Finding("git", _tool(["git", "rev-parse", "--show-toplevel"], "git init"))
    except PipelineError as error:
        text = f"{error}; DVC works without one, but for experiments"
        return Finding("git", text, None)


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
