"""The bot's own voice on the caller's line, told from the caller's by sound and words."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.listening.echo import SLOT_MS, Echo, Monitored
from pipelines.listening.echo_words import EchoWords
from providers.base import MULAW_8K, NativeTurn, Transcript, TurnMoment
from tests.scenes.sounds import RATE, Samples, at_level, room, speech

BOT = "Let me tell you what we have today. There is grilled fish with lemon, a mushroom risotto, and roast lamb."
USER = "I will have the fish please, and a glass of water."
SLOT = RATE * SLOT_MS // 1000
LEAD = 9
"""Slots that the bot's sound is sent ahead of its time."""


def bot() -> Samples:
    return at_level(speech(BOT, "en-gb-x-rp", 165), -19)


def echo_of(sound: Samples, delay_ms: int, loss_db: float) -> Samples:
    back = np.convolve(np.tanh(sound * 3) / 3, room())[: len(sound)] * 10 ** (-loss_db / 20)
    return np.concatenate([np.zeros(delay_ms * RATE // 1000), back]).astype(np.float32)


def mixed(length: int, *sounds: tuple[Samples, float]) -> Samples:
    """Sounds, each from a second on, over a quiet line."""
    line = np.random.default_rng(1).normal(0, 10 ** (-66 / 20), length).astype(np.float32)
    for sound, start in sounds:
        at = round(start * RATE)
        part = sound[: max(0, length - at)]
        line[at : at + len(part)] += part
    return line


class Line:
    """Lets both sides sound; `explained` and `alone` are what was thought of each slot when it had just passed."""

    def __init__(self) -> None:
        self.echo = Echo(RATE)
        self.explained: list[bool] = []
        self.alone: list[bool] = []

    def play(self, sound: Samples, line: Samples) -> Line:
        ahead = [_pcm(piece) for piece in _slots(sound)]
        for place, piece in enumerate(_slots(line)):
            due = ahead[:LEAD] if place == 0 else ahead[place + LEAD - 1 : place + LEAD]
            for part in due:
                self.echo.sent(self.now_ms, part)
            self.echo.heard(_pcm(piece))
            self.explained.append(self.echo.explains(self.now_ms + SLOT_MS, SLOT_MS))
            self.alone.append(self.echo.alone)
        return self

    @property
    def now_ms(self) -> int:
        return len(self.explained) * SLOT_MS

    def share(self, start: float, end: float) -> float:
        """Of the slots between two seconds, how many were explained."""
        slots = self.explained[round(start * 50) : round(end * 50)]
        return sum(slots) / len(slots)


def _slots(sound: Samples) -> list[Samples]:
    return [sound[at : at + SLOT] for at in range(0, len(sound), SLOT)]


def _pcm(sound: Samples) -> bytes:
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize(("delay_ms", "loss_db"), [(60, 12), (120, 18), (250, 15), (180, 14)])
def test_an_echo_is_found_within_a_second_with_its_delay_and_loss(delay_ms: int, loss_db: float) -> None:
    sound = bot()
    line = Line().play(sound[:RATE], mixed(RATE, (echo_of(sound, delay_ms, loss_db), 0.0)))
    assert line.echo.loss_db == pytest.approx(loss_db, abs=4)
    assert line.echo.delay_ms == pytest.approx(delay_ms, abs=SLOT_MS)


def test_what_the_echo_explains_is_nobodys_voice_from_the_first_word_to_its_tail() -> None:
    sound = bot()
    heard = mixed(len(sound) + RATE, (echo_of(sound, 120, 14), 0.0))
    line = Line().play(sound, heard)
    loud = [at for at, piece in enumerate(_slots(heard)) if np.std(piece) > 0.01]
    assert sum(not line.explained[at] for at in loud) <= 0.03 * len(loud)
    assert all(line.alone[40 : len(sound) // SLOT])


def test_a_caller_who_talks_over_the_echo_is_somebody_else() -> None:
    sound, user = bot(), at_level(speech(USER, "en-us"), -22)
    line = Line().play(sound, mixed(len(sound), (echo_of(sound, 120, 16), 0.0), (user, 3.0)))
    assert line.share(2.0, 2.9) > 0.7
    assert line.share(3.0, 4.0) < 0.7, "0.3 s of a voice within a second"
    assert line.alone[round(2.9 * 50)]
    assert not line.alone[round(3.4 * 50)]


@pytest.mark.parametrize("start", [0.1, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("db", [-22.0, -30.0])
def test_two_people_talking_at_once_are_no_echo(start: float, db: float) -> None:
    sound, user = bot(), at_level(speech(USER, "en-us"), db)
    line = Line().play(sound, mixed(len(sound), (user, start)))
    assert line.echo.loss_db is None
    assert line.echo.known
    assert not any(line.explained[round(1.6 * 50) :])
    assert not any(line.alone)


def test_a_line_that_stops_bringing_the_bot_back_is_forgotten() -> None:
    sound = np.concatenate([bot(), bot()])
    back = echo_of(sound, 120, 15)
    back[len(sound) // 2 :] = 0
    line = Line().play(sound, mixed(len(sound), (back, 0.0)))
    assert any(line.alone)
    assert line.echo.loss_db is None


@pytest.mark.parametrize("taken_back", [False, True])
def test_sound_that_was_taken_back_leaves_no_echo(taken_back: bool) -> None:
    sound = bot()
    line = Line().play(sound[:RATE], mixed(RATE, (echo_of(sound, 60, 12), 0.0)))
    line.play(np.zeros(0, np.float32), mixed(RATE))
    line.echo.sent(line.now_ms, _pcm(sound[: RATE // 2]))
    if taken_back:
        line.echo.cleared(line.now_ms)
    before = len(line.explained)
    line.play(np.zeros(0, np.float32), echo_of(sound[: RATE // 2], 60, 12))
    assert (sum(line.explained[before + 8 :]) > 15) is not taken_back


def test_the_bots_words_are_taken_out_and_the_callers_are_left() -> None:
    words = EchoWords()
    assert words.transcript(Transcript("grilled fish", is_final=False), alone=True).text == ""
    assert words.transcript(Transcript("grilled fish with", is_final=False), alone=True).text == ""
    mine = words.transcript(Transcript("Grilled fish, with I will have", is_final=False), alone=False)
    assert mine.text == "I will have"
    assert (
        words.transcript(Transcript("grilled fish with I will have it", is_final=True), alone=False).text
        == "I will have it"
    )
    assert words.transcript(Transcript("grilled fish", is_final=True), alone=False).text == "grilled fish", (
        "a new segment"
    )


def test_a_turn_of_nothing_but_the_bots_words_never_was() -> None:
    words = EchoWords()
    start, update, end = TurnMoment.START, TurnMoment.UPDATE, TurnMoment.END
    assert words.turn(NativeTurn(start, "grilled", 0), alone=True) is None
    assert words.turn(NativeTurn(update, "grilled fish", 0), alone=True) is None
    assert words.turn(NativeTurn(end, "grilled fish", 0), alone=True) is None
    mine = NativeTurn(start, "I will", 1)
    assert words.turn(mine, alone=False) is mine


def test_a_turn_that_the_caller_joined_keeps_the_callers_words_to_its_end() -> None:
    words = EchoWords()
    assert words.turn(NativeTurn(TurnMoment.START, "grilled fish", 0), alone=True) is None
    joined = words.turn(NativeTurn(TurnMoment.UPDATE, "grilled fish I will", 0), alone=False)
    assert joined is not None
    assert joined.text == "I will"
    ended = words.turn(NativeTurn(TurnMoment.END, "grilled fish I will have it", 0), alone=False)
    assert ended is not None
    assert (ended.moment, ended.text) == (TurnMoment.END, "I will have it")


class Wire:
    """A medium that writes down what it is told."""

    audio = MULAW_8K

    def __init__(self) -> None:
        self.told: list[object] = []

    def send_audio(self, audio: bytes) -> None:
        self.told.append(audio)

    def send_mark(self, name: str) -> None:
        self.told.append(name)

    def send_clear(self) -> None:
        self.told.append("clear")

    async def hang_up(self) -> None:
        self.told.append("hang up")


async def test_a_monitored_line_carries_everything_as_it_is() -> None:
    wire = Wire()
    line = Monitored(wire, Echo(RATE), lambda: 0)
    line.send_audio(b"\x10" * 160)
    line.send_mark("m1:1")
    line.send_clear()
    await line.hang_up()
    assert wire.told == [b"\x10" * 160, "m1:1", "clear", "hang up"]
    assert line.audio is MULAW_8K
