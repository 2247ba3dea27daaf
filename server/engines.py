"""Every concrete vendor of this build, by the configuration that asks for it. The only room that knows them.

Adding a vendor is a module in `providers/` and a line here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

from pipelines.listening.ears import OpenVoiceActivity
from providers.base import AudioFormat, EndOfTurnModel, LanguageModel, SpeechToText, TextToSpeech
from providers.catalogues.cartesia import cartesia_voices
from providers.catalogues.catalogue import VoiceSource
from providers.catalogues.elevenlabs import elevenlabs_voices
from providers.catalogues.espeak import espeak_voices
from providers.catalogues.polly import polly_voices
from providers.deepgram.flux import FluxSpeechToText
from providers.deepgram.link import DeepgramAccess
from providers.deepgram.nova import NovaSpeechToText
from providers.elevenlabs import ElevenLabsAccess, ElevenLabsSpeech
from providers.errors import KeyRequired
from providers.local.espeak import EspeakSpeech
from providers.local.models import SILERO_VAD, SMART_TURN, model_path
from providers.local.smart_turn import SmartTurn
from providers.local.sphinx import LocalSpeechToText, check_grammar
from providers.local.sphinx_process import aclose_shared
from providers.local.vad import SileroVad
from providers.openai import OpenAiAccess, OpenAiModels
from providers.openai_wire import quirks_of
from server.settings import Settings
from wire.config import CallConfig, ElevenLabsVoice, FluxStt, LocalStt, LocalVoice, NovaStt, SttConfig, VoiceConfig
from wire.errors import ConfigError

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

    def with_keys(self, keys: Mapping[str, str]) -> CallEngines:
        """The same with other vendor keys where `keys` names some, by vendor. What is shared stays shared."""
        ...

    async def aclose(self) -> None:
        """Release what is shared; no call is left."""
        ...


def check(config: CallConfig) -> None:
    """What only an engine can tell of a configuration. Raises ConfigError."""
    if isinstance(config.stt, LocalStt) and config.stt.grammar:
        try:
            check_grammar(config.stt.grammar)
        except ValueError as error:
            raise ConfigError("stt.grammar", str(error)) from None


def check_models() -> None:
    """Raises ProviderError when files of the built-in models are missing."""
    for name in (SILERO_VAD, SMART_TURN):
        model_path(name)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Models that are loaded once."""

    silero: SileroVad
    turn_model: SmartTurn


class Engines:
    """The vendors that the settings give keys for, and the built-in ones."""

    served = frozenset({"deepgram-flux", "deepgram", "elevenlabs", "openai"})
    """The vendors this build can serve, as the wire names them; `local` is always there."""

    def __init__(
        self, settings: Settings, keys: Mapping[str, str] | None = None, built_in: BuiltIn | None = None
    ) -> None:
        """`keys` come before the settings'. Without `built_in` the built-in models are loaded (0.2 s, blocking): raises
        ProviderError when their files are missing."""
        self._settings = settings
        self._keys = keys or {}
        self._built_in = built_in or BuiltIn(SileroVad(), SmartTurn())
        self._shares = built_in is not None
        self._others: dict[frozenset[tuple[str, str]], Engines] = {}
        self.turn_model: SmartTurn = self._built_in.turn_model
        deepgram = DeepgramAccess(self._key("deepgram", settings.deepgram_api_key), settings.deepgram_ws)
        elevenlabs = ElevenLabsAccess(self._key("elevenlabs", settings.elevenlabs_api_key), settings.elevenlabs_ws)
        self._stt: dict[type[SttConfig], OpenStt] = {
            FluxStt: lambda config, line: FluxSpeechToText(config, line, deepgram),
            NovaStt: lambda config, line: NovaSpeechToText(config, line, deepgram),
            LocalStt: lambda config, _line: LocalSpeechToText(config),
        }
        self._voices: dict[type[VoiceConfig], OpenVoice] = {
            ElevenLabsVoice: lambda config, line: ElevenLabsSpeech(config, line, elevenlabs),
            LocalVoice: lambda config, _line: EspeakSpeech(config),
        }
        openai = OpenAiAccess(self._key("openai", settings.openai_api_key), settings.openai_base_url)
        self._models: dict[str, LanguageModel] = {
            "openai": OpenAiModels(openai, quirks=quirks_of(settings.openai_base_url))
        }

    @property
    def vad(self) -> OpenVoiceActivity:
        """The shared voice detector."""
        return self._built_in.silero.stream

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

    def with_keys(self, keys: Mapping[str, str]) -> CallEngines:
        """The same engines with other keys; made once for each set of them, for they keep connections."""
        if not keys:
            return self
        which = frozenset(keys.items())
        if which not in self._others:
            self._others[which] = Engines(self._settings, dict(keys), self._built_in)
        return self._others[which]

    async def aclose(self) -> None:
        """Release what is shared."""
        for other in self._others.values():
            await other.aclose()
        for model in self._models.values():
            await model.aclose()
        if self._shares:
            return
        await self._built_in.silero.aclose()
        await self._built_in.turn_model.aclose()
        await aclose_shared()

    def _key(self, vendor: str, server: SecretStr | None) -> str:
        return self._keys.get(vendor) or ("" if server is None else server.get_secret_value())


def voice_source(settings: Settings, vendor: str, own_key: str) -> VoiceSource | None:
    """Where a vendor's list of voices comes from: its account that `own_key` opens, or the server's when that is
    empty. None for a vendor without a key, or without voices."""
    match vendor:
        case "local":
            return espeak_voices
        case "polly":
            return polly_voices
        case "elevenlabs":
            read, server, base_url = elevenlabs_voices, settings.elevenlabs_api_key, settings.elevenlabs_base_url
        case "cartesia":
            read, server, base_url = cartesia_voices, settings.cartesia_api_key, settings.cartesia_base_url
        case _:
            return None
    key = own_key or ("" if server is None else server.get_secret_value())
    return functools.partial(read, key, base_url) if key else None
