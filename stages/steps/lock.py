"""What dvc.lock says of files that a stage wrote."""

import hashlib
from typing import Any

import yaml

from kd3_stages import paths


def evaluated() -> bool:
    """Whether curves and metrics are, by dvc.lock, of one student, as after a checkout.

    Their times say nothing there. False where DVC does not know them, or not as they are.
    """
    try:
        stages = yaml.safe_load(paths.LOCK.read_text("utf-8"))["stages"]
        distilled, measured = _digests(stages["distill"]), _digests(stages["evaluate"])
        student = paths.STUDENT.as_posix()
        known = {paths.CURVES: distilled, paths.METRICS: measured}
        return distilled[student] == measured[student] and all(
            of[file.as_posix()] == hashlib.md5(file.read_bytes()).hexdigest()
            for file, of in known.items()
        )
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return False


def _digests(stage: dict[str, Any]) -> dict[str, str]:
    return {one["path"]: one["md5"] for one in [*stage["deps"], *stage["outs"]]}
