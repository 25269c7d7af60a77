"""A replica's reports to gateways, as bytes."""

from serve_app.dispatch.prefixes import Chain
from serve_app.dispatch.replica_state import CallEvent, CallStep, ReplicaReport
from serve_app.dispatch.reports import PackedEvent, decode_report, encode_report


def test_a_report_arrives_as_it_was_sent() -> None:
    """With the work for others, and the steps of their calls in order."""
    work = ReplicaReport(3, 1200.5, {"m": 4.0}, 2)
    blocks = (1, 2**64 - 1, 7)
    packed = Chain(blocks, b"", 0, 0).packed()
    events = [
        PackedEvent(5, CallStep.BEGAN, packed),
        PackedEvent(4, CallStep.ENDED),
        PackedEvent(6, CallStep.BEGAN),
        PackedEvent(5, CallStep.READ),
    ]
    decoded = decode_report(encode_report(work, events))
    assert decoded.work == work
    assert decoded.events == (
        CallEvent(5, CallStep.BEGAN, blocks),
        CallEvent(4, CallStep.ENDED),
        CallEvent(6, CallStep.BEGAN),
        CallEvent(5, CallStep.READ),
    )
