"""The caller's voice: espeak-ng as a telephone carries it."""

from __future__ import annotations

import asyncio
import shutil

from pipelines.audio.wav import read_wav
from providers.base import MULAW_8K

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
    return read_wav(sound, MULAW_8K)
