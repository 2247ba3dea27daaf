"""A caller's side of a Nova recogniser: audio in, what was heard out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from providers.base import MULAW_8K, AudioFormat, SttReconnected, Transcript
from providers.deepgram.link import DeepgramAccess
from providers.deepgram.nova import NovaSpeechToText
from tests.flux_hearing import Hearing
from tests.simulators.deepgram_nova import NovaSimulator
from wire.config import NovaStt


def nova(sim: NovaSimulator, config: NovaStt | None = None, audio: AudioFormat = MULAW_8K) -> NovaSpeechToText:
    return NovaSpeechToText(config or NovaStt(), audio, DeepgramAccess(sim.key, sim.url))


class NovaHearing(Hearing):
    """Collects what Nova tells, until its end."""

    @property
    def transcripts(self) -> list[Transcript]:
        return [event for event in self.events if isinstance(event, Transcript)]

    @property
    def finals(self) -> list[str]:
        return [event.text for event in self.transcripts if event.is_final]

    @property
    def interims(self) -> list[str]:
        return [event.text for event in self.transcripts if not event.is_final]

    @property
    def heard(self) -> str:
        """Everything final, in order."""
        return " ".join(text for text in self.finals if text)

    @property
    def closed(self) -> int:
        """Utterances that ended."""
        return sum(event.speech_final for event in self.transcripts)

    @property
    def reconnected(self) -> list[SttReconnected]:
        return [event for event in self.events if isinstance(event, SttReconnected)]

    async def until_closed(self, utterances: int = 1) -> None:
        await self.until(lambda: self.closed >= utterances)


@asynccontextmanager
async def listening(sim: NovaSimulator, config: NovaStt | None = None) -> AsyncGenerator[NovaHearing]:
    stt = nova(sim, config)
    await stt.start()
    hearing = NovaHearing(stt)
    try:
        yield hearing
    finally:
        await hearing.aclose()
