"""The headers of W3C Trace Context, which a caller may send in any form."""

import pytest

from serve_app.tracing.context import TraceContext, parse_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), True)


def test_headers_are_read_as_they_are_written() -> None:
    """With the state of tracing systems."""
    context = CONTEXT._replace(state="vendor=1,other=2")
    headers = dict(context.headers)
    assert headers == {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1,other=2"}
    assert parse_context(headers["traceparent"], headers["tracestate"]) == context


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_other_flags_and_versions_are_read(text: str, is_sampled: bool) -> None:
    """As far as this version knows them."""
    assert parse_context(text) == CONTEXT._replace(is_sampled=is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\r\nx-evil: 1",
        f"00-{TRACE}-{SPAN}",
        "0" * 10_000,
    ],
)
def test_other_texts_are_no_context(text: str) -> None:
    """The trace then begins here."""
    assert parse_context(text) is None


@pytest.mark.parametrize("state", ["x" * 513, "a=1\nb=2", "schlüssel=1", ""])
def test_a_state_that_could_do_harm_is_dropped(state: str) -> None:
    """The trace goes on all the same."""
    assert parse_context(f"00-{TRACE}-{SPAN}-01", state) == CONTEXT
