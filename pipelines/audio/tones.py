"""Sounds that the gateway makes itself."""

from __future__ import annotations

import functools

import numpy as np

from pipelines.audio import ulaw
from providers.base import AudioFormat, Encoding

HOLD_DB = -24.0
"""How loud hold music is (dBFS, rms): there, and not in the way."""
_BAR = 2.0
_CHORDS = ((262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294))
"""C, A minor, F, G: one bar each (Hz)."""


@functools.cache
def hold_music(line: AudioFormat) -> bytes:
    """One loop of the built-in hold music in the line's format: eight quiet seconds that join without a click."""
    bars = [_bar(chord, line.rate) for chord in _CHORDS]
    sound = np.concatenate(bars)
    rms = float(np.sqrt(np.mean(np.square(sound))))
    samples = sound * (32768 * 10 ** (HOLD_DB / 20) / rms)
    pcm = np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
    return ulaw.encode(pcm) if line.encoding is Encoding.MULAW else pcm


def _bar(chord: tuple[int, ...], rate: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A broken chord: its notes one after the other, each fading like a plucked string."""
    count = int(_BAR * rate)
    sound = np.zeros(count)
    step = count // 4
    for place, hertz in enumerate((*chord, chord[1])):
        at = np.arange(count - place * step) / rate
        attack = np.minimum(1.0, at / 0.01)
        note = np.sin(2 * np.pi * hertz * at) + 0.3 * np.sin(4 * np.pi * hertz * at)
        sound[place * step :] += note * attack * np.exp(-2.5 * at)
    # Fading the very end lets the bars, and the loop, join at silence.
    tail = int(0.02 * rate)
    sound[-tail:] *= np.linspace(1.0, 0.0, tail)
    return sound
