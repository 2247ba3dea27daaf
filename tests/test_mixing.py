"""The mix of a call: where everything lies in it, and that nothing is missing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.audio import ulaw
from pipelines.mixing import EARLY_MS, HOLD_BACK_MS, SLICE_MS, Mixer
from providers.base import MULAW_8K, PCM_8K, PCM_16K, AudioFormat
from tests.speech import noise_pcm, tone_pcm

FRAME = 0.02


def samples(pcm: bytes) -> NDArray[np.int16]:
    return np.frombuffer(pcm, np.int16)


class Line:
    """A mixer that is fed in time; what comes out in all."""

    def __init__(self, line: AudioFormat = PCM_8K, began: float = 100.0) -> None:
        self.began = self.now = began
        self.mixer = Mixer(line, began, began)
        self.out = bytearray()

    def until(self, at: float) -> None:
        """Let time pass, in ticks."""
        while self.now < self.began + at - 1e-9:
            self.now = min(self.now + FRAME, self.began + at)
            self.tick()

    def tick(self) -> None:
        self.out += b"".join(self.mixer.due(self.now))

    def speak(self, pcm: bytes) -> None:
        """The caller, in frames, as the line brings them: each when it is full."""
        size = int(self.mixer.rate * FRAME) * 2
        for at in range(0, len(pcm), size):
            self.now += FRAME
            self.mixer.heard(pcm[at : at + size], self.now)
            self.tick()

    def end(self) -> NDArray[np.int16]:
        self.out += b"".join(self.mixer.rest(self.now))
        return samples(bytes(self.out))


@pytest.mark.proves("row-137")
@pytest.mark.parametrize(("line", "size"), [(MULAW_8K, 800), (PCM_8K, 800), (PCM_16K, 1600)])
def test_a_slice_is_fifty_milliseconds_of_16_bit_samples_at_the_lines_rate(line: AudioFormat, size: int) -> None:
    mixer = Mixer(line, 100.0, 100.0)
    slices = mixer.due(101.5)
    assert {len(one) for one in slices} == {size}
    assert len(slices) == 26
    assert len(slices + mixer.rest(101.5)) == 30


@pytest.mark.proves("row-93", "row-141")
def test_each_side_lies_where_it_was_heard_and_the_rest_is_silence() -> None:
    caller, bot = noise_pcm(400, -20.0, 8000, seed=1), noise_pcm(500, -20.0, 8000, seed=2)
    line = Line()
    line.until(1.0)
    line.speak(caller)
    line.until(2.0)
    line.mixer.sent(bot, line.now)
    line.until(3.0)
    mix = line.end()
    expected = np.zeros(3 * 8000, np.int16)
    expected[8000 : 8000 + 3200] = samples(caller)
    expected[16000 : 16000 + 4000] = samples(bot)
    assert np.array_equal(mix, expected)


def test_what_both_say_at_once_is_added_and_saturates() -> None:
    loud = np.full(8000, 30000, np.int16).tobytes()
    line = Line()
    line.mixer.sent(loud, line.now)
    line.speak(loud)
    mix = line.end()
    assert set(mix[:7600]) == {32767}
    quiet = Line()
    quiet.mixer.sent(np.full(8000, -1000, np.int16).tobytes(), quiet.now)
    quiet.speak(np.full(8000, 300, np.int16).tobytes())
    assert set(quiet.end()[:7600]) == {-700}


@pytest.mark.proves("row-141")
def test_audio_that_is_sent_ahead_lies_where_it_is_played() -> None:
    line = Line()
    speech = noise_pcm(600, -20.0, 8000)
    for piece in pieces(speech, 960):
        line.mixer.sent(piece, line.now)
    line.until(1.0)
    mix = line.end()
    assert np.array_equal(mix[:4800], samples(speech))
    assert not mix[4800:].any()


@pytest.mark.proves("row-142")
def test_a_clear_takes_back_what_was_not_played_and_nothing_else() -> None:
    speech = tone_pcm(440, 2000, 8000)
    line = Line()
    line.mixer.sent(speech, line.now)
    line.until(0.7)
    line.mixer.cleared(line.now)
    line.until(1.2)
    line.mixer.sent(speech[:1600], line.now)
    line.until(2.0)
    mix = line.end()
    assert np.array_equal(mix[:5600], samples(speech)[:5600])
    assert not mix[5600:9600].any(), "no audio of the bot after the interruption"
    assert np.array_equal(mix[9600:10400], samples(speech)[:800])
    assert not mix[10400:].any()
    assert len(mix) == 16000


@pytest.mark.proves("row-93")
def test_a_far_end_that_begins_late_is_believed_when_it_says_so() -> None:
    """The first echo after a silence tells when playing began; it comes in time to move everything."""
    speech = noise_pcm(500, -20.0, 8000)
    line = Line()
    line.until(1.0)
    line.mixer.sent(speech[:320], line.now)
    line.mixer.marked("first")
    line.mixer.sent(speech[320:], line.now)
    line.mixer.marked("last")
    line.until(1.12)
    line.mixer.echoed("first", line.now)
    line.until(1.7)
    line.mixer.echoed("last", line.now)
    line.until(2.0)
    mix = line.end()
    assert np.array_equal(mix[8800 : 8800 + 4000], samples(speech)), "a tenth of a second later"
    assert not mix[:8800].any()
    assert not mix[12800:].any()


def test_echoes_that_come_early_or_after_a_clear_or_of_nothing_move_nothing() -> None:
    speech = noise_pcm(500, -20.0, 8000)
    line = Line()
    line.mixer.echoed("unknown", line.now)
    line.mixer.sent(speech, line.now)
    line.mixer.marked("m")
    line.until(0.1)
    line.mixer.echoed("m", line.now)
    line.mixer.marked("n")
    line.mixer.cleared(line.now)
    line.mixer.echoed("n", line.now)
    line.until(1.0)
    mix = line.end()
    assert np.array_equal(mix[:800], samples(speech)[:800])
    assert not mix[800:].any()


def test_caller_audio_that_was_held_up_finds_its_place() -> None:
    """A stall of the network, then all at once: no gap was there, so none stays."""
    voice = noise_pcm(1000, -20.0, 8000)
    line = Line()
    line.speak(voice[:8000])
    line.until(0.65)
    line.now -= FRAME
    for piece in pieces(voice[8000:10400], 320):
        line.mixer.heard(piece, line.now + FRAME)
    line.now += FRAME
    line.speak(voice[10400:])
    mix = line.end()
    assert np.array_equal(mix[:8000], samples(voice))


def test_caller_audio_that_was_held_up_too_long_keeps_later_audio_in_time() -> None:
    voice = noise_pcm(2000, -20.0, 8000)
    line = Line()
    line.speak(voice[:8000])
    line.until(1.5)
    for piece in pieces(voice[8000:24000], 320):
        line.mixer.heard(piece, line.now)
    line.speak(voice[24000:])
    mix = line.end()
    late = HOLD_BACK_MS * 8
    assert np.array_equal(mix[:4000], samples(voice)[:4000])
    assert not mix[4000 : 12000 - late - 400].any(), "what came when its time was mixed is left out"
    shift = next(n for n in range(EARLY_MS * 8 + 1) if np.array_equal(mix[12000:12400], voice_at(voice, 12000 - n)))
    assert np.array_equal(mix[12000:], samples(voice)[12000 - shift : 16000 - shift])


def test_a_line_that_brings_nothing_is_silent_for_so_long() -> None:
    voice = noise_pcm(200, -20.0, 8000)
    line = Line()
    line.speak(voice)
    line.until(3.0)
    line.speak(voice)
    mix = line.end()
    assert np.array_equal(mix[:1600], samples(voice))
    assert not mix[1600:24000].any()
    assert np.array_equal(mix[24000:25600], samples(voice))


def test_frames_that_arrive_unevenly_leave_no_gaps_and_no_overlaps() -> None:
    voice = noise_pcm(4000, -20.0, 8000)
    jitter = np.random.default_rng(3).uniform(0.0, 0.03, 200)
    line = Line()
    arrivals = np.maximum.accumulate([(number + 1) * FRAME + late for number, late in enumerate(jitter)])
    for piece, arrival in zip(pieces(voice, 320), arrivals, strict=True):
        line.until(float(arrival))
        line.mixer.heard(piece, line.now)
    line.until(4.1)
    mix = line.end()
    lag = int(np.argmax(mix != 0))
    assert lag <= 400
    assert np.array_equal(mix[lag : lag + 32000], samples(voice))


@pytest.mark.parametrize("rate", [8008, 7992])
def test_a_line_whose_clock_is_not_ours_never_drifts_away(rate: int) -> None:
    """A tenth of a percent, ten times worse than any real one, for two minutes: every frame is named by its samples."""
    line = Line()
    spoken_at: list[float] = []
    for number in range(1, 6000):
        line.until(number * FRAME * 8000 / rate)
        line.mixer.heard(np.full(160, number, np.int16).tobytes(), line.now)
        spoken_at.append(line.now - line.began - FRAME)
    line.until(line.now - line.began + 0.3)
    mix = line.end()
    numbers, found = np.unique(mix, return_index=True)
    numbers, found = numbers[1:], found[1:] / 8000
    assert len(numbers) > 5980
    assert np.abs(found - np.array(spoken_at)[numbers - 1]).max() <= 0.05


@pytest.mark.proves("row-93")
def test_a_late_tick_cuts_several_slices_and_no_time_is_lost() -> None:
    voice = noise_pcm(3000, -20.0, 8000)
    mixer = Mixer(PCM_8K, 0.0, 0.0)
    mixer.sent(voice, 0.0)
    counts: list[int] = []
    out = b""
    for now in (0.1, 0.24, 0.26, 1.3, 1.31, 2.9):
        slices = mixer.due(now)
        counts.append(len(slices))
        out += b"".join(slices)
    assert counts == [0, 0, 1, 21, 0, 32]
    out += b"".join(mixer.rest(3.0))
    assert out == voice
    assert mixer.position == 24000


@pytest.mark.parametrize("ended", [0.0, 0.01, 0.26, 7.03, 59.999])
def test_the_mix_is_as_long_as_the_call(ended: float) -> None:
    mixer = Mixer(MULAW_8K, 50.0, 50.0)
    size = sum(map(len, mixer.due(50.0 + ended / 2))) + sum(map(len, mixer.rest(50.0 + ended)))
    assert size / 16000 == pytest.approx(ended, abs=0.025)
    assert size % mixer.slice_bytes == 0
    assert mixer.slice_bytes == SLICE_MS * 16


def test_mixing_may_begin_in_mid_call() -> None:
    mixer = Mixer(PCM_16K, 10.0, 15.0)
    assert mixer.position == 5 * 16000
    tone = tone_pcm(300, 100, 16000)
    mixer.sent(tone, 15.5)
    mix = samples(b"".join(mixer.due(16.0)))
    assert not mix[:8000].any()
    assert np.array_equal(mix[8000:9600], samples(tone))


def test_a_telephone_is_mixed_in_samples_not_in_its_codec() -> None:
    tone = ulaw.encode(tone_pcm(500, 100, 8000))
    mixer = Mixer(MULAW_8K, 0.0, 0.0)
    mixer.sent(tone, 0.0)
    assert b"".join(mixer.due(0.3))[:1600] == ulaw.decode(tone)


def voice_at(pcm: bytes, start: int) -> NDArray[np.int16]:
    return samples(pcm)[start : start + 400]


def pieces(pcm: bytes, size: int) -> list[bytes]:
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]
