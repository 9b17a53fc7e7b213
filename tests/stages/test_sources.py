"""The name that we go by."""

import re

from pipeline.crawl.guard import PRODUCT
from pipeline.version import __version__
from stages.sources import user_agent


def test_we_go_by_the_usual_form_of_a_robots_name() -> None:
    assert user_agent("") == f"Mozilla/5.0 (compatible; {PRODUCT}/{__version__})"
    found = re.fullmatch(
        r"Mozilla/5\.0 \(compatible; (\S+)/\S+; \+(.+)\)", user_agent("https://example.org/me")
    )
    assert found is not None
    assert found.groups() == ("kd3-pipeline", "https://example.org/me")
