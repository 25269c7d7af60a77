"""A shell that runs tests in its background ignores Ctrl-C, and so would all that they start."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
