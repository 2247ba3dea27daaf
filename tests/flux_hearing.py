"""A caller's side of a Flux recogniser: audio in, what was heard out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from providers.base import MULAW_8K, AudioFormat, NativeTurn, SpeechToText, SttEvent, TurnMoment
from providers.deepgram.flux import FluxSpeechToText
from providers.deepgram.link import DeepgramAccess
from providers.errors import ProviderError
from tests.simulators.deepgram_flux import FluxSimulator
from wire.config import FluxStt

START, UPDATE, EAGER, RESUMED, END = TurnMoment
LOUD = b"\x10" * 160
"""20 ms of µ-law that count as speech."""
QUIET = b"\xff" * 160


def flux(sim: FluxSimulator, config: FluxStt | None = None, audio: AudioFormat = MULAW_8K) -> FluxSpeechToText:
    return FluxSpeechToText(config or FluxStt(), audio, DeepgramAccess(sim.key, sim.url))


class Hearing:
    """Collects what a recogniser tells, until its end."""

    def __init__(self, stt: SpeechToText) -> None:
        self.stt = stt
        self.events: list[SttEvent] = []
        self.failure: ProviderError | None = None
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async for event in self.stt.events():
                self.events.append(event)
                self._news.set()
        except ProviderError as failure:
            self.failure = failure
        self._news.set()

    @property
    def moments(self) -> list[tuple[TurnMoment, str]]:
        return [(event.moment, event.text) for event in self.events if isinstance(event, NativeTurn)]

    @property
    def without_updates(self) -> list[tuple[TurnMoment, str]]:
        return [(moment, text) for moment, text in self.moments if moment is not UPDATE]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_ended(self, turns: int = 1) -> None:
        await self.until(lambda: [moment for moment, _ in self.moments].count(END) == turns)

    async def speak(self, *, loud_ms: int, quiet_ms: int = 0) -> None:
        """A caller's audio in 20 ms frames, as fast as the recogniser sends it."""
        for frame in [LOUD] * (loud_ms // 20) + [QUIET] * (quiet_ms // 20):
            self.stt.feed(frame)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.stt.aclose()
        await asyncio.wait_for(self._task, 1)


@asynccontextmanager
async def listening(sim: FluxSimulator, config: FluxStt | None = None) -> AsyncGenerator[Hearing]:
    stt = flux(sim, config)
    await stt.start()
    hearing = Hearing(stt)
    try:
        yield hearing
    finally:
        await hearing.aclose()


async def eventually(condition: Callable[[], bool]) -> None:
    """For what only the simulator sees."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("did not happen")
