"""Counts of the signals that a crawl saw, for reports/crawl.json."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.crawl.optouts.signals import AI_AGENTS, ALL_KINDS, kind_of
from kd3_pipeline.manifest import OPTED_OUT, in_blocks

KINDS = {*ALL_KINDS, AI_AGENTS}


def signal_counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """Candidates of a manifest with a signal of each kind, and those refused for one."""
    seen: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for signals in in_blocks(table["signals"]):
        if signals:
            seen.update({kind_of(line) for line in signals.splitlines()} & KINDS)
    for detail in in_blocks(table["detail"].filter(pc.equal(table["outcome"], OPTED_OUT))):
        refused[kind_of(detail or "")] += 1
    return {"seen": dict(sorted(seen.items())), "refused": dict(sorted(refused.items()))}
