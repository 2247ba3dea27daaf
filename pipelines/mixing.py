"""Both sides of a call as one sound, as somebody beside the caller would have heard it. Pure: time comes as arguments.

Each side is a track of 16-bit samples in call time: sample 0 is the call's beginning, and what is missing is silence.
The bot's audio lies where the far end plays it, not where it was made: the far end plays what it is sent one after the
other, at once when nothing is waiting; a mark's echo corrects when it really began, and a clear takes back what was not
played. Echo and caller's audio come over the same way, so both are late by the same and fit together.

Slices are cut a moment late (`HOLD_BACK_MS`): audio that the network held up still finds its place, and what is cut is
never taken back. A late tick cuts several slices, so the length is always that of the call.
"""

from __future__ import annotations

import audioop
from collections import deque
from dataclasses import dataclass

from pipelines.audio import ulaw
from providers.base import AudioFormat, Encoding

SLICE_MS = 50
HOLD_BACK_MS = 200
"""The mix lags behind the call by this."""
GAP_MS = 40
"""Caller's audio that is later than this has a gap before it: silence."""
EARLY_MS = 40
"""Caller's audio may seem to come from the future by this: frames do not arrive evenly."""
LATE_MS = 40
"""A mark echoed later than this tells that the far end began to play so much later."""
_OPEN_MARKS = 64


class _Track:
    """Samples of one side that are not mixed yet. Positions count samples since the call began."""

    def __init__(self, front: int) -> None:
        self.front = front
        """Up to here all is mixed."""
        self._pcm = bytearray()

    @property
    def end(self) -> int:
        """Behind the last sample there is."""
        return self.front + len(self._pcm) // 2

    def append(self, pcm: bytes) -> None:
        self._pcm += pcm

    def insert(self, at: int, count: int) -> None:
        """So much silence, there."""
        offset = max(0, at - self.front) * 2
        self._pcm[offset:offset] = bytes(2 * count)

    def remove(self, at: int, count: int) -> None:
        offset = max(0, at - self.front) * 2
        del self._pcm[offset : offset + 2 * count]

    def take(self, count: int) -> bytes:
        """The next samples; where none are there, silence."""
        self.front += count
        if not self._pcm:
            return b""
        piece = bytes(self._pcm[: 2 * count])
        del self._pcm[: 2 * count]
        return piece.ljust(2 * count, b"\0")


class _CallerTrack(_Track):
    """Audio that comes in bit by bit, as late as the network makes it."""

    def __init__(self, front: int, rate: int) -> None:
        super().__init__(front)
        self._gap = rate * GAP_MS // 1000
        self._early = rate * EARLY_MS // 1000
        self._silence = (0, 0)
        """From where to where the last gap was filled."""

    def arrived(self, pcm: bytes, head: int) -> None:
        """It was spoken just now: it ends at `head`, or where the audio before it says."""
        gap = head - len(pcm) // 2 - self.end
        if gap > self._gap:
            self._silence = (self.end, self.end + gap)
            self.append(bytes(2 * gap))
        self.append(pcm)
        # Nothing is from the future: it was only held up, and the gap was none.
        self._close_gap(self.end - head)
        early = self.end - head
        if early > self._early:
            self.remove(self.front, early)

    def _close_gap(self, early: int) -> None:
        began, ended = max(self._silence[0], self.front), self._silence[1]
        size = min(early, ended - began)
        if size > 0:
            self.remove(began, size)
            self._silence = (began, ended - size)


@dataclass(slots=True)
class _Mark:
    name: str
    position: int


class _BotTrack(_Track):
    """Audio that is sent ahead of its time, and taken back."""

    def __init__(self, front: int, rate: int) -> None:
        super().__init__(front)
        self._late = rate * LATE_MS // 1000
        self._began = front
        self._certain = False
        """Whether an echo has told when the far end began with what it plays now."""
        self._marks: deque[_Mark] = deque(maxlen=_OPEN_MARKS)

    def sent(self, pcm: bytes, head: int) -> None:
        """It is played behind what was sent before, or at once."""
        if self.end <= head:
            self.append(bytes(2 * (head - self.end)))
            self._began, self._certain = head, False
        self.append(pcm)

    def marked(self, name: str) -> None:
        self._marks.append(_Mark(name, self.end))

    def echoed(self, name: str, head: int) -> None:
        """Everything before that mark has been played by now."""
        mark = next((mark for mark in self._marks if mark.name == name), None)
        if mark is None:
            return
        while self._marks.popleft() is not mark:
            pass
        if self._certain or mark.position <= self._began:
            return
        self._certain = True
        late = head - mark.position
        at = max(self._began, self.front)
        if late > self._late and at < self.end:
            self.insert(at, late)
            for other in self._marks:
                other.position += late

    def cleared(self, head: int) -> None:
        self.remove(head, max(0, self.end - max(head, self.front)))
        self._marks.clear()
        self._certain = True


class Mixer:
    """The mix of one line, cut into slices of `SLICE_MS`: 16-bit mono at the line's rate. `now` must never go back."""

    def __init__(self, line: AudioFormat, began: float, now: float) -> None:
        """The call began at `began`; slices are cut from `now` on (both seconds)."""
        self.rate = line.rate
        self.slice_bytes = line.rate * SLICE_MS // 1000 * 2
        self._mulaw = line.encoding is Encoding.MULAW
        self._began = began
        self._hold_back = line.rate * HOLD_BACK_MS // 1000
        self._slice = self.slice_bytes // 2
        self._silence = bytes(self.slice_bytes)
        front = self._head(now)
        self._caller = _CallerTrack(front, line.rate)
        self._bot = _BotTrack(front, line.rate)

    @property
    def position(self) -> int:
        """Where the next slice begins, in samples since the call began."""
        return self._caller.front

    def heard(self, audio: bytes, now: float) -> None:
        """The caller's audio, in the line's format."""
        self._caller.arrived(self._pcm(audio), self._head(now))

    def sent(self, audio: bytes, now: float) -> None:
        """Audio was handed to the line, in its format."""
        self._bot.sent(self._pcm(audio), self._head(now))

    def marked(self, name: str) -> None:
        """A mark was sent behind it."""
        self._bot.marked(name)

    def echoed(self, name: str, now: float) -> None:
        """The line echoed a mark."""
        self._bot.echoed(name, self._head(now))

    def cleared(self, now: float) -> None:
        """What the far end has not played it never will."""
        self._bot.cleared(self._head(now))

    def due(self, now: float) -> list[bytes]:
        """The slices that can be cut by now."""
        return self._cut(self._head(now) - self._hold_back)

    def rest(self, now: float) -> list[bytes]:
        """The call ends: all slices until now, the last one when half of it has passed."""
        self._bot.cleared(self._head(now))
        return self._cut(self._head(now) + self._slice // 2)

    def _cut(self, until: int) -> list[bytes]:
        slices: list[bytes] = []
        while self._caller.front + self._slice <= until:
            caller, bot = self._caller.take(self._slice), self._bot.take(self._slice)
            # Adds with saturation; most of the time at most one side sounds.
            both = audioop.add(caller, bot, 2) if caller and bot else caller or bot
            slices.append(both or self._silence)
        return slices

    def _head(self, now: float) -> int:
        # Rounded: the difference of two clock readings is seldom exact.
        return max(0, round((now - self._began) * self.rate))

    def _pcm(self, audio: bytes) -> bytes:
        return ulaw.decode(audio) if self._mulaw else audio
