"""Errors: what the user did not get, and what to do; `stages/cli.py` prints one line each."""


class PipelineError(Exception):
    """Base of every error that is not a bug in this project.

    Attributes:
        exit_code: status of the process.
        hint: what the user can do, appended to the message; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.hint = hint


class UserError(PipelineError):
    """Wrong usage, parameters or input files: the user can mend it. Exit code 2."""

    exit_code = 2


class ExternalError(PipelineError):
    """The world did not deliver: no network, no results, no disk. Exit code 3."""

    exit_code = 3


class TrainingError(UserError):
    """These parameters do not train: the loss is not finite, or no image is selected."""


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut at 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
