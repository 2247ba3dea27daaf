"""Sound for tests: synthetic speech (espeak-ng), tones, silence and noise. Same input, same bytes."""

from __future__ import annotations

import functools
import io
import subprocess
import wave

import numpy as np
import soxr

from pipelines.audio import ulaw


@functools.cache
def say_pcm(text: str, rate: int = 16000, voice: str = "en-us", speed: int = 150, pitch: int = 50) -> bytes:
    """`text` as 16-bit mono audio at `rate` Hz. `speed` in words a minute, `pitch` 0..99."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", "--stdin"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=20)
    with wave.open(io.BytesIO(done.stdout)) as sound:
        source, samples = sound.getframerate(), np.frombuffer(sound.readframes(1 << 30), dtype=np.int16)
    return soxr.resample(samples, source, rate, quality="HQ").astype(np.int16).tobytes()


@functools.cache
def say_mulaw(text: str, voice: str = "en-us", speed: int = 150, pitch: int = 50) -> bytes:
    """`text` as a telephone carries it: 8 kHz µ-law."""
    return ulaw.encode(say_pcm(text, 8000, voice, speed, pitch))


def silence_mulaw(ms: int) -> bytes:
    """Digital silence, 8 kHz µ-law."""
    return ulaw.SILENCE * (8 * ms)


def silence_pcm(ms: int, rate: int = 16000) -> bytes:
    """Digital silence, 16-bit."""
    return bytes(2 * (ms * rate // 1000))


def noise_pcm(ms: int, level_db: float = -50.0, rate: int = 16000, seed: int = 1) -> bytes:
    """White noise of `level_db` dBFS, 16-bit."""
    count = ms * rate // 1000
    noise = np.random.default_rng(seed).normal(0.0, 32768 * 10 ** (level_db / 20), count)
    return np.clip(noise, -32768, 32767).astype(np.int16).tobytes()


def noise_mulaw(ms: int, level_db: float = -50.0, seed: int = 1) -> bytes:
    """White noise of `level_db` dBFS, 8 kHz µ-law."""
    return ulaw.encode(noise_pcm(ms, level_db, 8000, seed))


def tone_pcm(hz: float, ms: int, rate: int = 16000, level_db: float = -12.0) -> bytes:
    """A sine of `level_db` dBFS (its rms), 16-bit."""
    at = np.arange(ms * rate // 1000) / rate
    amplitude = 32768 * 10 ** (level_db / 20) * np.sqrt(2)
    return np.clip(amplitude * np.sin(2 * np.pi * hz * at), -32768, 32767).astype(np.int16).tobytes()


def frames(audio: bytes, size: int = 160) -> list[bytes]:
    """`audio` in pieces of `size` bytes (160: 20 ms of µ-law); the last may be shorter."""
    return [audio[at : at + size] for at in range(0, len(audio), size)]
