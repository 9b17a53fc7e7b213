"""The best rows of a class are kept, in bounded memory, and an address once."""

import numpy as np
import pyarrow as pa
import pytest

from kd3_pipeline.crawl.captions import ranking
from kd3_pipeline.crawl.captions.ranking import SCHEMA, Best


def rows(*some: dict) -> pa.Table:
    """Rows that differ from a plain one as told."""
    texts = {name: "" for name in SCHEMA.names if SCHEMA.field(name).type == pa.large_string()}
    plain = {"label": 0, "query": 0, "similarity": 0.3, "length": 9, "row": 0}
    plain |= {"several": False, "varied": False}
    numbered = [{"url": f"http://x.test/{row}", "row": row} for row in range(len(some))]
    whole = [plain | texts | own | one for own, one in zip(numbered, some, strict=True)]
    return pa.Table.from_pylist(whole, schema=SCHEMA)


def kept(best: Best) -> list[tuple[int, int]]:
    table = best.table()
    return list(zip(table["label"].to_pylist(), table["row"].to_pylist(), strict=True))


def test_one_class_then_own_words_then_similarity_then_the_shorter_caption_then_the_order() -> None:
    best = Best(1, 10)
    best.add(
        rows(
            {"several": True, "similarity": 0.9},
            {"similarity": -np.inf, "length": 1},
            {"similarity": 0.4},
            {"length": 5},
            {"length": 5},
            {},
            {"varied": True, "similarity": 0.8},
        )
    )
    assert [row for _, row in kept(best)] == [2, 3, 4, 5, 1, 6, 0]


def test_an_address_is_there_once_by_its_best_row() -> None:
    best = Best(2, 10)
    same = {"url": "http://x.test/same"}
    best.add(
        rows(
            same,
            {"similarity": 0.8} | same,
            {"label": 1, "similarity": 0.9},
            {"label": 1, "similarity": 0.5} | same,
            {"label": 1},
        )
    )
    assert kept(best) == [(0, 1), (1, 2), (1, 4)]
    assert best.repeated == 2


def test_a_little_at_a_time_keeps_what_all_at_once_does(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    some = [
        {
            "label": int(draws.integers(0, 3)),
            "several": bool(draws.random() < 0.2),
            "similarity": float(draws.integers(0, 9)),
            "url": f"http://x.test/{draws.integers(0, 300)}",
        }
        for _ in range(800)
    ]
    table = rows(*some)
    at_once = Best(3, 20)
    at_once.add(table)
    monkeypatch.setattr(ranking, "LEAST_PENDING", 10)
    slowly = Best(3, 20)
    for start in range(0, len(table), 7):
        slowly.add(table.slice(start, 7))
        assert len(slowly._kept) <= 3 * 20
        assert slowly._rows <= 80
    assert slowly.table().equals(at_once.table())
    assert len(slowly.table()) > 50


def test_without_rows_nothing_is_kept() -> None:
    assert kept(Best(2, 5)) == []
