"""What one call runs on, and how that changes in mid-call (`session.configure`, protocol §2.5, behaviour §6.9)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

from pipelines.ids import new_id
from pipelines.listening.detected import DetectedTurns
from pipelines.listening.ears import Ears, EarsParts
from pipelines.listening.interruption import InterruptionGate
from pipelines.listening.native import NativeTurns
from pipelines.listening.turn import TurnMachine, TurnRules
from pipelines.parts import CallParts
from pipelines.speaking.mouth import Mouth
from pipelines.thinking.dialogue import Dialogue
from pipelines.watch import SessionWatch
from providers.base import SpeechToText, TextToSpeech
from providers.errors import ProviderError
from wire.commands import RawConfig, SessionConfigure
from wire.config import CallConfig, FluxStt
from wire.errors import ConfigError
from wire.events import CallEvent, SessionConfigured

CLIENT_PENDING_MS = 2000
"""An agent that thinks for itself may never answer: later speech is a new turn (protocol §4.5)."""


class Spawner(Protocol):
    """Whoever owns the call's tasks."""

    def spawn(self, job: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something as part of the call."""
        ...


class Reconfigurable(Spawner, Protocol):
    """The call, as its settings see it."""

    def publish(self, event: CallEvent) -> None:
        """State a fact."""
        ...

    def meter(self) -> None:
        """Other things may have to be measured from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Organs:
    """What a change of settings reaches."""

    machine: TurnMachine
    ears: Ears
    mouth: Mouth
    dialogue: Dialogue
    watch: SessionWatch


class Session:
    """The settings in force, and the voice and model that go with them."""

    def __init__(self, config: CallConfig, parts: CallParts) -> None:
        """Raises ProviderError for a model that cannot be had."""
        self._parts = parts
        self.config = config
        self.voice: TextToSpeech = parts.voice
        self.model = parts.model(config.llm)

    def turn_rules(self) -> TurnRules:
        """How turns are taken."""
        config = self.config
        return TurnRules(
            language=config.language,
            gate=InterruptionGate(config.interruption, config.language),
            new_id=lambda: new_id("u"),
            pending_window_ms=CLIENT_PENDING_MS if self.model is None else None,
        )

    def ears_parts(self, machine: TurnMachine) -> EarsParts:
        """What to hear with."""
        config, parts = self.config, self._parts

        def open_stt() -> SpeechToText:
            return parts.open_stt(config.stt)

        if isinstance(config.stt, FluxStt):
            native = NativeTurns(machine, config.language, config.stt.min_confidence or 0.0)
            return EarsParts(parts.medium.audio, open_stt, native, parts.vad)
        detected = DetectedTurns(machine, config.turn, config.vad)
        return EarsParts(parts.medium.audio, open_stt, detected, parts.vad, parts.turn_model)

    def change(self, command: SessionConfigure, organs: Organs, call: Reconfigurable) -> None:
        """Take on other settings for this call; or keep the old ones and say why."""
        try:
            self.apply(command.config, organs, call)
        except (ConfigError, ProviderError) as error:
            call.publish(SessionConfigured(success=False, error=str(error)))
        else:
            call.publish(SessionConfigured(success=True))

    def apply(self, raw: RawConfig, organs: Organs, call: Reconfigurable) -> None:
        """Take on other settings. Raises ConfigError or ProviderError, and then nothing has changed."""
        config = self._parts.reconfigure(raw)
        model = self._parts.model(config.llm)
        voice = None if config.voice == self.config.voice else self._parts.open_voice(config.voice)
        old, self.config, self.model = self.config, config, model
        organs.machine.rules = self.turn_rules()
        if organs.dialogue.configure(config, model):
            organs.mouth.drop_replies()
        organs.watch.configure(config.limits, self._parts.clock.now())
        if voice is not None:
            self._change_voice(voice, organs.mouth, call)
        if (config.stt, config.turn, config.vad, config.language) != (old.stt, old.turn, old.vad, old.language):
            organs.ears.change(self.ears_parts(organs.machine))
        call.meter()

    def _change_voice(self, voice: TextToSpeech, mouth: Mouth, call: Reconfigurable) -> None:
        """Speak with another voice from the next utterance on; what the old one is saying it finishes."""
        old, self.voice = self.voice, voice
        mouth.use_voice(voice)
        call.spawn(voice.warm(), "warm")
        call.spawn(_retire(old, mouth), "old voice")


async def _retire(voice: TextToSpeech, mouth: Mouth) -> None:
    try:
        await mouth.synthesised()
    finally:
        await voice.aclose()
