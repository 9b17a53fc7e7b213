"""Size of an archive once it is unpacked: what is from outside may be made to fill the memory."""

import zipfile
from pathlib import Path

from kd3_pipeline.errors import UserError

TIMES = 20  # torch packs nothing, and what others pack of weights gets hardly smaller
SMALL = 2**26  # bytes that any archive may have


def check_unpacked(archive: zipfile.ZipFile, path: Path, key: str) -> None:
    """
    Args:
        key: the parameter to name in errors.

    Raises:
        UserError: the archive's records are far larger than its file.
    """
    size = path.stat().st_size
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > TIMES * size + SMALL:
        raise UserError(
            f"{key}: {path} has {size / 1e6:.1f} MB and unpacks to {unpacked / 1e6:,.0f} MB",
            "weights do not pack so well: save it again by torch, if it is not made to do harm",
        )
