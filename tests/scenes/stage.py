"""Performs a scene: the gateway's own `Call` with Silero and Smart Turn, on a line and with an agent of the scene's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from pipelines.audio import ulaw
from pipelines.call import Call, CallState
from pipelines.clock import LoopClock
from pipelines.metronome import Metronome
from pipelines.parts import CallFacts, CallParts
from providers.base import MULAW_8K, SpeechChunk, SpeechToText
from providers.local.models import SILERO_VAD, SMART_TURN, model_path
from providers.local.onnx import load
from providers.local.smart_turn import SmartTurn
from providers.local.vad import SileroVad
from providers.timing import spread_words
from tests.scenes.corpus import Ears, Family, Part, Scene, Sound
from tests.scenes.line import BOT_DB, FRAME, Placed, StageLine, finishes
from tests.scenes.recognisers import ScriptedSegments, ScriptedTurns
from tests.scenes.sounds import BOT_VOICES, RATE, at_level, speech
from wire.commands import BotReply
from wire.config import CallConfig, JsonValue
from wire.events import BotSpeaking, CallEnded, CallEvent, TurnContinued, TurnEnd
from wire.resolve import Scope, ServerDefaults, read_layer, resolve

THINKS_S = 0.3
"""From `turn.end` to the agent's answer."""
VOICE_S = 0.08
"""From a text to the first of its sound."""
CALM_S = 4.0
"""A scene is over when nothing has happened for so long."""
_STT = {Ears.DETECTED: "deepgram", Ears.NATIVE: "deepgram-flux"}
_SERVER = ServerDefaults(keys=frozenset({"deepgram", "deepgram-flux", "elevenlabs"}))


@dataclass
class Performance:
    """What happened in a scene. Times are seconds since the line opened."""

    scene: Scene
    events: list[tuple[float, CallEvent]] = field(default_factory=list[tuple[float, CallEvent]])
    placed: list[Placed] = field(default_factory=list[Placed])
    said: bytes = b""
    heard: bytes = b""


async def perform(family: Family, ears: Ears) -> list[Performance]:
    """All scenes of a family at once, in the running loop, as calls of one process."""
    models = Models()
    try:
        async with asyncio.TaskGroup() as tasks:
            plays = [tasks.create_task(_Stage(scene, ears, models).play()) for scene in family.scene]
        return [play.result() for play in plays]
    finally:
        await models.aclose()


class Models:
    """What all calls share."""

    def __init__(self) -> None:
        self.vad = SileroVad(load(model_path(SILERO_VAD)))
        self.turn = SmartTurn(load(model_path(SMART_TURN)))

    async def aclose(self) -> None:
        await self.vad.aclose()
        await self.turn.aclose()


class _Stage:
    """One call; also its agent."""

    def __init__(self, scene: Scene, ears: Ears, models: Models) -> None:
        self._scene = scene
        self._ears = ears
        self._models = models
        self._done = Performance(scene)
        self._line = StageLine(scene)
        self._voice = _Voice(scene)
        self._call = self._dial()
        self._waiting = deque(enumerate(scene.sounds))
        self._speaking: list[tuple[int, str]] = []
        self._last_change = 0.0
        self._answered = 0
        self._answer: asyncio.TimerHandle | None = None

    async def play(self) -> Performance:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._call.run())
            await asyncio.sleep(0)
            frame = 0
            while not self._over():
                frame += 1
                await asyncio.sleep(self._line.began_at + frame * FRAME / RATE - loop.time())
                self._place()
                self._line.beat(self._call)
            self._call.on_gone("hangup")
        if self._answer is not None:
            self._answer.cancel()
        self._done.placed = self._line.placed
        self._done.said, self._done.heard = bytes(self._line.said), bytes(self._line.play.heard)
        return self._done

    # --- the agent ---

    def deliver(self, event: CallEvent) -> None:
        self._done.events.append((self._line.now_s, event))
        self._last_change = self._line.now_s
        loop = asyncio.get_running_loop()
        match event:
            case TurnEnd():
                self._answer = loop.call_later(THINKS_S, self._reply, event.message_id)
            case TurnContinued():
                if self._answer is not None:
                    self._answer.cancel()
            case BotSpeaking():
                self._speaking.append((self._line.now, event.text.strip()))
                loop.call_soon(self._tell_echo, self._line.now, event.text.strip())
            case CallEnded():
                self._call.detach()
            case _:
                pass

    def _reply(self, message_id: str) -> None:
        replies = self._scene.replies
        text = replies[self._answered] if self._answered < len(replies) else "All right."
        self._answered += 1
        self._call.command(BotReply(call_id="scene", text=text, in_reply_to=message_id))

    def _tell_echo(self, start: int, text: str) -> None:
        self._line.bot_says(text, start, self._voice.speech(text))

    # --- the caller ---

    def _place(self) -> None:
        while self._waiting:
            index, sound = self._waiting[0]
            start = self._when(sound)
            if start is None:
                return
            self._waiting.popleft()
            self._line.place(sound, start, finished=finishes(self._scene.sounds, index))

    def _when(self, sound: Sound) -> int | None:
        """Where the sound begins; None while that cannot be known."""
        shift = round(sound.at * RATE)
        match sound.after.split():
            case ["start"]:
                return shift
            case ["said"]:
                return self._line.placed[-1].end + shift
            case ["bot", number]:
                spoken = self._speaking[int(number) - 1 : int(number)]
                return spoken[0][0] + shift if spoken else None
            case ["bot", number, "end"]:
                spoken = self._speaking[int(number) - 1 : int(number)]
                return spoken[0][0] + len(self._voice.speech(spoken[0][1])) + shift if spoken else None
            case _:
                raise ValueError(f"{self._scene.name}: after {sound.after!r}?")

    def _over(self) -> bool:
        line = self._line
        if self._call.state is CallState.ENDED or line.now_s > 50:
            return True
        if self._waiting:
            return False
        last = line.placed[-1].end / RATE if line.placed else 0.0
        if self._scene.hangs_up:
            return line.now_s >= last
        busy = line.play.buffered_ms > 0
        if busy:
            self._last_change = line.now_s
        return line.now_s >= max(last, self._last_change) + CALM_S

    # --- the call ---

    def _config(self) -> CallConfig:
        said: dict[str, JsonValue] = {
            "language": self._scene.language,
            "stt": _STT[self._ears],
            "voice": "elevenlabs:voice-1",
            "interruption": self._scene.interruption,
            "session_limits": {"idle_timeout_seconds": 0},
            **({"greeting": self._scene.greeting} if self._scene.greeting else {}),
        }
        return resolve([read_layer(said, Scope.AGENT)], _SERVER)

    def _dial(self) -> Call:
        clock = LoopClock()
        config = self._config()
        parts = CallParts(
            clock=clock,
            metronome=Metronome(clock),
            medium=self._line,
            voice=self._voice,
            open_voice=lambda _: self._voice,
            open_stt=lambda _: self._recogniser(),
            model=lambda _: None,
            vad=self._models.vad.stream,
            turn_model=self._models.turn,
            reconfigure=lambda _: config,
            hold_music=b"",
        )
        facts = CallFacts("scene", "org_main", "mara", "+15550100", "+15550199", "inbound", "phone", {})
        call = Call(facts, config, parts)
        call.attach(self, "mara")
        return call

    def _recogniser(self) -> SpeechToText:
        return ScriptedSegments(self._line) if self._ears is Ears.DETECTED else ScriptedTurns(self._line)


class _Voice:
    """A `providers.base.TextToSpeech` that speaks with espeak-ng, faster than anybody listens."""

    output = MULAW_8K

    def __init__(self, scene: Scene) -> None:
        self._name = BOT_VOICES[scene.language]

    async def warm(self) -> None:
        """Always is."""

    def open(self) -> _Speech:
        return _Speech(self._name)

    async def aclose(self) -> None:
        """Holds nothing."""

    def speech(self, text: str) -> bytes:
        """All sound of a message."""
        return spoken(self._name, text)


def spoken(voice: str, text: str) -> bytes:
    """The bot's voice."""
    samples = at_level(speech(text, voice, 165), BOT_DB)
    return ulaw.encode((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


class _Speech:
    """One message. It is spoken when all of it is known, so that its pauses do not hang on how it was cut."""

    def __init__(self, voice: str) -> None:
        self._voice = voice
        self._text = ""
        self._known = asyncio.Event()

    async def push(self, text: str) -> None:
        self._text += text

    async def finish(self) -> None:
        self._known.set()

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        await self._known.wait()
        await asyncio.sleep(VOICE_S)
        text = self._text.strip()
        audio = spoken(self._voice, text)
        yield SpeechChunk(audio, spread_words(text, 0, len(audio) * 1000 // RATE))

    async def cancel(self) -> None:
        self._known.set()


def expected_turns(placed: list[Placed]) -> list[list[Placed]]:
    """The caller's turns, each with its sounds."""
    turns: list[list[Placed]] = []
    for one in placed:
        if one.sound.role is Part.TURN and one.sound.after == "said" and turns:
            turns[-1].append(one)
        elif one.sound.role in (Part.TURN, Part.AGAIN, Part.CUT):
            turns.append([one])
    return turns
