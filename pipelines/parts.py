"""What a call is made of, handed to it by whoever starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from pipelines.clock import Clock
from pipelines.listening.ears import OpenVoiceActivity
from pipelines.medium import Medium
from pipelines.metronome import Metronome
from providers.base import EndOfTurnModel, LanguageModel, SpeechToText, TextToSpeech


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


@dataclass(frozen=True, slots=True)
class CallParts:
    """The line, the engines and the clockwork. `voice` may be warm already. `model` None: the agent's own program
    thinks."""

    clock: Clock
    metronome: Metronome
    medium: Medium
    open_stt: Callable[[], SpeechToText]
    voice: TextToSpeech
    model: LanguageModel | None
    vad: OpenVoiceActivity
    turn_model: EndOfTurnModel | None
