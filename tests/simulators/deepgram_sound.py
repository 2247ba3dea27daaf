"""What Deepgram's simulators have for ears: how loud a frame is, and for how long it has been loud or quiet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

FRAME_MS = 20


class Spoken(Protocol):
    """Something that will be said: when the audio gets loud, or from `at_ms` on for `for_ms` of it."""

    @property
    def at_ms(self) -> int | None: ...

    @property
    def for_ms(self) -> int: ...


S = TypeVar("S")


class Script(Generic[S]):
    """What is still to be said. Its current line is used up when it has been heard."""

    def __init__(self, says: Sequence[S]) -> None:
        self._says = tuple(says)
        self._next = 0

    def current(self) -> S | None:
        return self._says[self._next] if self._next < len(self._says) else None

    def use_up(self) -> None:
        self._next += 1


class Ear:
    """Audio time, and how long (ms) there has been speech and then quiet. `loud` is an RMS of 16-bit samples."""

    def __init__(self, loud: float) -> None:
        self._loud = loud
        self.now_ms = 0
        self.loud_ms = 0
        self.quiet_ms = 0

    def hear(self, spoken: Spoken | None, rms: float, *, between: bool) -> None:
        """One frame; `between` utterances a sound that ends does not count any more."""
        self.now_ms += FRAME_MS
        if spoken is None:
            return
        if self._is_speech(spoken, rms):
            self.loud_ms += FRAME_MS
            self.quiet_ms = 0
            return
        self.quiet_ms += FRAME_MS
        if between:
            self.loud_ms = 0

    def rest(self) -> None:
        """An utterance is over."""
        self.loud_ms = self.quiet_ms = 0

    def _is_speech(self, spoken: Spoken, rms: float) -> bool:
        if spoken.at_ms is None:
            return rms > self._loud
        return spoken.at_ms < self.now_ms <= spoken.at_ms + spoken.for_ms


def _mulaw_levels() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """ITU-T G.711: code → sample on the 16-bit scale."""
    code = ~np.arange(256, dtype=np.int64) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 0x07)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.float64)


_MULAW = _mulaw_levels()


def loudness(frame: bytes, *, mulaw: bool) -> float:
    """RMS of one frame on the 16-bit scale."""
    samples = _MULAW[np.frombuffer(frame, np.uint8)] if mulaw else np.frombuffer(frame, "<i2").astype(np.float64)
    return float(np.sqrt(np.mean(samples * samples)))
