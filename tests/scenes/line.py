"""The telephone line of a scene: the caller's sounds, the room, the echo, and the carrier's play-out of the bot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from demo.telephone import PlayOut
from pipelines.audio import ulaw
from pipelines.medium import MediumSink
from providers.base import MULAW_8K
from tests.scenes.corpus import Part, Scene, Sound
from tests.scenes.sounds import RATE, VOICES, Samples, at_level, noise, room, speech, timed

FRAME = 160
LONGEST_S = 60
BOT_DB = -19.0
"""How loud the bot speaks."""
_LINE_NOISE_DB = -66.0
_AUDIBLE_ECHO_DB = -48.0
"""A recogniser understands an echo that is louder."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word on the line, in samples since it opened. `finished`: whoever said it had nothing to add."""

    text: str
    start: int
    end: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A sound of the caller and where it lies, in samples. `words` are what can be heard in it."""

    sound: Sound
    start: int
    end: int
    words: tuple[Word, ...]


class StageLine:
    """A `pipelines.medium.Medium`; `beat` lets 20 ms pass."""

    audio = MULAW_8K

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.began_at = asyncio.get_running_loop().time()
        self.play = PlayOut(self.began_at)
        self.placed: list[Placed] = []
        self.words: list[Word] = []
        """What a recogniser can hear, in no order."""
        self.said = bytearray()
        self._track = _background(scene)
        self._marks: list[str] = []
        """Reached, and not yet told."""
        self._sent = 0
        self._echoes: list[Word] = []
        self._room = room() if scene.echo is None or scene.echo.room else np.ones(1, np.float32)

    @property
    def now(self) -> int:
        """Samples that have passed."""
        return self._sent

    @property
    def now_s(self) -> float:
        return self._sent / RATE

    # --- Medium ---

    def send_audio(self, audio: bytes) -> None:
        self._marks += self.play.append(audio, self._time()).marks

    def send_mark(self, name: str) -> None:
        self._marks += self.play.mark(name, self._time()).marks

    def send_clear(self) -> None:
        self._marks += self.play.clear(self._time()).marks
        heard = self._sent + self._echo_delay
        self._echoes = [word for word in self._echoes if word.end <= heard]

    async def hang_up(self) -> None:
        """Nothing to release."""

    # --- the caller's end ---

    def place(self, sound: Sound, start: int, *, finished: bool) -> None:
        """Let a sound begin there, or now if that is past."""
        start = max(start, self._sent)
        samples = _rendered(self._scene, sound)
        self._track[start : start + len(samples)] += samples
        found = timed(sound.words, samples)
        words = tuple(
            Word(text, start + begin, start + end, finished and place == len(found))
            for place, (text, begin, end) in enumerate(found, 1)
        )
        self.words += words
        self.placed.append(Placed(sound, start, start + len(samples), words))

    def bot_says(self, text: str, start: int, audio: bytes) -> None:
        """The bot's message sounds from there on: what a recogniser makes of its echo."""
        echo = self._scene.echo
        if echo is None or BOT_DB - echo.loss_db < _AUDIBLE_ECHO_DB:
            return
        start += self._echo_delay
        samples = np.frombuffer(ulaw.decode(audio), "<i2").astype(np.float32)
        words = timed(text, samples)
        for place, (word, begin, end) in enumerate(words, 1):
            self._echoes.append(Word(word, start + begin, start + end, place == len(words)))

    def heard_words(self) -> list[Word]:
        """Every word that began until now, in order; words of the echo under the caller's own are lost."""
        spoken = [(one.start, one.end) for one in self.placed if one.sound.words]
        clear = [w for w in self._echoes if not any(start < w.end and w.start < end for start, end in spoken)]
        return sorted((w for w in [*self.words, *clear] if w.start <= self._sent), key=lambda word: word.start)

    def beat(self, sink: MediumSink) -> None:
        """The next 20 ms of the caller's end go to the call; the carrier has played as much."""
        reached = [*self._marks, *self.play.advance(self._time()).marks]
        self._marks.clear()
        for mark in reached:
            sink.on_mark(mark)
        at = self._sent
        samples = self._track[at : at + FRAME] + self._echo(at)
        self._sent += FRAME
        frame = ulaw.encode((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        self.said += frame
        sink.on_audio(frame)

    # --- inside ---

    @property
    def _echo_delay(self) -> int:
        return 0 if self._scene.echo is None else self._scene.echo.delay_ms * RATE // 1000

    def _echo(self, at: int) -> Samples | float:
        """What comes back of what was played `delay_ms` ago."""
        echo = self._scene.echo
        if echo is None:
            return 0.0
        until = at + FRAME - self._echo_delay
        start = max(0, until - FRAME - len(self._room) + 1)
        if until <= 0:
            return 0.0
        played = np.frombuffer(ulaw.decode(bytes(self.play.heard[start:until])), "<i2").astype(np.float32) / 32768
        # A small loudspeaker at full volume bends what it plays.
        bent = np.tanh(played * 3) / 3
        back = np.convolve(bent, self._room)[: len(bent)][-FRAME:] * np.float32(10 ** (-echo.loss_db / 20))
        return np.pad(back, (FRAME - len(back), 0)).astype(np.float32)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def _rendered(scene: Scene, sound: Sound) -> Samples:
    if sound.noise:
        samples = noise(sound.noise)
    else:
        samples = speech(sound.text, sound.voice or VOICES[scene.language], sound.speed, sound.pitch)
    samples = at_level(samples, sound.level)
    return samples if sound.keep is None else samples[: int(sound.keep * RATE)]


def _background(scene: Scene) -> Samples:
    quiet = np.random.default_rng(7).normal(0, 10 ** (_LINE_NOISE_DB / 20), LONGEST_S * RATE).astype(np.float32)
    if scene.background is None:
        return quiet
    return quiet + at_level(noise(scene.background.noise, LONGEST_S), scene.background.db)


def finishes(sounds: tuple[Sound, ...], index: int) -> bool:
    """Does the caller's turn end with that sound?"""
    following = next((sound for sound in sounds[index + 1 :] if sound.role is not Part.NOISE), None)
    goes_on = following is not None and following.role is Part.TURN and following.after == "said"
    return not (goes_on or sounds[index].role is Part.CUT)
