"""The caller's voice: espeak-ng as a telephone carries it. Files and microphones come in the same form."""

from __future__ import annotations

import asyncio
import io
import shutil
import wave
from pathlib import Path

import numpy as np
import soxr

from pipelines.audio import ulaw

CALLER_VOICE = "en-us"
CALLER_SPEED = 170


class NoVoice(Exception):
    """The caller cannot speak; the text says what to do."""


async def speak(text: str, voice: str = CALLER_VOICE, speed: int = CALLER_SPEED) -> bytes:
    """`text` as 8 kHz µ-law. Raises NoVoice when espeak-ng is not installed."""
    if shutil.which("espeak-ng") is None:
        raise NoVoice("espeak-ng is not installed: apt-get install espeak-ng")
    process = await asyncio.create_subprocess_exec(
        "espeak-ng",
        "-v",
        voice,
        "-s",
        str(speed),
        "--stdout",
        "--stdin",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(10):
        sound, _ = await process.communicate(text.encode())
    return _telephone(sound)


def read_wav(path: Path) -> bytes:
    """A WAV file (16-bit, any rate, mono or stereo) as 8 kHz µ-law. Raises ValueError for anything else."""
    try:
        return _telephone(path.read_bytes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no WAV file that can be read: {error}") from None


def _telephone(sound: bytes) -> bytes:
    with wave.open(io.BytesIO(sound)) as file:
        if file.getsampwidth() != 2:
            raise wave.Error("only 16-bit samples")
        rate, channels = file.getframerate(), file.getnchannels()
        samples = np.frombuffer(file.readframes(1 << 30), dtype=np.int16).reshape(-1, channels)
    mono = samples.astype(np.float32).mean(axis=1)
    return ulaw.encode(np.clip(soxr.resample(mono, rate, 8000), -32768, 32767).astype(np.int16).tobytes())
