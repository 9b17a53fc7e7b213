"""Pieces of work that tell where they ran."""

import os
import signal
import time


def placed(number: int) -> tuple[int, int]:
    """The number, and the process that it was given to."""
    time.sleep(0.2)
    return number, os.getpid()


def deadly(number: int) -> int:
    """Ends the process at item 3, whichever it is."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return number
