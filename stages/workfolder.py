"""The project that a command works on: the folder one stands in, or one above it."""

import os
from pathlib import Path

from kd3_stages.paths import DVC, PARAMS

_stood = Path()  # where the user stands, from the project's folder on


def enter_project() -> None:
    """Goes to the project's folder, if one stands somewhere below it.

    A folder of another owner is none: its parameters may run code.
    """
    global _stood
    _stood = Path()
    here = Path.cwd()
    if PARAMS.exists():
        return
    for folder in here.parents:
        if (folder / PARAMS).is_file() and (folder / DVC).is_file():
            if folder.stat().st_uid == here.stat().st_uid:
                os.chdir(folder)
                _stood = here.relative_to(folder)
            return


def given(path: str) -> str:
    """A path of the command line from the project's folder on: where one stands comes first."""
    from_here = _stood / path
    return str(from_here) if from_here.exists() else path
