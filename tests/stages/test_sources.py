"""The engine of a crawl, and the name that we go by."""

import re

import pytest

from pipeline.classes import load_classes
from pipeline.console import Console
from pipeline.crawl.guard import PRODUCT
from pipeline.params import Crawl
from pipeline.version import __version__
from stages.sources import engine_for, user_agent


def test_we_go_by_the_usual_form_of_a_robots_name() -> None:
    assert user_agent("") == f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__})"
    found = re.fullmatch(
        r"Mozilla/5\.0 \(compatible; (\S+)/\S+; \+(.+)\)", user_agent("https://example.org/me")
    )
    assert found is not None
    assert found.groups() == ("kd3-pipeline", "https://example.org/me")


@pytest.mark.parametrize(("contact", "gap"), [("", 6.0), ("me@example.org", 1.0)])
def test_commons_is_asked_ten_times_a_minute_by_who_names_no_contact(
    contact: str, gap: float, capsys: pytest.CaptureFixture[str]
) -> None:
    section = Crawl(engine="commons", contact=contact)
    with engine_for(section, load_classes("cat,dog"), Console()) as (engine, _):
        assert engine.page_gap == gap
    assert ("crawl.contact" in capsys.readouterr().err) == (not contact)
