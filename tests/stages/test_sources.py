"""The engine of a crawl, and the name that we go by."""

import re

import pytest

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import Console
from kd3_pipeline.crawl.guard import PRODUCT, product_name
from kd3_pipeline.params import Crawl
from kd3_pipeline.version import __version__
from kd3_stages.sources import engine_for, user_agent


def test_we_go_by_the_usual_form_of_a_robots_name() -> None:
    assert user_agent("") == f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__})"
    found = re.fullmatch(
        r"Mozilla/5\.0 \(compatible; (\S+)/\S+; \+(.+)\)", user_agent("https://example.org/me")
    )
    assert found is not None
    assert found.groups() == ("kd3-pipeline", "https://example.org/me")


@pytest.mark.parametrize(
    ("contact", "sent"),
    [
        ("山田", "%E5%B1%B1%E7%94%B0"),
        (
            "Jürgen, https://bücher.example/?a=b&c#d",
            "J%C3%BCrgen, https://b%C3%BCcher.example/?a=b&c#d",
        ),
        ("山田\u3000x", "%E5%B1%B1%E7%94%B0%E3%80%80x"),
        ("Ann (ACME) \\", "Ann %28ACME%29 %5C"),
        ("https://example.org/%7Eme", "https://example.org/%7Eme"),
    ],
)
def test_a_contact_of_any_letters_goes_into_a_header(contact: str, sent: str) -> None:
    name = user_agent(contact)
    assert name == f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__}; +{sent})"
    assert product_name(name) == PRODUCT


def test_the_terms_of_an_engine_are_told_before_it_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    section = Crawl(engine="openverse", contact="me@example.org")
    with engine_for(section, load_classes("cat,dog"), Console(quiet=False, as_json=False)):
        assert "Openverse's terms" in capsys.readouterr().err


@pytest.mark.parametrize(("contact", "gap"), [("", 6.0), ("me@example.org", 1.0)])
def test_commons_is_asked_ten_times_a_minute_by_who_names_no_contact(
    contact: str, gap: float, capsys: pytest.CaptureFixture[str]
) -> None:
    section = Crawl(engine="commons", contact=contact)
    with engine_for(section, load_classes("cat,dog"), Console()) as (engine, _):
        assert engine.page_gap == gap
    assert ("crawl.contact" in capsys.readouterr().err) == (not contact)
