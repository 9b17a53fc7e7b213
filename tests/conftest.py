"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest

from kd3_pipeline.program import consent
from tests.browser import browser  # noqa: F401

# A shell that starts pytest in the background has it ignore Ctrl-C, and with it all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _consent_ends_with_its_test() -> Iterator[None]:
    """A command takes consent for its process, which ends with it; tests share one."""
    given = len(consent._given)
    yield
    del consent._given[given:]
