"""Outputs that are links to DVC's cache, and become files of their own.

A link shares its bytes with the cache: whoever writes over such a file, as `cp` does, changes what
the cache holds under the hash of the old one. Images and what `embed` makes of them stay links, as
they would take their room twice, and nobody edits them.
"""

import shutil
from pathlib import Path

from kd3_pipeline.store import replacing
from kd3_stages import paths

SMALL = (
    *(paths.DEDUP.parent, paths.TEACHER, paths.STUDENT, paths.SELECTION.parent),
    *(paths.MISTAKES.parent, paths.EXPORT, paths.REPORT),
)


def own_copies() -> None:
    """Makes every small output a file of its own."""
    for file in [file for output in SMALL for file in _files(output) if _shared(file)]:
        with replacing(file) as temporary:
            shutil.copyfile(file, temporary)


def _files(output: Path) -> list[Path]:
    return sorted(output.rglob("*")) if output.is_dir() else [output]


def _shared(file: Path) -> bool:
    """Whether other names have the same bytes, by a hard link or a symbolic one."""
    return file.is_file() and (file.is_symlink() or file.stat().st_nlink > 1)
