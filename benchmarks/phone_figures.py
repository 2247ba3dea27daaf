"""From what was seen to what is reported. Pure; definitions are those of docs/performance.md."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.phone_sound import RATE

SETTLE_S = 0.5
"""The beginning of a stretch of speech is sent at once, not paced."""
NEW_REPLY_S = 0.4
"""Sound after this much silence is a new reply."""
REPLY_S = 1.0
"""A turn without an audible message for this long counts as unanswered."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in milliseconds."""

    count: int
    p50: float
    p99: float
    worst: float


def spread(seconds: Sequence[float]) -> Spread | None:
    """None when nothing was seen. Quantiles are values that occurred (nearest rank)."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.99))
    return Spread(len(ordered), p50 * 1000, p99 * 1000, ordered[-1] * 1000)


def pacing_errors(arrivals: Sequence[tuple[float, int]], since: float) -> list[float]:
    """By how much each message was early or late against the audio sent before it (s, absolute).

    `arrivals` are times and sizes (bytes of 8 kHz µ-law) of one call. During a stretch of speech, what has arrived
    minus what has been played should be the same after every message: the error is its distance from its median.
    Messages before `since` only count towards the position.
    """
    errors: list[float] = []
    leads: list[float] = []
    began = ends = float("-inf")
    for at, size in [*arrivals, (float("inf"), 0)]:
        if at - ends > NEW_REPLY_S:
            if leads:
                usual = median(leads)
                errors += [abs(lead - usual) for lead in leads]
            leads, began, ends = [], at, at
        length = size / RATE
        if at >= since and at - began >= SETTLE_S:
            leads.append(ends + length - at)
        ends = max(ends, at) + length
    return errors


def response_times(decisions: Sequence[float], audible: Sequence[float]) -> list[float | None]:
    """For each moment at which a turn was over, the time until a reply was heard; None where there was none (s)."""
    times: list[float | None] = []
    for at in decisions:
        index = bisect_left(audible, at)
        heard = audible[index] if index < len(audible) else None
        times.append(heard - at if heard is not None and heard - at <= REPLY_S else None)
    return times
