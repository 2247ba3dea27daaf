"""The caller's voice from numbered packets: in order, each once, and silence where something is missing. Pure.

Nobody plays this audio, so nothing is held back to smooth it: a packet that comes in its turn is passed on at once, and
one that is missing is waited for only as long as a few later ones take to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WAIT_PACKETS: Final = 3
"""So many later packets (of 20 ms each) are held while one is missing."""
RESTART_AFTER: Final = 200
"""A jump in the numbers by more means that the sender has begun anew."""
MAX_GAP_SECONDS: Final = 0.3
"""Longer silence of the line is filled in while it lasts, by the ears."""
CLOCK_RATE: Final = 48000
"""Hz of the time stamps of Opus (RFC 7587 §4.1)."""
_HALF: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of Opus. `number` and `timestamp` wrap at 16 and 32 bits."""

    number: int
    timestamp: int
    payload: bytes


class Reorder:
    """Puts packets into order. What is given up comes no more."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._held: dict[int, Packet] = {}

    def put(self, packet: Packet) -> Iterator[Packet]:
        """Take one packet; what can be passed on now."""
        if self._expected is None:
            self._expected = packet.number
        ahead = (packet.number - self._expected) & 0xFFFF
        if ahead >= _HALF:
            if 0x10000 - ahead <= RESTART_AFTER:
                return
            ahead = RESTART_AFTER + 1
        if ahead > RESTART_AFTER:
            self._held.clear()
            self._expected = packet.number
        self._held[packet.number] = packet
        if len(self._held) > WAIT_PACKETS and self._expected not in self._held:
            self._expected = min(self._held, key=self._distance)
        while (following := self._held.pop(self._expected, None)) is not None:
            self._expected = (self._expected + 1) & 0xFFFF
            yield following

    @property
    def held(self) -> int:
        """Packets that wait for one before them."""
        return len(self._held)

    def _distance(self, number: int) -> int:
        assert self._expected is not None
        return (number - self._expected) & 0xFFFF


class Timeline:
    """How much silence belongs before each packet."""

    def __init__(self) -> None:
        self._ends: int | None = None

    def gap(self, timestamp: int) -> float:
        """Seconds between the end of the last packet and the beginning of this one, at most MAX_GAP_SECONDS."""
        if self._ends is None:
            return 0.0
        ahead = (timestamp - self._ends) & 0xFFFFFFFF
        if ahead >= 1 << 31:
            return 0.0
        return min(ahead / CLOCK_RATE, MAX_GAP_SECONDS)

    def played(self, timestamp: int, samples: int) -> None:
        """A packet of so many samples (at CLOCK_RATE) was passed on."""
        self._ends = (timestamp + samples) & 0xFFFFFFFF
