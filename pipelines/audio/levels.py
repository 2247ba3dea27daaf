"""How loud 16-bit mono audio is. dBFS here: 0 is a full-scale square wave, -60 is as quiet as it gets."""

from __future__ import annotations

import audioop
import math

FULL_SCALE = 32768
FLOOR_DB = -60.0


def rms(pcm: bytes) -> int:
    """Root mean square of the samples, 0..32768; 0 for no audio."""
    return audioop.rms(pcm, 2)


def peak(pcm: bytes) -> int:
    """Largest absolute sample, 0..32768; 0 for no audio."""
    return audioop.max(pcm, 2)


def energy_db(pcm: bytes) -> float:
    """Level in dBFS, -60..0."""
    level = audioop.rms(pcm, 2)
    return max(FLOOR_DB, 20 * math.log10(level / FULL_SCALE)) if level else FLOOR_DB
