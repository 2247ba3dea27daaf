from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from providers.base import VadFrame
from providers.local.models import SILERO_VAD, model_path
from providers.local.onnx import load
from providers.local.vad import MAX_BACKLOG, SileroVad
from tests.speech import frames, noise_pcm, say_pcm, silence_pcm, tone_pcm

SENTENCE = "I would like to book a table for four people on Friday."
MODEL = load(model_path(SILERO_VAD))


class HeldModel:
    """Silero that answers when it is let go, and counts its batches."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.sizes: list[int] = []

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        self.go.wait(5)
        self.sizes.append(len(input_feed["input"]))
        return MODEL.run(output_names, input_feed)


@pytest.fixture
async def vad() -> AsyncIterator[SileroVad]:
    shared = SileroVad(MODEL, gather=0.001)
    yield shared
    await shared.aclose()


async def hear(vad: SileroVad, pcm: bytes, rate: int, size: int = 320) -> list[VadFrame]:
    """All frames of one stream."""
    heard: list[VadFrame] = []
    stream = vad.stream(rate, heard.append)
    for at, piece in enumerate(frames(pcm, size)):
        stream.feed(piece)
        if at % 25 == 0:
            await settled(vad)
    await settled(vad)
    stream.close()
    return heard


async def settled(vad: SileroVad) -> None:
    """Until the batcher has nothing left."""
    async with asyncio.timeout(5):
        while not vad.idle:  # noqa: ASYNC110 - nothing in the batcher tells when it is done
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_speech_is_heard_and_silence_and_noise_are_not(vad: SileroVad, rate: int) -> None:
    speech = await hear(vad, say_pcm(SENTENCE, rate), rate)
    assert sum(frame.probability > 0.5 for frame in speech) / len(speech) > 0.5
    for quiet in (silence_pcm(1000, rate), noise_pcm(1000, -45, rate)):
        assert max(frame.probability for frame in await hear(vad, quiet, rate)) < 0.4


@pytest.mark.parametrize("size", [2, 318, 512, 4000])
async def test_the_size_of_the_pieces_does_not_matter(vad: SileroVad, size: int) -> None:
    pcm = say_pcm("Hello.", 8000)
    assert await hear(vad, pcm, 8000, size) == await hear(vad, pcm, 8000)


async def test_frames_count_audio_time_and_energy(vad: SileroVad) -> None:
    heard = await hear(vad, tone_pcm(500, 320, 8000, -20) + silence_pcm(320, 8000), 8000)
    assert [frame.end_ms for frame in heard] == list(range(32, 641, 32))
    assert [round(frame.energy_db) for frame in heard] == [-20] * 10 + [-60] * 10


@pytest.mark.parametrize("inline", [0, 64])
async def test_calls_in_one_batch_do_not_hear_each_other(inline: int) -> None:
    alone = SileroVad(MODEL, gather=0.001)
    shared = SileroVad(MODEL, gather=0.001, inline=inline)
    sounds = [
        (say_pcm(SENTENCE, 8000), 8000),
        (noise_pcm(1500, -30, 8000), 8000),
        (say_pcm("Yes, at seven please.", 16000), 16000),
        (say_pcm("Good evening.", 8000), 8000),
    ]
    expected = [await hear(alone, pcm, rate) for pcm, rate in sounds]
    together = await asyncio.gather(*(hear(shared, pcm, rate) for pcm, rate in sounds))
    for one, other in zip(expected, together, strict=True):
        assert [frame.end_ms for frame in one] == [frame.end_ms for frame in other]
        for frame, same in zip(one, other, strict=True):
            assert frame.probability == pytest.approx(same.probability, abs=1e-4)
    await alone.aclose()
    await shared.aclose()


async def test_chunks_of_many_calls_share_a_run_and_the_loop_goes_on_meanwhile() -> None:
    held = HeldModel()
    vad = SileroVad(held, gather=0.001, inline=0)
    heard: list[VadFrame] = []
    for _ in range(20):
        vad.stream(8000, heard.append).feed(silence_pcm(32, 8000))
    for _ in range(10):
        await asyncio.sleep(0.002)
    assert heard == []
    held.go.set()
    await settled(vad)
    assert len(heard) == 20
    assert held.sizes == [20]
    await vad.aclose()


async def test_a_call_that_is_a_second_behind_loses_its_oldest_audio_and_it_is_counted() -> None:
    held = HeldModel()
    vad = SileroVad(held, gather=0.001, inline=0)
    heard: list[VadFrame] = []
    stream = vad.stream(8000, heard.append)
    stream.feed(silence_pcm(32 * (MAX_BACKLOG + 4), 8000))
    assert vad.dropped == stream.dropped == 4
    held.go.set()
    await settled(vad)
    assert [frame.end_ms for frame in heard] == list(range(32 * 5, 32 * (MAX_BACKLOG + 4) + 1, 32))
    await vad.aclose()


async def test_no_callback_comes_after_close() -> None:
    held = HeldModel()
    vad = SileroVad(held, gather=0.001, inline=0)
    heard: list[VadFrame] = []
    closed, open_ = vad.stream(8000, heard.append), vad.stream(8000, heard.append)
    for stream in (closed, open_):
        stream.feed(silence_pcm(64, 8000))
    await asyncio.sleep(0.01)
    closed.close()
    held.go.set()
    await settled(vad)
    assert len(heard) == 2
    open_.feed(silence_pcm(64, 8000))
    await vad.aclose()
    open_.feed(silence_pcm(64, 8000))
    await asyncio.sleep(0.01)
    assert len(heard) == 2


@pytest.mark.parametrize("inline", [0, 64])
async def test_a_call_whose_callback_fails_does_not_deafen_the_others(inline: int) -> None:
    vad = SileroVad(MODEL, gather=0.001, inline=inline)
    heard: list[VadFrame] = []

    def fail(frame: VadFrame) -> None:
        raise RuntimeError

    vad.stream(8000, fail).feed(silence_pcm(64, 8000))
    vad.stream(8000, heard.append).feed(silence_pcm(64, 8000))
    await settled(vad)
    assert len(heard) == 2
    await vad.aclose()


@pytest.mark.parametrize("inline", [0, 64])
async def test_a_failing_network_loses_its_batch_and_no_more(inline: int) -> None:
    class FailsOnce(HeldModel):
        def run(
            self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
        ) -> list[NDArray[np.float32]]:
            outputs = super().run(output_names, input_feed)
            if len(self.sizes) == 1:
                raise RuntimeError
            return outputs

    model = FailsOnce()
    model.go.set()
    vad = SileroVad(model, gather=0.001, inline=inline)
    heard: list[VadFrame] = []
    vad.stream(8000, heard.append).feed(silence_pcm(96, 8000))
    await settled(vad)
    assert [frame.end_ms for frame in heard] == [64, 96]
    await vad.aclose()


def test_a_rate_the_network_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="8000 or 16000"):
        SileroVad(MODEL).stream(48000, lambda frame: None)
