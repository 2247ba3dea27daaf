"""The built-in recogniser inside a test's own process: virtual time stands still while it thinks, and only then."""

from __future__ import annotations

from providers.base import AudioFormat, SpeechToText
from providers.local.sphinx import LocalSpeechToText
from providers.local.sphinx_messages import Audio, Request, pack
from providers.local.sphinx_process import Line, SphinxProcess
from providers.local.sphinx_worker import Worker
from server.engines import Engines
from server.settings import Settings
from wire.config import LocalStt, SttConfig


class SphinxHere(SphinxProcess):
    """The recogniser process without the process: requests are answered before they return."""

    def __init__(self) -> None:
        super().__init__()
        self._worker = Worker()

    def hear(self, line: Line, pcm: bytes) -> None:
        self._send(Audio(line.number, pcm))

    async def _ensure_started(self) -> None:
        return

    def _send(self, request: Request) -> None:
        for report in self._worker.answer(request):
            self.pipe_data_received(1, pack(report))


class EnginesHere(Engines):
    """All engines as ever, but for where the built-in recogniser runs."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._sphinx = SphinxHere()

    def stt(self, config: SttConfig, line: AudioFormat) -> SpeechToText:
        if isinstance(config, LocalStt):
            return LocalSpeechToText(config, self._sphinx)
        return super().stt(config, line)
