"""The sound of a whole call on the wire: a WAV file in base64, written piece by piece while it is being sent.

Half an hour is 38 MB of base64 at 8 kHz and 77 MB at 16 kHz. As one text it would stand in memory several times over,
and making it would stop everything else for as long.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Iterator
from typing import Final

MAX_PAYLOAD: Final = 100 * 1024 * 1024
"""Bytes of the largest message that the SDK's socket takes."""
PIECE: Final = 48 * 1024
"""Bytes of a file that are encoded at once, a multiple of three: 0.1 ms."""
_HEADER: Final = 44


class WavSound:
    """16-bit mono samples at `rate` Hz. Nothing may be added to `pcm` afterwards."""

    __slots__ = ("pcm", "rate")

    def __init__(self, pcm: bytes | bytearray, rate: int) -> None:
        self.pcm = pcm
        self.rate = rate

    def __len__(self) -> int:
        """Characters of the base64 text."""
        return (_HEADER + len(self.pcm) + 2) // 3 * 4

    def base64(self) -> Iterator[bytes]:
        """The text, in order."""
        first = PIECE - _HEADER
        with memoryview(self.pcm) as sound:
            yield b2a_base64(self._header() + bytes(sound[:first]), newline=False)
            for at in range(first, len(sound), PIECE):
                yield b2a_base64(sound[at : at + PIECE], newline=False)

    def _header(self) -> bytes:
        """RIFF WAVE, format 1 (PCM), one channel, 16 bits."""
        size, rate = len(self.pcm), self.rate
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size),
        )
