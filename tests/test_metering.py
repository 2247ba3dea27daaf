"""How loud is it, and what is kept: the arithmetic of metering, without a call."""

from __future__ import annotations

import base64
import io
import math
import wave
from dataclasses import dataclass, field

import pytest

from pipelines.audio import ulaw
from pipelines.audio.levels import energy_db
from pipelines.events import CallEvents
from pipelines.metering import MAX_MESSAGE_SECONDS, MAX_TURN_SECONDS, SILENT, BotSound, Metering, UserSound, measure
from providers.base import MULAW_8K, PCM_16K, VadFrame
from tests.speech import frames, silence_mulaw, silence_pcm, tone_pcm
from wire.config import Analysis, CallConfig, FluxStt, LocalVoice, TurnConfig, TurnMode
from wire.events import AudioMetrics, BotAudioComplete, CallEvent, TurnAudio


@dataclass
class Time:
    """A clock that is told the time."""

    at: float = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + 1_000_000


@dataclass
class Events:
    """What was published."""

    got: list[CallEvent] = field(default_factory=list[CallEvent])

    def deliver(self, event: CallEvent) -> None:
        self.got.append(event)


def tone_mulaw(ms: int, level_db: float = -12.0) -> bytes:
    return ulaw.encode(tone_pcm(440, ms, 8000, level_db))


def asking(**wanted: bool | int) -> CallConfig:
    analysis = Analysis(**wanted)  # pyright: ignore[reportArgumentType] fields of two types
    return CallConfig(
        language="en",
        voice=LocalVoice(),
        stt=FluxStt(),
        turn=TurnConfig(mode=TurnMode.NATIVE),
        analysis=analysis,
    )


def metering(**wanted: bool | int) -> tuple[Metering, Time, Events]:
    clock, told = Time(), Events()
    events = CallEvents("CA1", clock)
    events.watch(told)
    meter = Metering(MULAW_8K, events, clock)
    meter.configure(asking(**wanted))
    return meter, clock, told


def decoded(event: TurnAudio | BotAudioComplete) -> bytes:
    """The samples of a told WAV file; it must be what the event says."""
    assert event.format == "wav"
    with wave.open(io.BytesIO(base64.b64decode(event.audio, validate=True))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth()) == (1, 2)
        assert sound.getframerate() == event.sample_rate
        return sound.readframes(sound.getnframes())


def metered_bot() -> BotSound:
    sound = BotSound(MULAW_8K, lambda _id, _pcm: None)
    sound.metered = True
    return sound


# --- loudness ---


@pytest.mark.proves("row-108")
@pytest.mark.parametrize("level_db", [-6.0, -12.0, -20.0, -35.0, -50.0])
def test_a_sine_reads_as_the_level_rms_and_peak_it_has(level_db: float) -> None:
    reading = measure(tone_pcm(440, 100, 8000, level_db))
    assert reading.energy_db == pytest.approx(level_db, abs=0.1)
    assert reading.rms == pytest.approx(10 ** (level_db / 20), rel=0.02)
    assert reading.peak == pytest.approx(10 ** (level_db / 20) * math.sqrt(2), rel=0.02)
    assert reading.energy_db == pytest.approx(20 * math.log10(reading.rms), abs=0.2)


@pytest.mark.proves("row-108")
def test_levels_stay_within_their_ranges_at_both_ends() -> None:
    loudest = measure(b"\x00\x80" * 800)
    assert (loudest.energy_db, loudest.rms, loudest.peak) == (0.0, 1.0, 1.0)
    faintest = measure(b"\x01\x00\xff\xff" * 400)
    assert faintest.energy_db == -60.0
    assert 0 <= faintest.rms <= faintest.peak < 0.001


@pytest.mark.proves("row-108")
@pytest.mark.parametrize("sound", [b"", silence_pcm(100, 8000)])
def test_a_silent_source_is_silent_in_every_field(sound: bytes) -> None:
    reading = measure(sound)
    fields = (reading.energy_db, reading.rms, reading.peak, reading.is_speech, reading.vad_prob)
    assert fields == (-60.0, 0.0, 0.0, False, 0.0)


def test_the_users_speech_is_what_the_voice_detector_heard_in_the_interval() -> None:
    sound = UserSound(MULAW_8K)
    sound.metered = True
    said: list[tuple[bool, float]] = []
    for probabilities in ((0.1, 0.9, 0.3), (), (0.2,)):
        sound.heard(tone_mulaw(100))
        for probability in probabilities:
            sound.voice(VadFrame(0, probability, -12.0))
        reading = sound.read()
        said.append((reading.is_speech, reading.vad_prob))
    assert said == [(True, 0.9), (False, 0.3), (False, 0.2)], "the highest of the interval, or the last there was"


def test_digital_silence_is_no_speech_whatever_the_detector_still_believes() -> None:
    sound = UserSound(MULAW_8K)
    sound.metered = True
    sound.voice(VadFrame(0, 0.9, -12.0))
    sound.heard(silence_mulaw(100))
    assert sound.read() == SILENT


def test_a_line_that_stutters_does_not_flicker() -> None:
    sound = UserSound(MULAW_8K)
    sound.metered = True
    sound.heard(tone_mulaw(20))
    first = sound.read()
    assert sound.read() == first != SILENT


@pytest.mark.proves("row-108")
@pytest.mark.parametrize(("level_db", "speaks"), [(-38.0, True), (-42.0, False)])
def test_the_bot_speaks_when_its_rms_is_above_one_hundredth(level_db: float, speaks: bool) -> None:
    sound = metered_bot()
    sound.sent("m1", tone_mulaw(100, level_db), 0)
    sound.played("m1", 100)
    reading = sound.read()
    assert (reading.is_speech, reading.vad_prob) == (speaks, 1.0 if speaks else 0.0)
    assert reading.energy_db == pytest.approx(level_db, abs=0.5)


def test_the_bot_is_metered_when_it_is_heard_and_not_when_it_is_sent() -> None:
    sound = metered_bot()
    sound.sent("m1", silence_mulaw(100) + tone_mulaw(100), 0)
    assert sound.read() == SILENT
    sound.played("m1", 100)
    assert sound.read() == SILENT, "the silent half"
    sound.played("m1", 200)
    assert sound.read().energy_db == pytest.approx(-12, abs=0.3)
    assert sound.read() == SILENT, "nothing new was heard"


def test_what_was_sent_but_thrown_away_is_never_metered() -> None:
    sound = metered_bot()
    sound.sent("m1", silence_mulaw(100) + tone_mulaw(100), 0)
    sound.over("m1", 100)
    sound.sent("m2", silence_mulaw(100), 0)
    sound.played("m2", 100)
    assert sound.read() == SILENT


def test_metering_that_begins_in_mid_message_begins_where_the_message_is() -> None:
    sound = metered_bot()
    sound.sent("m1", tone_mulaw(60), 8 * 1000)
    sound.played("m1", 990)
    assert sound.read() == SILENT, "of before"
    sound.played("m1", 1060)
    assert sound.read().is_speech


# --- intervals ---


@pytest.mark.proves("row-109")
@pytest.mark.parametrize(("interval_ms", "asked"), [(20, 20), (50, 50), (100, 100), (1000, 1000), (1000, 60_000)])
def test_each_source_is_told_once_an_interval_on_an_absolute_schedule(interval_ms: int, asked: int) -> None:
    meter, clock, told = metering(send_audio_metrics=True, audio_metrics_interval_ms=asked)
    began = clock.at
    for tick in range(1, 501):
        # Beats come late by up to 15 ms, which must not add up.
        clock.at = began + tick * 0.02 + (tick * 7 % 16) / 1000
        meter.beat(clock.at)
    per_source = 10_000 // interval_ms
    metrics = [event for event in told.got if isinstance(event, AudioMetrics)]
    assert [event.source for event in metrics] == ["user", "bot"] * per_source
    late = [
        (event.timestamp - 1_000_000 - began) * 1000 - (at // 2 + 1) * interval_ms for at, event in enumerate(metrics)
    ]
    assert all(-0.01 <= ms < 36 for ms in late), "within the beat that follows"


def test_missed_intervals_are_not_made_up_for() -> None:
    meter, clock, told = metering(send_audio_metrics=True)
    clock.at += 5.03
    meter.beat(clock.at)
    meter.beat(clock.at + 0.02)
    assert len(told.got) == 2
    meter.beat(clock.at + 0.07)
    assert len(told.got) == 4


def test_nothing_is_told_or_kept_that_was_not_asked_for() -> None:
    meter, clock, told = metering()
    assert meter.user is None
    assert meter.bot is None
    for _ in range(100):
        clock.at += 0.02
        meter.beat(clock.at)
    meter.turn_ended(1, 1000)
    assert told.got == []


def test_metrics_can_be_switched_on_and_off() -> None:
    meter, clock, told = metering()
    meter.configure(asking(send_audio_metrics=True))
    assert meter.user is not None
    clock.at += 0.1
    meter.beat(clock.at)
    assert len(told.got) == 2
    meter.configure(asking())
    clock.at += 0.1
    meter.beat(clock.at)
    assert (len(told.got), meter.user, meter.bot) == (2, None, None)


def test_a_change_of_something_else_leaves_the_schedule_alone() -> None:
    meter, clock, told = metering(send_audio_metrics=True)
    for _ in range(10):
        clock.at += 0.05
        meter.configure(asking(send_audio_metrics=True, send_turn_audio=clock.at % 2 < 1))
        meter.beat(clock.at)
    assert len(told.got) == 2 * 5


def test_nothing_is_told_after_the_call() -> None:
    clock, told = Time(), Events()
    events = CallEvents("CA1", clock)
    events.watch(told)
    meter = Metering(MULAW_8K, events, clock)
    meter.configure(asking(send_audio_metrics=True, send_turn_audio=True))
    events.close()
    clock.at += 1
    meter.beat(clock.at)
    meter.turn_ended(1, 1000)
    assert told.got == []


# --- the sound itself ---


def turn_audio(line_audio: bytes, length_ms: int) -> TurnAudio:
    meter, _, told = metering(send_turn_audio=True)
    assert meter.user is not None
    for frame in frames(line_audio):
        meter.user.heard(frame)
    meter.turn_ended(3, length_ms)
    [event] = told.got
    assert isinstance(event, TurnAudio)
    assert event.turn_id == 3
    return event


@pytest.mark.proves("row-110")
def test_a_turn_is_told_with_its_sound_and_a_little_before() -> None:
    event = turn_audio(silence_mulaw(3000) + tone_mulaw(1000) + silence_mulaw(500), 1500)
    sound = decoded(event)
    assert len(sound) == 2 * 8 * (200 + 1500)
    assert energy_db(sound[: 2 * 8 * 200]) == -60
    assert energy_db(sound[2 * 8 * 200 : 2 * 8 * 1200]) == pytest.approx(-12, abs=0.3)


def test_a_turn_that_began_over_the_bot_is_told_from_its_first_sound() -> None:
    said = tone_mulaw(400) + silence_mulaw(150) + tone_mulaw(450)
    event = turn_audio(tone_mulaw(300) + silence_mulaw(2000) + said + silence_mulaw(500), 900)
    assert len(decoded(event)) == 2 * 8 * (200 + 1500)


@pytest.mark.proves("row-110")
def test_of_a_turn_that_does_not_end_the_last_minute_is_told() -> None:
    sound = decoded(turn_audio(tone_mulaw(1000) * 70, 70_000))
    assert MAX_TURN_SECONDS <= len(sound) / 16000 < MAX_TURN_SECONDS + 1.1


def test_a_turn_that_began_with_the_call_has_no_more_than_there_was() -> None:
    assert len(decoded(turn_audio(tone_mulaw(1000), 1000))) == 2 * 8 * 1000


@pytest.mark.proves("row-110")
@pytest.mark.parametrize(("heard_ms", "told_ms"), [(2000, 2000), (730, 730)])
def test_of_a_message_exactly_what_was_heard_is_told(heard_ms: int, told_ms: int) -> None:
    meter, _, told = metering(send_bot_audio=True)
    assert meter.bot is not None
    for at, frame in enumerate(frames(tone_mulaw(500) + tone_mulaw(1500, -24.0), 480)):
        meter.bot.sent("m1", frame, at * 480)
    meter.bot.played("m1", heard_ms - 50)
    assert told.got == []
    meter.bot.over("m1", heard_ms)
    [event] = told.got
    assert isinstance(event, BotAudioComplete)
    assert (event.message_id, event.duration_ms, event.sample_rate) == ("m1", told_ms, 8000)
    sound = decoded(event)
    assert len(sound) == 2 * 8 * told_ms
    assert energy_db(sound[: 2 * 8 * 500]) == pytest.approx(-12, abs=0.3)
    assert energy_db(sound[2 * 8 * 510 :]) == pytest.approx(-24, abs=0.3)


def test_of_a_message_nobody_heard_nothing_is_told() -> None:
    meter, _, told = metering(send_bot_audio=True)
    assert meter.bot is not None
    meter.bot.sent("m1", tone_mulaw(60), 0)
    meter.bot.over("m1", 0)
    meter.bot.over("m2", 500)
    assert told.got == []


def test_a_message_whose_beginning_was_missed_is_not_told() -> None:
    meter, _, told = metering(send_bot_audio=True)
    assert meter.bot is not None
    meter.bot.sent("m1", tone_mulaw(60), 480)
    meter.bot.over("m1", 120)
    assert told.got == []


def test_of_a_message_without_end_its_first_two_minutes_are_told() -> None:
    meter, _, told = metering(send_bot_audio=True)
    assert meter.bot is not None
    for second in range(MAX_MESSAGE_SECONDS + 5):
        meter.bot.sent("m1", tone_mulaw(1000), second * 8000)
        meter.bot.played("m1", second * 1000)
    meter.bot.over("m1", (MAX_MESSAGE_SECONDS + 5) * 1000)
    [event] = told.got
    assert isinstance(event, BotAudioComplete)
    assert event.duration_ms == MAX_MESSAGE_SECONDS * 1000


def test_a_line_of_samples_is_told_as_it_is() -> None:
    told: list[bytes] = []
    sound = BotSound(PCM_16K, lambda _, pcm: told.append(pcm))
    sound.kept = True
    tone = tone_pcm(440, 200, 16000)
    sound.sent("m1", tone, 0)
    sound.over("m1", 33)
    assert told == [tone[: 33 * 32]]
