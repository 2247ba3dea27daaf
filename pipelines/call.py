"""One call, from the first frame to the last: its task group, its state, and the wiring between ears, mind and mouth.

Nothing is decided here that a room of its own decides: turns in `listening`, words in `thinking`, sound in `speaking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import replace
from enum import Enum, auto

import structlog

from pipelines.attention import Attention
from pipelines.barge_in import BargeIn
from pipelines.commands import Commands
from pipelines.events import CallEvents, EventSink
from pipelines.forwarding import Forwarding
from pipelines.greeting import Greeting
from pipelines.keypad import Keypad
from pipelines.listening.directives import Output, ResumeBot, StopBot
from pipelines.listening.ears import Ears
from pipelines.listening.turn import TurnMachine
from pipelines.metering import LevelListener, Metering
from pipelines.page import Page
from pipelines.parts import CallFacts, CallParts
from pipelines.session import Organs, Session
from pipelines.soundtrack import Soundtrack
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.music import Music
from pipelines.speaking.orders import Orders
from pipelines.speaking.utterance import Origin, Utterance
from pipelines.thinking.dialogue import Dialogue
from pipelines.thinking.memory import MemoryDesk
from pipelines.thinking.replies import Replies
from pipelines.turn_effects import TurnEffects
from pipelines.turn_times import TurnTimes
from pipelines.watch import SessionWatch
from providers.errors import ProviderError
from wire.commands import CallCommand, SessionConfigure
from wire.config import CallConfig
from wire.events import CallError, CallEvent

log = structlog.get_logger(__name__)

TEARDOWN_SECONDS = 2.0
"""Everything a call holds is released within this."""
SAY_PATIENCE_SECONDS = 3.0
"""A message that answers nothing waits this long for a user whose turn it is."""


class CallState(Enum):
    """A call's life."""

    NEW = auto()
    LIVE = auto()
    ENDED = auto()


class _Over(Exception):
    """Leaves the call's task group."""


class Call:
    """A live call. Synchronous methods never block and keep the order they are called in."""

    def __init__(self, facts: CallFacts, config: CallConfig, parts: CallParts) -> None:
        self._facts = facts
        self.soundtrack = Soundtrack(parts.medium, parts.clock)
        self._parts = parts = replace(parts, medium=self.soundtrack)
        self._session = Session(config, parts)
        self._clock = parts.clock
        self.state = CallState.NEW
        self._log = log.bind(call_id=facts.call_id, agent=facts.slug, org=facts.org_id)
        self.events = CallEvents(facts.call_id, parts.clock)
        self._machine = TurnMachine(self._session.turn_rules())
        self._ears = Ears(self._session.ears_parts(self._machine), parts.clock, self)
        self._mouth = Mouth(self._ears.monitored(parts.medium), self.events, parts.clock, self)
        self._mouth.use_voice(parts.voice)
        music = Music(parts.medium, parts.hold_music)
        self._attention = Attention(self._ears, self._mouth, music, self.events, lambda: self._barge_in.abandon())
        self._orders = Orders(self._mouth, Replies(), self.events, parts.clock, self._attention.reply_accepted)
        self._dialogue = Dialogue(config, self._session.model, self, parts.clock)
        self._memory = MemoryDesk(self._dialogue.mind, config.prompt, self.events)
        self._watch = SessionWatch(config.limits, self.events, self._is_busy, lambda: self._mouth.busy)
        self._barge_in = BargeIn(self._machine, self._ears, self._mouth, self._dialogue)
        self._metering = Metering(parts.medium.audio, self.events, parts.clock)
        self._greeting = Greeting(parts.opening, self.say, lambda: self._session.config.greeting)
        self.times = TurnTimes(parts.clock)
        self.times.listen(lambda turn: self._log.info("turn", **turn.numbers()))
        self.events.watch(self.times)
        self._forwarding = Forwarding(parts.transfer, self._mouth, self.events, self)
        self._forwarding.bind(self.end, lambda: self._session.config.language)
        line = parts.medium.audio if facts.transport == "phone" else None
        self._keypad = Keypad(self._mouth, self.events, line, self._attention.keys_coming)
        self._commands = Commands(
            clock=parts.clock,
            mouth=self._mouth,
            orders=self._orders,
            attention=self._attention,
            barge_in=self._barge_in,
            dialogue=self._dialogue,
            memory=self._memory,
            forwarding=self._forwarding,
            keypad=self._keypad,
            configure=self._configure,
            end=self.end,
        )
        self._organs = Organs(self._machine, self._ears, self._mouth, self._dialogue, self._watch)
        self._effects = TurnEffects(
            clock=parts.clock,
            machine=self._machine,
            ears=self._ears,
            mouth=self._mouth,
            replies=self._orders.replies,
            dialogue=self._dialogue,
            greeting=self._greeting,
            barge_in=self._barge_in,
            watch=self._watch,
            metering=self._metering,
        )
        self.page = Page(self._organs, self._session, self._attention, self._barge_in, self)
        self._started_at, self._spoke = 0.0, False
        self._over = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._context = copy_context()

    # --- who and where ---

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        return self._facts.call_id

    @property
    def org_id(self) -> str:
        """Whose call."""
        return self._facts.org_id

    @property
    def slug(self) -> str:
        """Whose agent's call."""
        return self._facts.slug

    # --- life ---

    async def run(self) -> None:
        """Live until the call ends, then release everything. Never raises for what a vendor or a peer does."""
        with structlog.contextvars.bound_contextvars(call_id=self.call_id, agent=self.slug):
            self._context = copy_context()
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._start(tasks)
                    await self._over.wait()
                    raise _Over
            except* _Over:
                pass
            except* Exception as group:  # noqa: BLE001 - the root of a call's tasks: a fault ends this call and no other
                self._log.exception("call_failed", errors=[repr(error) for error in group.exceptions])
                self.end("error")
            finally:
                self.end("error")
                await self._release()

    def attach(self, sink: EventSink, agent_id: str) -> None:
        """The agent's socket, and what it calls the agent. On a call that lives already: the agent is back."""
        self.events.attach_owner(sink, agent_id)
        if self.state is CallState.LIVE:
            self.events.publish(self._facts.started(self._session.config.language, resumed=True))
            self._dialogue.agent_is_back()

    def detach(self) -> None:
        """The agent's socket is gone."""
        self.events.detach_owner()
        self._orders.close_streams()

    def end(self, reason: str) -> None:
        """End now: what is in flight is settled, `call.ended` is the last frame. Idempotent."""
        if self.state is CallState.ENDED:
            return
        started = self.state is not CallState.NEW
        self.state = CallState.ENDED
        for settle in (self._settle, self._tell_recording) if started else ():
            try:
                settle()
            except Exception:  # noqa: BLE001 - whatever is broken in this call, it must end and its agent must hear of it
                self._log.exception("call_not_settled")
        try:
            if started:
                times = (self._started_at, self._clock.wall())
                self.events.publish(self._facts.ended(reason, times, self._dialogue.mind.record()))
        finally:
            self.events.close()
            self._log.info("call_ended", reason=reason)
            self._over.set()

    def watch_levels(self, listener: LevelListener) -> Callable[[], None]:
        """Tell this one how loud both sides are; call the answer when it is no longer interested."""
        self._metering.watch(listener)
        self.meter()

        def stop() -> None:
            self._metering.unwatch(listener)
            self.meter()

        return stop

    # --- commands of the agent ---

    def command(self, command: CallCommand) -> None:
        """Carry out one command of the agent."""
        if self.state is CallState.ENDED:
            return
        try:
            self._commands.obey(command)
        except Exception:  # noqa: BLE001 - whoever brought the command has other calls
            self._failed()

    # --- MediumSink ---

    def on_audio(self, audio: bytes) -> None:
        """The caller's audio."""
        self.soundtrack.heard(audio)
        self._ears.hear(audio)

    def on_mark(self, name: str) -> None:
        """The carrier played up to there."""
        self.soundtrack.echoed(name)
        self._mouth.on_mark(name)

    def on_digit(self, digit: str) -> None:
        """The caller pressed a key."""
        self._watch.user_activity(self._clock.now())
        self._keypad.pressed(digit)

    def on_gone(self, reason: str) -> None:
        """The caller's side is gone."""
        if not self._forwarding.line_gone(reason):
            self.end(reason)

    # --- what the ears tell ---

    def on_heard(self, outputs: list[Output]) -> None:
        """Turn events and directives."""
        for output in outputs:
            if isinstance(output, StopBot):
                self._barge_in.stop(resume_false=self._session.config.interruption.resume_false)
            elif isinstance(output, ResumeBot):
                self._barge_in.resume()
            elif isinstance(output, CallEvent):
                self.events.publish(output)
                self._effects.follow(output)

    def on_ears_trouble(self, error: ProviderError) -> None:
        """The recogniser failed."""
        self._trouble(error)

    # --- what the mouth asks and tells ---

    def may_play(self, utterance: Utterance) -> bool:
        """What is said waits until the user's turn is over; what answers no turn does not wait for ever."""
        if not self._machine.user_has_floor:
            return True
        return not utterance.is_reply and self._clock.now() - utterance.queued_at >= SAY_PATIENCE_SECONDS

    def on_audible(self, utterance: Utterance) -> None:
        """The caller begins to hear it."""
        self._machine.bot_audible(self._ears.now_ms, greeting=not self._spoke)
        self._spoke = True
        self._dialogue.on_audible(utterance)

    def on_reached(self, utterance: Utterance) -> None:
        """Its first sound is in the caller's ear."""
        proactive = utterance.origin is Origin.CLIENT
        self.times.reached(utterance.in_reply_to, utterance.milestones, proactive=proactive)

    def on_record(self, utterance: Utterance, heard: str) -> None:
        """The caller heard these words."""
        self._dialogue.on_record(utterance, heard)

    def on_silent(self) -> None:
        """The bot has said all it had to say."""
        if self.state is CallState.ENDED:
            return
        self._machine.bot_silent(self._ears.now_ms)
        self._ears.flush()

    def on_mouth_trouble(self, error: ProviderError) -> None:
        """The voice failed."""
        self._trouble(error)

    # --- what the dialogue wants ---

    def say(self, utterance: Utterance) -> bool:
        """Queue speech of the server."""
        self._attention.reply_accepted()
        return self._mouth.enqueue(utterance)

    def publish(self, event: CallEvent) -> None:
        """State a fact."""
        self.events.publish(event)

    def spawn(self, job: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something as part of this call."""
        assert self._tasks is not None
        # Whoever asks may run in another call's context (a shared tick, a shared detector): logs must name this call.
        return self._tasks.create_task(job, name=name, context=self._context.copy())

    def meter(self) -> None:
        """Listen in on ears, mouth and line for what the settings ask to be told."""
        self._metering.configure(self._session.config)
        self.soundtrack.configure(self._session.config)
        self._ears.meter(self._metering.user)
        self._mouth.sound = self._metering.bot

    # --- inside ---

    def _configure(self, command: SessionConfigure) -> None:
        self._session.change(command, self._organs, self)
        self._greeting.configured()

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        if self.state is not CallState.NEW:
            return
        self._tasks = tasks
        self.state = CallState.LIVE
        self._started_at = self._clock.wall()
        self.soundtrack.begin()
        self._watch.start(self._clock.now())
        if self._session.config.warnings:
            self._log.warning("call_config", notes="; ".join(self._session.config.warnings))
        self.events.publish(self._facts.started(self._session.config.language))
        self.meter()
        tasks.create_task(self._ears.run(tasks), name="ears")
        tasks.create_task(self._mouth.run(tasks), name="mouth")
        self._parts.metronome.join(self, self._beat)
        self._greeting.start(self._clock.now())
        self._keypad.start()
        self._log.info("call_started", transport=self._facts.transport, direction=self._facts.direction)

    def _beat(self, now: float) -> None:
        try:
            self._ears.beat(now)
            self._mouth.beat(now)
            self._attention.beat(now)
            self._greeting.beat(now)
            self._orders.beat(now)
            self._metering.beat(now)
            self.soundtrack.beat(now)
            reason = self._watch.beat(now)
        except Exception:  # noqa: BLE001 - without a beat the call would be mute, and never end
            self._failed()
            return
        if reason is not None:
            self.end(reason)

    def _failed(self) -> None:
        """A fault of ours or of an engine, in a callback: it ends this call and no other."""
        self._log.exception("call_failed")
        self.end("error")

    def _settle(self) -> None:
        """What was being said and heard when the call ended goes into the record."""
        self._attention.close()
        self._mouth.clear()
        self._dialogue.finish(*self._machine.unfinished)

    def _tell_recording(self) -> None:
        """The call has had its last sound: whoever listens is told, and the agent gets what was recorded."""
        recording = self.soundtrack.end()
        if recording is not None:
            self.events.publish(recording)

    def _is_busy(self) -> bool:
        """True while silence is nobody's fault."""
        speaking = self._mouth.busy or self._machine.user_speaking
        return speaking or self._dialogue.busy or self._attention.away

    def _trouble(self, error: ProviderError) -> None:
        self._log.warning("provider_failed", vendor=error.vendor, code=error.code, error=str(error))
        self.events.publish(CallError(code=error.code, error=str(error)))

    async def _release(self) -> None:
        self._parts.metronome.leave(self)
        try:
            async with asyncio.timeout(TEARDOWN_SECONDS):
                await asyncio.gather(self._parts.medium.hang_up(), self._session.voice.aclose())
        except TimeoutError:
            self._log.warning("call_release_late")
