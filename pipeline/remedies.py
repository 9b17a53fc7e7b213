"""Remedies: what a person can do about images that dedup drops, by the reason of the verdict."""

from collections.abc import Iterable

from kd3_pipeline.verdicts import LEAKED, LOW_INFORMATION, NEAR_DUPLICATE, UNREADABLE

REMEDIES = {
    LOW_INFORMATION: "dedup.low_information: keep keeps what shows next to nothing",
    LEAKED: "a lower dedup.leak_ratio drops fewer that look like a test image, dedup.leaks: false"
    " none",
    UNREADABLE: "crawl again for images that can be read",
}


def remedy(reasons: Iterable[str]) -> str:
    """What to change, for each of some reasons; an unknown one is an issue in `dedup.drop`.

    Nothing for near-duplicates: the image that they repeat stays, but for one of the other reasons.
    """
    return "; ".join(
        REMEDIES.get(reason, f"`{reason}` taken out of dedup.drop keeps such images")
        for reason in reasons
        if reason != NEAR_DUPLICATE
    )


def counted(reasons: Iterable[tuple[str, int]]) -> str:
    """Counts by reason: 12 low-information, 3 leaked."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons)
