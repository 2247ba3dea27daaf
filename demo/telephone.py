"""What a carrier does with the audio it is sent: play it in order, in real time, and say when marks were reached. Pure.

Modelled on Twilio Media Streams: all audio is buffered and played without gaps at 8000 bytes a second; a mark is echoed
when everything sent before it has been played; `clear` empties the buffer and echoes all waiting marks at once.
Positions are bytes of 8 kHz µ-law since the stream started, so a position is also a time.
"""

from __future__ import annotations

import io
import wave
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

RATE = 8000
SILENCE = 0xFF
FRAME_BYTES = 160


def _linear_table() -> npt.NDArray[np.int16]:
    """All 256 codes of ITU-T G.711 µ-law as 16-bit samples."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent = ((code >> 4) & 7).astype(np.int32)
    magnitude = ((((code & 15).astype(np.int32) << 3) + 132) << exponent) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.int16)


_LINEAR = _linear_table()
_AUDIBLE_LEVEL = 400
"""About -38 dBFS: above line noise and codec silence, below the quietest speech."""
_LOUD = bytes(abs(int(sample)) > _AUDIBLE_LEVEL for sample in _LINEAR)


def first_audible(audio: bytes) -> int | None:
    """Offset of the first byte loud enough to be heard."""
    at = audio.translate(_LOUD).find(1)
    return None if at < 0 else at


def last_audible(audio: bytes) -> int | None:
    """Offset of the last byte loud enough to be heard."""
    at = audio.translate(_LOUD).rfind(1)
    return None if at < 0 else at


@dataclass(frozen=True, slots=True)
class Played:
    """What happened while time passed: marks now due, and where audible sound was first and last heard, if
    any was, and how much audio was thrown away unheard."""

    marks: tuple[str, ...]
    first_audible: int | None = None
    last_audible: int | None = None
    dropped_ms: float = 0.0


class PlayOut:
    """The carrier's buffer for one stream. All times are seconds of one monotonic clock; time never goes back."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.heard = bytearray()
        """Everything the caller's ear got so far, silence included."""
        self.played_bytes = 0
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()

    @property
    def buffered_ms(self) -> float:
        """How much is waiting to be played, as of the last `advance`."""
        return len(self._buffer) * 1000 / RATE

    def position(self, now: float) -> int:
        """Where the stream is at that time."""
        return max(0, int((now - self.began_at) * RATE + 1e-6))

    def time_at(self, position: int) -> float:
        """When the stream is at that position."""
        return self.began_at + position / RATE

    def append(self, audio: bytes, now: float) -> Played:
        """Audio arrives; it plays after what is waiting, or at once."""
        played = self.advance(now)
        self._buffer += audio
        return played

    def mark(self, name: str, now: float) -> Played:
        """A mark arrives; with nothing waiting it is due at once."""
        played = self.advance(now)
        self._marks.append((len(self.heard) + len(self._buffer), name))
        return replace(played, marks=played.marks + self._due())

    def clear(self, now: float) -> Played:
        """Forget what is waiting; all marks are due."""
        played = self.advance(now)
        dropped_ms = self.buffered_ms
        self._buffer.clear()
        marks = tuple(name for _, name in self._marks)
        self._marks.clear()
        return replace(played, marks=played.marks + marks, dropped_ms=dropped_ms)

    def advance(self, now: float) -> Played:
        """Let time pass until `now`."""
        start = len(self.heard)
        due = self.position(now) - start
        if due <= 0:
            return Played(())
        audio = bytes(self._buffer[:due])
        del self._buffer[:due]
        self.played_bytes += len(audio)
        self.heard += audio + bytes([SILENCE]) * (due - len(audio))
        first, last = first_audible(audio), last_audible(audio)
        return Played(self._due(), None if first is None else start + first, None if last is None else start + last)

    def next_mark_at(self) -> float | None:
        """When the next mark will be due if nothing is cleared."""
        return self.time_at(self._marks[0][0]) if self._marks else None

    def _due(self) -> tuple[str, ...]:
        due: list[str] = []
        while self._marks and self._marks[0][0] <= len(self.heard):
            due.append(self._marks.popleft()[1])
        return tuple(due)


def stereo_wav(left: bytes, right: bytes) -> bytes:
    """Two µ-law tracks as one 16-bit stereo WAV at 8 kHz; the shorter is filled with silence."""
    length = max(len(left), len(right))
    tracks = [np.frombuffer(track.ljust(length, bytes([SILENCE])), np.uint8) for track in (left, right)]
    samples = np.stack([_LINEAR[track] for track in tracks], axis=1)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
