"""How much a page in a browser may send, whatever carries it (browser limits: docs/browser.md). Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

MAX_FRAME: Final = 16 * 1024
"""Characters of one frame."""
FRAMES: Final = 20
"""Frames that may come within `WINDOW` seconds, signs of life aside."""
WINDOW: Final = 10.0
PINGS: Final = 100
"""Signs of life that may come within `WINDOW` seconds; they are due once a second."""
STRIKES: Final = 3
"""Seconds with too many or too large frames in them that end a session."""


class Verdict(Enum):
    """What becomes of a frame."""

    TAKE = auto()
    DROP = auto()
    """Too much: leave it, the session goes on."""
    STRIKE = auto()
    """The same, for the first time within a second: worth a word to the page."""
    END = auto()
    """Once too often."""


class FloodGate:
    """Counts the frames of one session. Times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._frames = _Window(FRAMES)
        self._pings = _Window(PINGS)
        self._strikes = 0
        self._struck_at = float("-inf")

    def judge(self, size: int, now: float, *, ping: bool = False) -> Verdict:
        """A frame of so many characters has come; `ping`: it is only a sign of life."""
        window = self._pings if ping else self._frames
        if window.take(now) and size <= MAX_FRAME:
            return Verdict.TAKE
        if now - self._struck_at < 1.0:
            return Verdict.DROP
        self._struck_at = now
        self._strikes += 1
        return Verdict.END if self._strikes >= STRIKES else Verdict.STRIKE


class _Window:
    """At most `limit` within WINDOW seconds, as a bucket that fills steadily."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = float(limit)
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        if self._at > float("-inf"):
            self._left = min(self._limit, self._left + (now - self._at) * self._limit / WINDOW)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
