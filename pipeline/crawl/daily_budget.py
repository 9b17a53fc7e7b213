"""Requests of the last 24 hours: an engine that allows so many a day is asked for no more."""

import json
import time
from contextlib import suppress
from pathlib import Path

from kd3_pipeline.store import write_json

DAY = 24 * 3600.0  # seconds


class DailyBudget:
    """What an engine was asked in the last 24 hours, by this run and those before it.

    Args:
        name: of the engine.
        most: requests a day; 0 counts none.
    """

    def __init__(self, folder: Path, name: str, most: int) -> None:
        self.most = most
        self._path = folder / f"{name}-day.json"
        self._times: list[float] = []  # seconds since 1970, the earliest first
        if most:
            with suppress(OSError, ValueError, TypeError):
                self._times = sorted(float(one) for one in json.loads(self._path.read_text()))

    def full_until(self) -> float | None:
        """When the next request is allowed (seconds since 1970); None for now."""
        now = time.time()
        # a clock that was put back must not shut the engine out
        self._times = [one for one in self._times if now - DAY < one <= now]
        if not self.most or len(self._times) < self.most:
            return None
        return self._times[-self.most] + DAY

    def add(self) -> None:
        """Counts one request."""
        if self.most:
            self._times.append(time.time())
            write_json(self._path, self._times)
