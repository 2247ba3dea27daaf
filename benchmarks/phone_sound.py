"""What the simulated callers sound like: line noise, and one spoken sentence."""

from __future__ import annotations

import io
import subprocess
import wave

import numpy as np
import soxr

from pipelines.audio import ulaw

RATE = 8000
FRAME_BYTES = 160
SENTENCE = "I would like to book a table for two people"
_NOISE_DB = -55.0


def noise(seconds: float, seed: int = 1) -> bytes:
    """A quiet line, 8 kHz µ-law."""
    level = 32768 * 10 ** (_NOISE_DB / 20)
    samples = np.random.default_rng(seed).normal(0.0, level, round(seconds * RATE))
    return ulaw.encode(samples.astype(np.int16).tobytes())


def sentence() -> bytes:
    """`SENTENCE` as espeak-ng says it, 8 kHz µ-law. Raises FileNotFoundError where it is not installed."""
    command = ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", SENTENCE]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20)
    with wave.open(io.BytesIO(done.stdout)) as sound:
        rate, samples = sound.getframerate(), np.frombuffer(sound.readframes(1 << 30), dtype=np.int16)
    return ulaw.encode(soxr.resample(samples, rate, RATE, quality="HQ").astype(np.int16).tobytes())


def frames(audio: bytes) -> list[bytes]:
    """`audio` in telephone frames of 20 ms; a rest that fills none is dropped."""
    return [audio[at : at + FRAME_BYTES] for at in range(0, len(audio) - FRAME_BYTES + 1, FRAME_BYTES)]
