"""Fixtures of the crawl's tests."""

import pytest

from kd3_pipeline.crawl import result_pages


@pytest.fixture
def short_pauses(monkeypatch):
    """A search engine's pages are tried again at once, so that nobody waits for them."""
    monkeypatch.setattr(result_pages, "RETRY_PAUSE", 0.001)
