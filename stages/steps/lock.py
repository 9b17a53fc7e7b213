"""What dvc.lock says of files that a stage wrote."""

import hashlib

from kd3_pipeline.errors import UserError
from kd3_stages import paths
from kd3_stages.steps.dvcfiles import hashes, mapping, read_yaml


def evaluated() -> bool:
    """Whether curves and metrics are, by dvc.lock, of one student, as after a checkout.

    Their times say nothing there. False where DVC does not know them, or not as they are.
    """
    try:
        stages = mapping(read_yaml(paths.LOCK), "stages")
        distilled, measured = mapping(stages, "distill"), mapping(stages, "evaluate")
        student = paths.STUDENT.as_posix()
        wrote = hashes(distilled, "outs") | hashes(measured, "outs")
        return (
            student in wrote
            and hashes(measured, "deps").get(student) == wrote[student]
            and all(
                wrote.get(file.as_posix()) == hashlib.md5(file.read_bytes()).hexdigest()
                for file in (paths.CURVES, paths.METRICS)
            )
        )
    except (OSError, UserError):
        return False
