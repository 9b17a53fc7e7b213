"""Wording of moments, durations and counts: for a person, and for files."""

from datetime import UTC, datetime


def clock(seconds: float, exact: bool = False) -> str:
    """A moment (seconds since 1970) as this machine's clock shows it, with the day if not today."""
    when = datetime.fromtimestamp(seconds).astimezone()
    today = when.date() == datetime.now().astimezone().date()
    return when.strftime(("" if today else "%Y-%m-%d ") + ("%H:%M:%S" if exact else "%H:%M"))


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def iso(seconds: float | None) -> str | None:
    """A moment (seconds since 1970) for a file: ISO 8601, in UTC; None where there is none."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def counted(count: int, one: str, many: str = "") -> str:
    """A number and the name of what is counted, `many` where an s does not make it a plural."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
