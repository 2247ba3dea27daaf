"""WAV files in, in any shape a recorder makes them; one shape out."""

from __future__ import annotations

import io
import wave

import numpy as np
import soxr

from pipelines.audio import ulaw
from providers.base import AudioFormat, Encoding


def read_wav(sound: bytes, line: AudioFormat) -> bytes:
    """A WAV file (16-bit, any rate, any channels) as mono audio in the line's format. ValueError for anything else."""
    try:
        with wave.open(io.BytesIO(sound)) as file:
            if file.getsampwidth() != 2:
                raise ValueError("the samples are not 16-bit")
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(1 << 30), dtype=np.int16).reshape(-1, channels)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file: {error}") from None
    mono = samples.astype(np.float32).mean(axis=1)
    pcm = np.clip(soxr.resample(mono, rate, line.rate), -32768, 32767).astype(np.int16).tobytes()
    return ulaw.encode(pcm) if line.encoding is Encoding.MULAW else pcm
