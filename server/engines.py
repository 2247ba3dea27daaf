"""Every concrete vendor of this build, by the configuration that asks for it. The only room that knows them.

Adding a vendor is a module in `providers/` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

from pipelines.listening.ears import OpenVoiceActivity
from providers.base import AudioFormat, EndOfTurnModel, LanguageModel, SpeechToText, TextToSpeech
from providers.deepgram.flux import FluxSpeechToText
from providers.deepgram.link import DeepgramAccess
from providers.deepgram.nova import NovaSpeechToText
from providers.elevenlabs import ElevenLabsAccess, ElevenLabsSpeech
from providers.errors import KeyRequired
from providers.local.espeak import EspeakSpeech
from providers.local.smart_turn import SmartTurn
from providers.local.sphinx import LocalSpeechToText
from providers.local.sphinx_process import aclose_shared
from providers.local.vad import SileroVad
from providers.openai import OpenAiAccess, OpenAiModels
from providers.openai_wire import quirks_of
from server.settings import Settings
from wire.config import ElevenLabsVoice, FluxStt, LocalStt, LocalVoice, NovaStt, SttConfig, VoiceConfig

log = structlog.get_logger(__name__)

OpenStt = Callable[[Any, AudioFormat], SpeechToText]
OpenVoice = Callable[[Any, AudioFormat], TextToSpeech]


class CallEngines(Protocol):
    """What calls are given."""

    @property
    def vad(self) -> OpenVoiceActivity:
        """The shared voice detector."""
        ...

    @property
    def turn_model(self) -> EndOfTurnModel | None:
        """The shared judge of turn ends."""
        ...

    def stt(self, config: SttConfig, line: AudioFormat) -> SpeechToText:
        """A recogniser for one call. Raises KeyRequired."""
        ...

    def voice(self, config: VoiceConfig, line: AudioFormat) -> TextToSpeech:
        """A voice for one call. Raises KeyRequired."""
        ...

    def model(self, provider: str) -> LanguageModel:
        """The language models of a vendor. Raises KeyRequired."""
        ...

    async def aclose(self) -> None:
        """Release what is shared; no call is left."""
        ...


class Engines:
    """The vendors that the settings give keys for, and the built-in ones."""

    served = frozenset({"deepgram-flux", "deepgram", "elevenlabs", "openai"})
    """The vendors this build can serve, as the wire names them; `local` is always there."""

    def __init__(self, settings: Settings) -> None:
        """Loads the built-in models (0.2 s, blocking). Raises ProviderError when their files are missing."""
        deepgram = DeepgramAccess(_secret(settings.deepgram_api_key), settings.deepgram_ws)
        elevenlabs = ElevenLabsAccess(_secret(settings.elevenlabs_api_key), settings.elevenlabs_ws)
        self._silero = SileroVad()
        self.turn_model: SmartTurn = SmartTurn()
        self._stt: dict[type[SttConfig], OpenStt] = {
            FluxStt: lambda config, line: FluxSpeechToText(config, line, deepgram),
            NovaStt: lambda config, line: NovaSpeechToText(config, line, deepgram),
            LocalStt: lambda config, _line: LocalSpeechToText(config),
        }
        self._voices: dict[type[VoiceConfig], OpenVoice] = {
            ElevenLabsVoice: lambda config, line: ElevenLabsSpeech(config, line, elevenlabs),
            LocalVoice: lambda config, _line: EspeakSpeech(config),
        }
        openai = OpenAiAccess(_secret(settings.openai_api_key), settings.openai_base_url)
        self._models: dict[str, LanguageModel] = {
            "openai": OpenAiModels(openai, quirks=quirks_of(settings.openai_base_url))
        }

    @property
    def vad(self) -> OpenVoiceActivity:
        """The shared voice detector."""
        return self._silero.stream

    def stt(self, config: SttConfig, line: AudioFormat) -> SpeechToText:
        """A recogniser for one call."""
        factory = self._stt.get(type(config))
        if factory is None:
            raise KeyRequired(type(config).__name__)
        return factory(config, line)

    def voice(self, config: VoiceConfig, line: AudioFormat) -> TextToSpeech:
        """A voice for one call."""
        factory = self._voices.get(type(config))
        if factory is None:
            raise KeyRequired(type(config).__name__)
        return factory(config, line)

    def model(self, provider: str) -> LanguageModel:
        """The language models of a vendor."""
        model = self._models.get(provider)
        if model is None:
            raise KeyRequired(provider)
        return model

    async def aclose(self) -> None:
        """Release what is shared."""
        for model in self._models.values():
            await model.aclose()
        await self._silero.aclose()
        await self.turn_model.aclose()
        await aclose_shared()


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()
