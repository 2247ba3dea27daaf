"""What is heard in the scenes: voices of espeak-ng, and noises made of numbers. 8 kHz, telephone band, same every time.

Speech is kept under var/scenes/, named by all that went into it, so that only the first run waits for espeak-ng.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from providers.timing import spread_words

RATE = 8000
CACHE = Path(__file__).parents[2] / "var" / "scenes"
VOICES = {"en": "en-us", "es": "es", "fr": "fr-fr"}
BOT_VOICES = {"en": "en-gb-x-rp", "es": "es-419", "fr": "fr-be"}
_RECIPE = "3"
"""Change it when the code here makes other sounds of the same words."""

_SLICE = RATE // 100

Samples = NDArray[np.float32]


@cache
def speech(text: str, voice: str, speed: int = 150, pitch: int = 50) -> Samples:
    """Words in a voice of espeak-ng, in the telephone's band, without the silence around them. Full scale is 1."""
    key = hashlib.sha256(repr((_RECIPE, synthesiser(), text, voice, speed, pitch)).encode()).hexdigest()[:24]
    file = CACHE / f"{key}.s16"
    if not file.is_file():
        pcm = np.clip(_trimmed(_band(_espeak(text, voice, speed, pitch))) * 32767, -32768, 32767).astype("<i2")
        CACHE.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{id(pcm)}")
        part.write_bytes(pcm.tobytes())
        part.replace(file)
    return (np.frombuffer(file.read_bytes(), "<i2") / 32768).astype(np.float32)


@cache
def synthesiser() -> str:
    """The version of espeak-ng: others speak otherwise."""
    told = subprocess.run(["espeak-ng", "--version"], capture_output=True, check=True, text=True, timeout=20).stdout
    return told.partition("Data at")[0].strip()


@cache
def noise(name: str, seconds: float | None = None) -> Samples:
    """A sound by name (`NOISES`); those that go on are cut to `seconds` (10)."""
    made = NOISES[name](np.random.default_rng(sum(name.encode())))
    if seconds is not None:
        made = np.tile(made, int(np.ceil(seconds * RATE / len(made))))[: int(seconds * RATE)]
    return made


def timed(words: str, sound: Samples) -> list[tuple[str, int, int]]:
    """Each word with its first and last sample: spread by length over what sounds, so that pauses are nobody's."""
    active = np.flatnonzero(_active(sound))
    spread = spread_words(words, 0, len(active))
    return [(w.word, int(active[w.start_ms]) * _SLICE, (int(active[w.end_ms - 1]) + 1) * _SLICE) for w in spread]


def at_level(sound: Samples, db: float) -> Samples:
    """The sound so loud that its loud half (pauses count for nothing) has that level in dBFS."""
    pieces = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    if not len(pieces):
        return sound
    powers = np.sort(np.mean(np.square(pieces), axis=1))
    loud = float(np.mean(powers[len(powers) // 2 :])) or 1.0
    return (sound * (10 ** (db / 20) / np.sqrt(loud))).astype(np.float32)


def room(seed: int = 3) -> Samples:
    """How a loudspeaker and a microphone in a small room change a sound: 60 ms of decaying reflections, energy 1."""
    rng = np.random.default_rng(seed)
    count = int(0.06 * RATE)
    response = rng.normal(0, 1, count) * np.exp(-np.arange(count) / (0.012 * RATE)) * 0.4
    response[0] = 1.0
    response = np.convolve(response, [0.25, 0.5, 0.25], "same")
    return (response / np.sqrt(np.sum(np.square(response)))).astype(np.float32)


def _espeak(text: str, voice: str, speed: int, pitch: int) -> Samples:
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", "--stdin"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=20)
    with wave.open(io.BytesIO(done.stdout)) as sound:
        source, samples = sound.getframerate(), np.frombuffer(sound.readframes(1 << 30), dtype="<i2")
    return soxr.resample(samples.astype(np.float32) / 32768, source, RATE, quality="HQ")


def _band(sound: Samples) -> Samples:
    """300 to 3400 Hz, as a telephone line lets through."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    gain = np.clip((hertz - 200) / 150, 0, 1) * np.clip((3700 - hertz) / 300, 0, 1)
    return np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)


def _trimmed(sound: Samples) -> Samples:
    active = np.flatnonzero(_active(sound))
    return sound[active[0] * _SLICE : (active[-1] + 1) * _SLICE]


def _active(sound: Samples) -> NDArray[np.bool_]:
    """For each 10 ms: is it within 34 dB of the loudest?"""
    pieces = sound[: len(sound) // _SLICE * _SLICE].reshape(-1, _SLICE)
    power = np.mean(np.square(pieces), axis=1)
    return power > np.max(power) * 10**-3.4


# --- noises ---


def _shaped(rng: np.random.Generator, seconds: float, attack: float, decay: float) -> NDArray[np.float64]:
    at = np.arange(int(seconds * RATE)) / RATE
    return rng.normal(0, 1, len(at)) * np.minimum(1, at / attack) * np.exp(-np.maximum(0, at - attack) / decay)


def _resonant(sound: NDArray[np.float64], *formants: tuple[float, float]) -> NDArray[np.float64]:
    """Colour it as a throat does: `(Hz, width)` each."""
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    gain = np.sum([1 / (1 + ((hertz - centre) / width) ** 2) for centre, width in formants], axis=0)
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))


def _cough(rng: np.random.Generator) -> Samples:
    """Two bursts of breath with the voice in it, 0.25 s each."""
    bursts: list[NDArray[np.float64]] = []
    for pitch in (190.0, 160.0):
        breath = _shaped(rng, 0.25, 0.012, 0.07)
        at = np.arange(len(breath)) / RATE
        voice = np.sign(np.sin(2 * np.pi * pitch * at)) * np.exp(-at / 0.06) * 0.5
        bursts += [_resonant(breath + voice, (650, 150), (1300, 250), (2500, 500)), np.zeros(int(0.12 * RATE))]
    return _band(np.concatenate(bursts).astype(np.float32))


def _throat(rng: np.random.Generator) -> Samples:
    """A throat being cleared: a rough hum of 0.45 s."""
    at = np.arange(int(0.45 * RATE)) / RATE
    rough = np.sign(np.sin(2 * np.pi * (95 + 12 * np.sin(2 * np.pi * 24 * at)) * at)) * (
        1 + 0.6 * rng.normal(0, 1, len(at))
    )
    return _band(_resonant(rough * np.hanning(len(at)), (500, 120), (1100, 200)).astype(np.float32))


def _slam(rng: np.random.Generator) -> Samples:
    """A door falls shut: a thump and its rattle."""
    thump = _resonant(_shaped(rng, 0.5, 0.002, 0.05), (120, 80), (350, 120), (900, 500))
    rattle = np.roll(_shaped(rng, 0.5, 0.003, 0.03), int(0.11 * RATE)) * 0.02
    return _band((thump + rattle).astype(np.float32))


def _click(rng: np.random.Generator) -> Samples:
    """Typing, for as long as it takes to type a few words."""
    keys = np.zeros(int(1.6 * RATE))
    for start in np.cumsum(rng.uniform(0.09, 0.22, 10)):
        at = int(start * RATE)
        stroke = _shaped(rng, 0.03, 0.001, 0.006)
        keys[at : at + len(stroke)] += stroke[: max(0, len(keys) - at)]
    return _band(keys.astype(np.float32))


def _breath(rng: np.random.Generator) -> Samples:
    """Breathing into the microphone for 0.8 s."""
    sound = rng.normal(0, 1, int(0.8 * RATE))
    return _band((_resonant(sound, (500, 300), (1500, 800)) * np.hanning(len(sound))).astype(np.float32))


def _hum(_rng: np.random.Generator) -> Samples:
    """Humming along: a voice without words, 1.2 s."""
    at = np.arange(int(1.2 * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(150 + 15 * np.sin(2 * np.pi * 3 * at)) / RATE
    harmonics = sum(np.sin(phase * k) / k for k in range(1, 12))
    return _band(
        _resonant(harmonics * np.hanning(len(at)) ** 0.3, (300, 80), (1000, 150), (2200, 200)).astype(np.float32)
    )


def _hiss(rng: np.random.Generator) -> Samples:
    """A bad line."""
    return _band(rng.normal(0, 0.1, 10 * RATE).astype(np.float32))


def _traffic(rng: np.random.Generator) -> Samples:
    """A street: rumble that swells and falls."""
    at = np.arange(10 * RATE) / RATE
    rumble = _resonant(rng.normal(0, 1, len(at)), (250, 150), (600, 400))
    return _band((rumble * (0.6 + 0.4 * np.sin(2 * np.pi * at / 3.3))).astype(np.float32))


_CHATTER = (
    "so I told him that it could not go on like this and he just laughed at me",
    "did you see the game last night it was over before it had even begun",
    "we could take the train on sunday and be back before the rain sets in",
    "another coffee please and the bill when you have a moment thank you",
    "no the other one the blue one over there next to the window",
    "she has been working there for seven years and never missed a day",
)


def _crowd(voices: int) -> Samples:
    """That many people talking at once, each in a voice of their own."""
    mixed = np.zeros(10 * RATE, np.float32)
    for place, text in enumerate(_CHATTER[:voices]):
        one = speech(text, ("en-us", "en-gb-x-rp", "en-gb-scotland")[place % 3], 140 + 12 * place, 25 + 12 * place)
        one = np.tile(at_level(one, -20), 10 * RATE // len(one) + 2)[place * 3001 :]
        mixed += one[: len(mixed)]
    return mixed


def _babble(_rng: np.random.Generator) -> Samples:
    """A restaurant."""
    return _crowd(6)


def _tv(rng: np.random.Generator) -> Samples:
    """A television in the next room: one voice and a little music, dulled by the wall."""
    at = np.arange(10 * RATE) / RATE
    music = 0.02 * np.sum([np.sin(2 * np.pi * hertz * at) for hertz in (220, 277, 330)], axis=0)
    sound = _crowd(1) + music
    tail = rng.normal(0, 1, 1600) * np.exp(-np.arange(1600) / 500)
    return _band(np.convolve(sound, np.convolve(tail, np.ones(6) / 6), "full")[: len(sound)].astype(np.float32))


NOISES: dict[str, Callable[[np.random.Generator], Samples]] = {
    "cough": _cough,
    "throat": _throat,
    "slam": _slam,
    "typing": _click,
    "breath": _breath,
    "hum": _hum,
    "hiss": _hiss,
    "traffic": _traffic,
    "babble": _babble,
    "tv": _tv,
}
"""All of them; the last four go on and on."""
