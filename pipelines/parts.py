"""What a call is made of, handed to it by whoever starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from pipelines.clock import Clock
from pipelines.greeting import Opening
from pipelines.listening.ears import OpenVoiceActivity
from pipelines.medium import Medium, Transfer
from pipelines.metronome import Metronome
from providers.base import EndOfTurnModel, LanguageModel, SpeechToText, TextToSpeech
from wire.commands import RawConfig
from wire.config import CallConfig, LlmConfig, SttConfig, VoiceConfig
from wire.events import CallEnded, CallMessage, CallStarted


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Who speaks with whom."""

    call_id: str
    org_id: str
    slug: str
    from_: str
    to: str
    direction: str
    transport: str
    metadata: dict[str, msgspec.Raw]

    def started(self, language: str, *, resumed: bool = False) -> CallStarted:
        """The call's first frame; `resumed` when the agent has come back to it."""
        return CallStarted(
            from_=self.from_,
            to=self.to,
            direction=self.direction,
            transport=self.transport,
            metadata=self.metadata,
            language=language.split("-")[0],
            resumed=True if resumed else msgspec.UNSET,
        )

    def ended(self, reason: str, times: tuple[float, float], messages: list[CallMessage]) -> CallEnded:
        """The call's last frame; `times` are those of its beginning and its end (epoch seconds)."""
        began, ended = times
        return CallEnded(
            reason=reason,
            from_=self.from_,
            to=self.to,
            direction=self.direction,
            metadata=self.metadata,
            messages=messages,
            duration_seconds=round(ended - began, 3),
            started_at=began,
            ended_at=ended,
        )


@dataclass(frozen=True, slots=True)
class CallParts:
    """The line, the engines and the clockwork.

    `voice` is that of the configuration, and may be warm already. `model` gives None where the agent's own program
    thinks. The functions raise ProviderError for a vendor that cannot be had; `reconfigure` resolves a patch of
    `session.configure` on top of all earlier ones and raises ConfigError for one that cannot be.
    """

    clock: Clock
    metronome: Metronome
    medium: Medium
    voice: TextToSpeech
    open_voice: Callable[[VoiceConfig], TextToSpeech]
    open_stt: Callable[[SttConfig], SpeechToText]
    model: Callable[[LlmConfig | None], LanguageModel | None]
    vad: OpenVoiceActivity
    turn_model: EndOfTurnModel | None
    reconfigure: Callable[[RawConfig], CallConfig]
    hold_music: bytes
    """One loop in the medium's format."""
    opening: Opening | None = field(default_factory=Opening)
    """When the greeting is said; None: nobody greets."""
    transfer: Transfer | None = None
    """Connects the caller elsewhere; None where the medium cannot."""
