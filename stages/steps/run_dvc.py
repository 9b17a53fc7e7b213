"""DVC as a part of this software: run in this process, with exit codes that are told apart."""

import logging
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kd3_pipeline.diskerrors import disk_trouble
from kd3_pipeline.errors import UserError

OWN = 250  # from here on DVC's exit codes are its own; below they are its commands'
INTERRUPTED = 252
QUIET = "PIPELINE_QUIET"  # environment variable: as the option --quiet of every command


def dvc(*arguments: str) -> int:
    """Runs DVC in this process, with this environment's commands on the path.

    Returns:
        An exit code of this project: DVC itself has 251 to 255 for whatever failed.

    Raises:
        ExternalError: DVC could not write.
    """
    from dvc.cli import main

    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    failures, logger = _Failures(logging.ERROR), logging.getLogger("dvc.cli")
    before, quiet = (logger.level, logger.propagate), os.environ.get(QUIET)
    logger.addHandler(failures)
    if {"-q", "--quiet"} & {*arguments}:
        os.environ[QUIET] = "1"  # for the stages, which DVC runs as commands
        logger.setLevel(logging.ERROR)  # it would not even make records of errors
        logger.propagate = False
    try:
        status = main(list(arguments))
    finally:
        logger.removeHandler(failures)
        logger.level, logger.propagate = before
        if quiet is None:
            os.environ.pop(QUIET, None)
    return _exit_code(status, failures.seen)


@contextmanager
def repository() -> Iterator[Any]:
    """DVC's own view of this project.

    Raises:
        UserError: DVC does not take it for one of its own.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise UserError(f"DVC: {error}", "mend that, and run it again") from None


class _Failures(logging.Handler):
    """Keeps the errors that DVC tells of."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.seen: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.seen.append(record.exc_info[1])


def _exit_code(status: int, failures: list[BaseException]) -> int:
    if status < OWN:
        return status
    if status == INTERRUPTED:
        return 130
    from dvc.exceptions import DvcException

    for error in _with_causes(failures):
        stage = re.search(r"^failed to run: .*, exited with (-?\d+)$", str(error), re.DOTALL)
        if stage:
            code = int(stage[1])
            return code if code >= 0 else 128 - code  # of a signal, as shells have it
    for error in failures:
        if trouble := disk_trouble(error):
            raise trouble
    bug = failures and not any(isinstance(error, DvcException) for error in failures)
    return 1 if bug else 2


def _with_causes(errors: Iterable[BaseException]) -> Iterator[BaseException]:
    for error in errors:
        seen: BaseException | None = error
        while seen is not None:
            yield seen
            seen = seen.__cause__ or seen.__context__
