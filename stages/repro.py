"""`pipeline repro`: `dvc repro` with this environment's commands on the path."""

import os
import subprocess
import sys
import sysconfig

import typer


def repro(context: typer.Context) -> None:
    """Run `dvc repro ARGS` with this environment's commands on the path."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *context.args]
    raise typer.Exit(subprocess.run(command, env=os.environ | {"PATH": path}).returncode)
