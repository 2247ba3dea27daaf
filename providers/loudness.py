"""Whether audio has a voice in it, as cheaply as can be: no decoding, nothing but counting bytes in C."""

from __future__ import annotations

from providers.base import Encoding

_QUIET_MULAW = bytes(code for code in range(256) if (~code & 0x7F) < 0x30)
"""ITU-T G.711 codes of the three lowest of eight chords: samples below 1/36 of full scale, about -31 dBFS."""
_QUIET_HIGH_BYTES = bytes((0, 1, 2, 3, 252, 253, 254, 255))
"""High bytes of 16-bit samples below 1/32 of full scale."""


def loud_share(audio: bytes, encoding: Encoding) -> float:
    """Share (0..1) of samples louder than about -31 dBFS. Speech on a telephone has plenty of them, line noise none."""
    samples, quiet = (audio, _QUIET_MULAW) if encoding is Encoding.MULAW else (audio[1::2], _QUIET_HIGH_BYTES)
    return len(samples.translate(None, quiet)) / len(samples) if samples else 0.0
