from __future__ import annotations

import numpy as np
import pytest

from pipelines.audio.levels import energy_db
from pipelines.audio.resample import Quality, Resampler
from tests.speech import frames, noise_pcm, tone_pcm

RATES = [(8000, 16000), (16000, 8000), (22050, 8000), (24000, 8000), (48000, 16000), (16000, 48000)]


def through(resampler: Resampler, pcm: bytes, size: int) -> bytes:
    return b"".join(resampler.process(piece) for piece in frames(pcm, size)) + resampler.flush()


@pytest.mark.parametrize("quality", list(Quality))
@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_minute_stays_a_minute_to_the_sample(source: int, target: int, quality: Quality) -> None:
    minute = tone_pcm(300, 60_000, source)
    assert len(through(Resampler(source, target, quality), minute, source // 50 * 2)) == 60 * target * 2


@pytest.mark.parametrize("quality", list(Quality))
@pytest.mark.parametrize(("source", "target"), RATES)
def test_chunk_edges_leave_no_trace(source: int, target: int, quality: Quality) -> None:
    pcm = noise_pcm(1000, -20, source)
    whole = np.frombuffer(through(Resampler(source, target, quality), pcm, len(pcm)), dtype=np.int16)
    pieces = np.frombuffer(through(Resampler(source, target, quality), pcm, 346), dtype=np.int16)
    assert np.abs(whole.astype(int) - pieces).max() <= 1


@pytest.mark.parametrize("quality", list(Quality))
@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_keeps_its_level(source: int, target: int, quality: Quality) -> None:
    out = through(Resampler(source, target, quality), tone_pcm(1000, 1000, source, -12), source // 50 * 2)
    assert energy_db(out[target // 5 : -target // 5]) == pytest.approx(-12, abs=0.7)


def test_live_quality_gives_a_frame_at_once() -> None:
    first = Resampler(8000, 16000, Quality.LIVE).process(tone_pcm(300, 20, 8000))
    assert len(first) >= 2 * (320 - 8)


def test_whole_quality_lets_nothing_above_the_new_band_fold_back() -> None:
    out = through(Resampler(24000, 8000, Quality.WHOLE), tone_pcm(5000, 500, 24000, -10), 960)
    assert energy_db(out[800:-800]) < -55


@pytest.mark.parametrize("quality", list(Quality))
def test_silence_stays_digital_silence(quality: Quality) -> None:
    assert through(Resampler(22050, 8000, quality), bytes(44100), 882) == bytes(16000)


def test_equal_rates_pass_untouched() -> None:
    resampler = Resampler(8000, 8000)
    assert resampler.process(b"\1\2") == b"\1\2"
    assert resampler.flush() == b""


def test_after_a_flush_the_next_stream_starts_clean() -> None:
    resampler = Resampler(22050, 8000, Quality.WHOLE)
    pcm = tone_pcm(440, 300, 22050)
    assert through(resampler, pcm, 882) == through(resampler, pcm, 882)


@pytest.mark.parametrize("samples", [0, 1, 7, 441])
def test_a_very_short_stream_has_its_length_too(samples: int) -> None:
    out = through(Resampler(22050, 8000, Quality.WHOLE), b"\0\1" * samples, 882)
    assert len(out) == 2 * round(samples * 8000 / 22050)
