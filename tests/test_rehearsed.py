"""A voice that has its first words ready: played once, for just those words, and live for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from pipelines.speaking.rehearsed import RehearsedVoice
from providers.base import MULAW_8K, SpeechChunk, SpeechStream
from providers.errors import ProviderError, Refused, Unavailable
from tests.virtual_time import event_loop_policy as event_loop_policy

SCRIPT = "Hello there. How are you?"


@dataclass
class Speech:
    """Each piece takes `pace` seconds and sounds as its own text."""

    pace: float
    error: ProviderError | None
    texts: list[str] = field(default_factory=list[str])
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False

    async def push(self, text: str) -> None:
        assert not self.finished.is_set()
        self.texts.append(text)

    async def finish(self) -> None:
        self.finished.set()

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        await self.finished.wait()
        for text in self.texts:
            await asyncio.sleep(self.pace)
            yield SpeechChunk(text.encode())
            if self.error is not None:
                raise self.error

    async def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Voice:
    """A vendor's voice: every stream it opened, and whether it was closed."""

    pace: float = 1.0
    error: ProviderError | None = None
    output = MULAW_8K
    warming: float = 0.0
    streams: list[Speech] = field(default_factory=list[Speech])
    warmed: int = 0
    closed: bool = False

    async def warm(self) -> None:
        await asyncio.sleep(self.warming)
        self.warmed += 1

    def open(self) -> SpeechStream:
        self.streams.append(Speech(self.pace, self.error))
        return self.streams[-1]

    async def aclose(self) -> None:
        self.closed = True


async def say(voice: RehearsedVoice, *pieces: str) -> str:
    stream = voice.open()
    for piece in pieces:
        await stream.push(piece)
    await stream.finish()
    await stream.finish()
    return "".join([chunk.audio.decode() async for chunk in stream.chunks()])


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_what_was_rehearsed_is_there_at_once_and_only_once() -> None:
    vendor = Voice()
    voice = RehearsedVoice(vendor, SCRIPT)
    await voice.warm()
    await voice.warm()
    began = now()
    assert await say(voice, "Hello there. ", "How are you? ") == "Hello there. How are you? "
    assert now() == began
    assert len(vendor.streams) == 1
    assert await say(voice, "Hello there. ", "How are you? ") == "Hello there. How are you? "
    assert now() > began
    assert (len(vendor.streams), vendor.warmed) == (2, 2)


async def test_a_rehearsal_that_still_goes_on_is_listened_to() -> None:
    vendor = Voice(pace=1.0)
    voice = RehearsedVoice(vendor, SCRIPT)
    warming = asyncio.create_task(voice.warm())
    await asyncio.sleep(1.5)
    began = now()
    assert await say(voice, "Hello there. ", "How are you? ") == "Hello there. How are you? "
    assert now() - began == pytest.approx(0.5)
    assert len(vendor.streams) == 1
    await warming


@pytest.mark.parametrize(
    "pieces",
    [
        ("Something else. ",),
        ("Hello there. ",),
        ("Hello there. ", "Who are you? "),
        ("Hello there. ", "How are you? ", "More. "),
    ],
)
async def test_other_words_are_spoken_live_and_leave_it_ready(pieces: tuple[str, ...]) -> None:
    vendor = Voice()
    voice = RehearsedVoice(vendor, SCRIPT)
    await voice.warm()
    assert await say(voice, *pieces) == "".join(pieces)
    assert vendor.streams[1].texts == list(pieces)
    began = now()
    assert await say(voice, "Hello there. ", "How are you? ") == "Hello there. How are you? "
    assert now() == began


@pytest.mark.parametrize(
    "error", [Refused("no", vendor="v", code="TTS_ERROR"), Unavailable("no", vendor="v", code="TTS_ERROR")]
)
async def test_a_rehearsal_that_failed_fails_where_it_is_played_and_the_next_attempt_is_live(
    error: ProviderError,
) -> None:
    vendor = Voice(error=error)
    voice = RehearsedVoice(vendor, SCRIPT)
    await voice.warm()
    with pytest.raises(type(error)):
        await say(voice, "Hello there. ", "How are you? ")
    vendor.error = None
    assert await say(voice, "How are you? ") == "How are you? "


async def test_before_anything_was_rehearsed_it_speaks_live() -> None:
    vendor = Voice()
    assert await say(RehearsedVoice(vendor, SCRIPT), "Hello there. ", "How are you? ") == "Hello there. How are you? "


@pytest.mark.parametrize("close", [False, True])
async def test_nothing_is_rehearsed_that_was_said_live_or_never_will_be(close: bool) -> None:
    vendor = Voice(warming=2.0)
    voice = RehearsedVoice(vendor, SCRIPT)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(voice.warm())
        await asyncio.sleep(1)
        if close:
            await voice.aclose()
        else:
            assert await say(voice, SCRIPT) == SCRIPT
    assert vendor.warmed == 1
    assert len(vendor.streams) == (0 if close else 1)


async def test_closing_stops_the_rehearsal() -> None:
    vendor = Voice(pace=60)
    voice = RehearsedVoice(vendor, SCRIPT)
    warming = asyncio.create_task(voice.warm())
    await asyncio.sleep(1)
    await voice.aclose()
    assert vendor.closed
    assert vendor.streams[0].cancelled
    warming.cancel()
    await asyncio.gather(warming, return_exceptions=True)
