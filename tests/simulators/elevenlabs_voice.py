"""The sound of the simulated ElevenLabs: a square wave where a letter sounds, silence where a space does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CHAR_MS = 60


@dataclass(frozen=True)
class Chunk:
    """A piece of speech; `starts_ms` count from its own beginning."""

    audio: bytes
    chars: list[str]
    starts_ms: list[int]
    char_ms: int

    @property
    def duration_ms(self) -> int:
        """How long it sounds."""
        return len(self.chars) * self.char_ms

    def alignment(self, offset_ms: int) -> dict[str, list[str] | list[int]]:
        """The vendor's form of the character times."""
        return {
            "chars": self.chars,
            "charStartTimesMs": [start + offset_ms for start in self.starts_ms],
            "charDurationsMs": [self.char_ms] * len(self.chars),
        }


def render(text: str, output: str, speed: float, chunk_ms: int) -> Iterator[Chunk]:
    """Speak `text` in pieces of about `chunk_ms`."""
    char_ms = round(CHAR_MS / speed)
    size = max(1, chunk_ms // char_ms)
    for at in range(0, len(text), size):
        chars = list(text[at : at + size])
        audio = b"".join([_sound(output, char_ms, loud=not char.isspace()) for char in chars])
        yield Chunk(audio, chars, [number * char_ms for number in range(len(chars))], char_ms)


def _sound(output: str, ms: int, *, loud: bool) -> bytes:
    """`ms` of a 400 Hz square wave, or of silence."""
    form, _, digits = output.partition("_")
    rate = int(digits)
    samples = rate * ms // 1000
    if form == "ulaw":
        period = (b"\x90" * 10 + b"\x10" * 10) if loud else b"\xff"
        return (period * (samples // len(period) + 1))[:samples]
    if not loud:
        return bytes(samples * 2)
    half = rate // 800
    period = struct.pack("<h", 8000) * half + struct.pack("<h", -8000) * half
    return (period * (samples * 2 // len(period) + 1))[: samples * 2]
