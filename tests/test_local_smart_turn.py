from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from providers.errors import TimedOut, Unavailable
from providers.local import smart_turn
from providers.local.mel import log_mel
from providers.local.models import model_path
from providers.local.smart_turn import MAX_WAITING, SmartTurn, features
from tests.speech import noise_pcm, say_pcm, silence_pcm, tone_pcm

SENTENCE = "I would like to book a table for four people on Friday."


class HeldModel:
    """A network that answers when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        self.go.wait(5)
        return [np.array([[0.75]], dtype=np.float32)]


def test_the_features_of_a_tone_peak_in_its_band_and_only_there() -> None:
    picture = features(tone_pcm(1000, 8000), 16000)[0]
    assert picture.shape == (80, 800)
    # 1 kHz is 15 mel of the 45.2 that 80 bands share.
    assert set(picture[:, 5:-5].argmax(axis=0)) <= {25, 26}
    assert picture.max() - picture.min() == pytest.approx(2.0)


def test_the_features_match_whispers_own_front_end() -> None:
    # Made with the numpy extractor that pipecat-ai 1.14.0 vendors from transformers, on the same signal.
    ramp = np.sin(np.cumsum(np.linspace(0.02, 2.9, 128000))).astype(np.float32)
    picture = log_mel(ramp)
    assert picture[[0, 10, 40, 60, 79], [5, 40, 400, 600, 795]] == pytest.approx(
        [1.277087, 1.56771, -0.39748, -0.39748, 0.378046], abs=2e-5
    )


def test_short_audio_is_padded_on_the_left_and_long_audio_keeps_its_end() -> None:
    speech = say_pcm(SENTENCE)
    padded = silence_pcm(8000)[: 2 * 128000 - len(speech)] + speech
    np.testing.assert_array_equal(features(speech, 16000), features(padded, 16000))
    np.testing.assert_array_equal(features(noise_pcm(5000) + padded, 16000), features(padded, 16000))


async def test_telephone_audio_scores_like_the_same_audio_at_16_khz() -> None:
    model = SmartTurn()
    wide = await model.probability(say_pcm("Hello.", 16000), 16000)
    narrow = await model.probability(say_pcm("Hello.", 8000), 8000)
    await model.aclose()
    assert 0 <= narrow <= 1
    assert wide == pytest.approx(narrow, abs=0.25)


async def test_a_sentence_cut_inside_a_word_does_not_score_as_the_whole_one() -> None:
    # Synthetic speech: the difference is real, its direction means nothing (see the module).
    model = SmartTurn()
    whole = say_pcm(SENTENCE, voice="en-us+f3", speed=190)
    score = await model.probability(whole, 16000)
    cut = await model.probability(whole[: len(whole) // 4 * 2], 16000)
    await model.aclose()
    assert abs(score - cut) > 0.02


@pytest.mark.parametrize("pcm", [b"", b"\0\0", silence_pcm(1000)])
async def test_nothing_to_hear_is_still_an_answer(pcm: bytes) -> None:
    model = SmartTurn()
    assert 0 <= await model.probability(pcm, 8000) <= 1
    await model.aclose()


async def test_the_queue_is_bounded_and_recovers() -> None:
    held = HeldModel()
    model = SmartTurn(held)
    waiting = [asyncio.ensure_future(model.probability(b"", 16000)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="32 decisions waiting"):
        await model.probability(b"", 16000)
    for one in waiting[1:]:
        one.cancel()
    held.go.set()
    assert await waiting[0] == 0.75
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    assert await model.probability(b"", 16000) == 0.75
    await model.aclose()


async def test_a_late_decision_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smart_turn, "DEADLINE", 0.05)
    held = HeldModel()
    model = SmartTurn(held)
    with pytest.raises(TimedOut, match="No end-of-turn decision"):
        await model.probability(b"", 16000)
    held.go.set()
    await model.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await model.probability(b"", 16000)


def test_a_missing_model_file_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("VOICE_MODELS_DIR", str(tmp_path))
    with pytest.raises(Unavailable, match=r"smart-turn-v3\.2-cpu\.onnx is not in .*make models"):
        model_path(smart_turn.SMART_TURN)
