"""A thread that repeats one step."""

import threading

import pytest

from serve_app.access.repeater import Repeater


class Step:
    """Fails once, then tells that it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.has_gone_on = threading.Event()

    def refresh(self) -> None:
        self.calls += 1
        if self.calls == 1:
            raise LookupError("planted")
        self.has_gone_on.set()


def test_a_step_that_fails_is_named_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback: it may be that of keys, of a file of goals or of a store."""
    step = Step()
    repeater = Repeater(step.refresh, 0.001)
    repeater.start()
    assert step.has_gone_on.wait(10)
    repeater.stop()
    assert "failed to run Step.refresh, trying again in 0.001 s" in caplog.text
    assert "LookupError: planted" in caplog.text
