"""`pipeline repro`: `dvc repro` with this environment's commands on the path."""

import os
import subprocess
import sys
import sysconfig

import typer


def repro(context: typer.Context) -> None:
    """Run `dvc repro ARGS` with this environment's commands on the path."""
    raise typer.Exit(dvc("repro", *context.args))


def dvc(*arguments: str) -> int:
    """Runs DVC with this environment's commands on the path; its exit status."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, env=os.environ | {"PATH": path}).returncode
