"""The tones of telephone keys, for machines at the other end that listen for them (ITU-T Q.23). Pure.

In the caller's ear, not on the wire: a carrier's own way to press keys would tear down the media stream.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipelines.audio import ulaw
from providers.base import AudioFormat, Encoding

TONE_SECONDS: Final = 0.1
GAP_SECONDS: Final = 0.1
"""Silence after each tone."""
LEVEL_DB: Final = -10.0
"""How loud the pair of tones is (dBFS, rms)."""
MAX_SECONDS: Final = 60.0
"""Longer sequences are refused: they would keep the line for longer than anybody listens."""

PAUSES: Final = {"w": 0.5, ",": 2.0}
"""Seconds of silence."""
_ROWS: Final = (697, 770, 852, 941)
_COLUMNS: Final = (1209, 1336, 1477, 1633)
PAIRS: Final = {
    key: (_ROWS[place // 4], _COLUMNS[place % 4]) for place, key in enumerate(("1", "2", "3", "A", *"456B789C*0#D"))
}
"""The two frequencies (Hz) of each key."""
_RAMP_SECONDS: Final = 0.003
"""Tones begin and end softly, or the click would be heard as other frequencies."""


def check_keys(keys: str) -> str:
    """The keys in their plain spelling (`a` is `A`). Raises ValueError that says what is wrong with them."""
    plain = "".join(key if key in PAUSES else key.upper() for key in keys)
    if not plain:
        raise ValueError("digits: needs at least one key")
    strange = next((key for key in plain if key not in PAIRS and key not in PAUSES), None)
    if strange is not None:
        raise ValueError(f"digits: {strange!r} is no key; there are 0-9 * # A-D, w (0.5 s) and comma (2 s)")
    seconds = sum(PAUSES.get(key, TONE_SECONDS + GAP_SECONDS) for key in plain)
    if seconds > MAX_SECONDS:
        raise ValueError(f"digits: takes {seconds:g} s, at most {MAX_SECONDS:g} s can be played at once")
    return plain


def tones(keys: str, line: AudioFormat) -> bytes:
    """What those keys sound like in the line's format. `keys` as `check_keys` gives them; KeyError for any other."""
    sound = np.concatenate([_silence(PAUSES[key], line) if key in PAUSES else _tone(key, line) for key in keys])
    pcm = sound.astype(np.int16).tobytes()
    return ulaw.encode(pcm) if line.encoding is Encoding.MULAW else pcm


def _silence(seconds: float, line: AudioFormat) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.zeros(round(seconds * line.rate))


def _tone(key: str, line: AudioFormat) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    at = np.arange(round(TONE_SECONDS * line.rate)) / line.rate
    # Two sines of amplitude A have the power A², so A is what the rms shall be.
    amplitude = 32768 * 10 ** (LEVEL_DB / 20)
    low, high = PAIRS[key]
    tone = amplitude * (np.sin(2 * np.pi * low * at) + np.sin(2 * np.pi * high * at))
    ramp = np.linspace(0.0, 1.0, round(_RAMP_SECONDS * line.rate))
    tone[: len(ramp)] *= ramp
    tone[-len(ramp) :] *= ramp[::-1]
    return np.concatenate([tone, _silence(GAP_SECONDS, line)])
