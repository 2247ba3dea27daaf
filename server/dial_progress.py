"""How far a dial is, and when it has taken too long. Pure (behaviour §3.4, §3.5).

What the carrier tells arrives late, twice, in any order, or never. A dial only ever goes forward, so whatever is older
than what is known already changes nothing; and it has deadlines of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

NO_ANSWER_SECONDS: Final = 28.0
"""From the agent's command. The carrier rings for 25 s and takes its time; SDKs give up after 30."""
STREAM_SECONDS: Final = 10.0
"""From the answer to the media stream."""
CONNECT_SECONDS: Final = 29.5
"""From the agent's command to the media stream: later nobody waits for this call any more."""


class DialState(IntEnum):
    """A dial's life; it never goes back."""

    REQUESTED = 0
    """The carrier has been asked."""
    DIALING = 1
    """The carrier has a call for it."""
    RINGING = 2
    ANSWERED = 3
    CONNECTED = 4
    """The media stream is open: from here on it is a call like any other."""
    ENDED = 5


_STEPS: Final = {
    "queued": DialState.DIALING,
    "initiated": DialState.DIALING,
    "ringing": DialState.RINGING,
    "in-progress": DialState.ANSWERED,
    "answered": DialState.ANSWERED,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Why a dial never became a call: the wire's reason, and for `failed` what was wrong."""

    reason: str
    error: str = ""
    code: str = ""


_OUTCOMES: Final = {
    "busy": Outcome("busy"),
    "no-answer": Outcome("no-answer"),
    "canceled": Outcome("canceled"),
    "failed": Outcome("failed", "the carrier could not reach this number", "CARRIER_ERROR"),
    "completed": Outcome("failed", "the call was over before its audio reached the gateway", "CARRIER_ERROR"),
}
NOBODY_ANSWERED: Final = Outcome("no-answer")
NO_STREAM: Final = Outcome("failed", "the carrier opened no media stream", "CARRIER_ERROR")


class DialProgress:
    """One dial. Times are seconds of the clock that `ordered_at` was read from."""

    def __init__(self, ordered_at: float) -> None:
        self.state = DialState.REQUESTED
        self._ordered_at = ordered_at
        self._answered_at = 0.0

    @property
    def pending(self) -> bool:
        """Whether it may still become a call."""
        return self.state < DialState.CONNECTED

    def placed(self) -> bool:
        """The carrier has a call for it. True when that is news."""
        if self.state is not DialState.REQUESTED:
            return False
        self.state = DialState.DIALING
        return True

    def told(self, status: str, now: float) -> Outcome | None:
        """The carrier says how the call fares. Answers what came of the dial if that ends it."""
        if not self.pending:
            return None
        step = _STEPS.get(status, self.state)
        if step > self.state:
            self.state = step
            if step is DialState.ANSWERED:
                self._answered_at = now
        return _OUTCOMES.get(status)

    def connected(self) -> None:
        """The media stream is open. Raises RuntimeError when it cannot be."""
        if not self.pending:
            raise RuntimeError(f"a dial cannot go from {self.state.name} to CONNECTED")
        self.state = DialState.CONNECTED

    def end(self) -> bool:
        """It will never become a call. True the first time only."""
        if not self.pending:
            return False
        self.state = DialState.ENDED
        return True

    def deadline(self) -> tuple[float, Outcome]:
        """When it has taken too long, and what has come of it then."""
        if self.state is DialState.ANSWERED:
            return min(self._answered_at + STREAM_SECONDS, self._ordered_at + CONNECT_SECONDS), NO_STREAM
        return self._ordered_at + NO_ANSWER_SECONDS, NOBODY_ANSWERED
