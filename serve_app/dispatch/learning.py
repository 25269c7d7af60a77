"""Learns a pool's speeds and cache hits from requests that have ended.

An engine may report the time of a prefill and the number of cached tokens. Where it reports the
time alone, one of the two is inferred: the speed where little of the prompt was expected to be
cached, the cached part elsewhere.
"""

from serve_app.dispatch.rates import LearnedSpeeds, Mean
from serve_app.dispatch.replica_state import ReplicaState
from serve_app.dispatch.sent import EngineStats, SentRequest

# Where a smaller share of a prompt is known, its time shows nothing about that share.
_MIN_KNOWN_SHARE = 0.25
# Where more than this share of the known tokens was read for others meanwhile, nothing is inferred.
_EXACT_SHARE = 0.1
# Shorter times measure the network rather than the engine.
_MIN_MEASURED_S = 0.02


def learn(
    sent: SentRequest,
    stats: EngineStats,
    ended_at: float,
    queued_s: float,
    replica: ReplicaState,
    rates: LearnedSpeeds,
) -> float | None:
    """Update the speeds of a replica and of its pool from one complete answer.

    `queued_s`: its wait for a slot. Returns the cached share of the known tokens; None: unknown.
    """
    assert sent.read_at is not None
    rates.note_hold(ended_at - sent.sent_at - queued_s)
    if stats.generated and stats.decode_s:
        if expected_s := rates.speeds.token_s:
            replica.compare(stats.decode_s / stats.generated, expected_s, ended_at)
        rates.note_decode(stats.generated, stats.decode_s)
    chain = sent.prompt.chain
    if stats.prompt and chain.text_bytes and not chain.is_cut:
        # Of any other prompt the bytes of its text are not known: it may be an image.
        rates.note_prompt(chain.text_bytes, stats.prompt)
    if not sent.had_slot:
        return None
    prefill_s = stats.prefill_s or sent.read_at - sent.sent_at - queued_s
    tokens = stats.prompt or sent.tokens
    is_known = sent.known_tokens > _MIN_KNOWN_SHARE * tokens
    if stats.cached is None and is_known:
        rate = rates.speeds.prefill_tokens_per_s / replica.slowness(ended_at)
        uncached = _inferred(sent, tokens, prefill_s, rate, rates)
    else:
        uncached = tokens - (sent.cached_tokens if stats.cached is None else stats.cached)
        _note_speed(sent, uncached, prefill_s, stats, ended_at, replica, rates)
    is_exact = stats.cached is not None or sent.pending_before < _EXACT_SHARE * sent.known_tokens
    if not (is_known and is_exact):
        return None
    return min(1.0, max(0.0, (tokens - uncached) / sent.known_tokens))


def _inferred(
    sent: SentRequest, tokens: float, prefill_s: float, rate: float, rates: LearnedSpeeds
) -> float:
    """Return the tokens read in `prefill_s` at `rate`, the replica's learned speed."""
    uncached = prefill_s * rate - sent.pending_before
    unknown_tokens = tokens - sent.known_tokens
    if not sent.pending_before and 2 * uncached < unknown_tokens:
        # The engine is faster than learned so far.
        rates.note_prefill(unknown_tokens, prefill_s, is_guess=True)
    return uncached


def _note_speed(
    sent: SentRequest,
    uncached: float,
    prefill_s: float,
    stats: EngineStats,
    ended_at: float,
    replica: ReplicaState,
    rates: LearnedSpeeds,
) -> None:
    """Note the time of one prompt, in which those before it were read too."""
    tokens, rate = sent.pending_before + uncached, rates.speeds.prefill_tokens_per_s
    if tokens > _MIN_MEASURED_S * rate:
        replica.compare(prefill_s, tokens / rate, ended_at)
    rates.note_prefill(tokens, prefill_s, is_guess=stats.cached is None)


def new_hits() -> Mean:
    """Return the mean of the shares of known tokens that were cached.

    One mean serves the whole pool: with a mean for each replica, a low one would get no more
    requests that could raise it.
    """
    return Mean(1.0, weight=10, newest=0.02)
