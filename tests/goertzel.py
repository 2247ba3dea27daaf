"""Finds telephone keys in 8 kHz µ-law as a receiver does: Goertzel filters on the eight frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, log10, pi

import numpy as np

from pipelines.audio import ulaw

RATE = 8000
WINDOW = 80
"""Samples: 10 ms."""
KEYS = {
    **{(697, 1209): "1", (697, 1336): "2", (697, 1477): "3", (697, 1633): "A"},
    **{(770, 1209): "4", (770, 1336): "5", (770, 1477): "6", (770, 1633): "B"},
    **{(852, 1209): "7", (852, 1336): "8", (852, 1477): "9", (852, 1633): "C"},
    **{(941, 1209): "*", (941, 1336): "0", (941, 1477): "#", (941, 1633): "D"},
}
LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
_AUDIBLE = 500.0
"""Rms above which a window is no silence."""


@dataclass(frozen=True)
class Tone:
    """One key that was heard: when (seconds from the start of the audio), for how long, how loud (dBFS, rms)."""

    key: str
    at: float
    seconds: float
    level_db: float


def power(samples: list[float], hertz: float) -> float:
    """The power of one frequency, by the filter of Goertzel."""
    coefficient = 2 * cos(2 * pi * hertz / RATE)
    before, last = 0.0, 0.0
    for sample in samples:
        before, last = last, sample + coefficient * last - before
    return (last * last + before * before - coefficient * last * before) / len(samples) ** 2 * 4


def tones(mulaw: bytes) -> list[Tone]:
    """The tones in what a caller heard. AssertionError for sounds that are none."""
    samples = np.frombuffer(ulaw.decode(mulaw), dtype=np.int16).astype(float)
    windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)
    loud = np.sqrt((windows**2).mean(axis=1)) > _AUDIBLE
    found: list[Tone] = []
    start = None
    for index, on in enumerate([*loud, False]):
        if on and start is None:
            start = index
        elif not on and start is not None:
            found.append(_tone(samples, start * WINDOW, index * WINDOW))
            start = None
    return found


def _tone(samples: np.ndarray[tuple[int], np.dtype[np.float64]], start: int, end: int) -> Tone:
    part = samples[start:end].tolist()
    low, high = (sorted(band, key=lambda hertz: -power(part, hertz)) for band in (LOW, HIGH))
    rms = float(np.sqrt(np.mean(np.square(samples[start + WINDOW : end - WINDOW]))))
    pair = power(part, low[0]) + power(part, high[0])
    others = sum(power(part, hertz) for hertz in (*low[1:], *high[1:]))
    assert pair > 10 * others, f"no key at {start / RATE:.2f} s"
    assert 0.5 < power(part, low[0]) / power(part, high[0]) < 2, "twisted"
    return Tone(KEYS[low[0], high[0]], start / RATE, (end - start) / RATE, 20 * log10(rms / 32768))
