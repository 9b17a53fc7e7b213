"""Fixtures of the crawl's tests."""

import pytest

from kd3_pipeline.crawl import exchange, result_pages


@pytest.fixture
def short_pauses(monkeypatch):
    """A search engine's pages are tried again at once, so that nobody waits for them."""
    monkeypatch.setattr(result_pages, "RETRY_PAUSE", 0.001)


@pytest.fixture(autouse=True)
def same_time(monkeypatch):
    """All is fetched at one moment, so that crawls can be compared with each other."""
    monkeypatch.setattr(exchange, "_now", lambda address: "2026-05-04T03:02:01+00:00")
