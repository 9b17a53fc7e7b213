"""What holds for all tests."""

import signal

# A shell that starts pytest in the background has it ignore Ctrl-C, and with it all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
