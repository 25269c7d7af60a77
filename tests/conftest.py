"""Ctrl-C ends every test, and no proxy of the environment stands before this machine."""

import os
import signal

# A shell that runs tests in its background ignores Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

for name in [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
    del os.environ[name]
