"""Counts of the signals that a crawl saw, for reports/crawl.json."""

from collections import Counter
from typing import Any

import pyarrow as pa

from kd3_pipeline.crawl.optouts.signals import AI_AGENTS, ALL_KINDS, kind_of

KINDS = {*ALL_KINDS, AI_AGENTS}


def signal_counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """Candidates of a manifest with a signal of each kind, and those refused for one."""
    seen: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    columns: list[list[Any]] = [
        table[name].to_pylist() for name in ("outcome", "detail", "signals")
    ]
    for outcome, detail, signals in zip(*columns, strict=True):
        kinds = {kind_of(line) for line in (signals or "").splitlines()}
        seen.update(kinds & KINDS)
        if outcome == "opted_out":
            refused[kind_of(detail or "")] += 1
    return {"seen": dict(sorted(seen.items())), "refused": dict(sorted(refused.items()))}
