"""What holds for all tests."""

import signal

from tests.browser import browser  # noqa: F401

# A shell that starts pytest in the background has it ignore Ctrl-C, and with it all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
