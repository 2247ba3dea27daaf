"""Keeps silence from the recogniser: most of a call is listening to nobody, and that costs as much as speech. Pure.

Opens on sound well above the line's own noise, gives what came just before it too, and stays open through the pauses of
a sentence. It decides nothing about turns: when the speaker is done is the turn machine's business.
"""

from __future__ import annotations

import audioop
import math
from collections import deque

RATE = 16000
FRAME = RATE // 50 * 2
"""Bytes of the 20 ms over which level is measured."""
PRE_ROLL = 15
"""Frames kept from before the sound (300 ms): weak first consonants."""
HANG = 40
"""Frames kept open after the last sound (800 ms)."""
OPEN_DB = -50.0
"""dBFS that opens the gate on a quiet line."""
ABOVE_NOISE_DB = 9.0
RISE_DB = 0.03
"""How fast the noise estimate rises towards louder sound, each frame (1.5 dB/s): speech hardly lifts it, a fan does."""


class SpeechGate:
    """One call's gate over 16-bit mono audio at 16 kHz."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL)
        self._left = 0
        self._noise_db = -60.0

    def feed(self, pcm: bytes) -> bytes:
        """What of the audio so far is to be heard; whole frames, in order, each once."""
        self._pending += pcm
        passed: list[bytes] = []
        while len(self._pending) >= FRAME:
            frame = bytes(self._pending[:FRAME])
            del self._pending[:FRAME]
            level = audioop.rms(frame, 2)
            loud = self._loud(20 * math.log10(level / 32768) if level else -60.0)
            if loud:
                self._left = HANG
            if self._left == 0:
                self._before.append(frame)
                continue
            self._left -= 1
            passed += [*self._before, frame]
            self._before.clear()
        return b"".join(passed)

    def shut(self) -> None:
        """The segment is over: what follows must be loud to be heard."""
        self._left = 0

    def _loud(self, level_db: float) -> bool:
        self._noise_db = min(max(level_db, -60.0), self._noise_db + RISE_DB)
        return level_db > max(OPEN_DB, self._noise_db + ABOVE_NOISE_DB)
