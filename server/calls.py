"""Calls: from what is known of one to its end, whatever medium carries it.

A door (the carrier's webhook, a browser's offer) expects a call before there is a line: its voice is opened and warmed
and it counts against capacity. The line makes it begin, or it is forgotten without a trace.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from pipelines.call import Call
from pipelines.clock import Clock
from pipelines.greeting import Opening
from pipelines.medium import Medium, Transfer
from pipelines.metronome import Metronome
from pipelines.parts import CallFacts, CallParts
from pipelines.speaking.rehearsed import RehearsedVoice
from providers.base import AudioFormat, LanguageModel, TextToSpeech
from server.agents.registry import AgentRegistry
from server.engines import CallEngines
from server.metrics import Metrics
from server.supply import Supply
from wire.commands import RawConfig
from wire.config import CallConfig, LlmConfig
from wire.layers import Layer, patch
from wire.resolve import Scope, read_layer

log = structlog.get_logger(__name__)

START_AT_ONCE: Final = Opening()


class SessionLayers:
    """What one call is configured with: the layers it began with, and what `session.configure` laid on them."""

    def __init__(self, layers: Sequence[Layer], resolve: Callable[[Sequence[Layer]], CallConfig]) -> None:
        """Raises ConfigError when the layers could not serve a call."""
        self._layers = list(layers)
        self._session = Layer()
        self._resolve = resolve
        self.config = resolve(self._layers)

    def patch(self, raw: RawConfig) -> CallConfig:
        """The configuration after one more patch. Raises ConfigError, and then nothing has changed."""
        session = patch(self._session, read_layer(raw, Scope.SESSION))
        self.config = self._resolve([*self._layers, session])
        self._session = session
        return self.config


@dataclass(frozen=True, slots=True)
class CallRules:
    """What the operator decides about all calls."""

    max_calls: int = 0
    """0: no limit."""
    max_lag: float = 0.0
    """Seconds by which the pacing may run late, on the average of the last second, before new calls are refused; 0:
    any."""
    hold_music: Callable[[AudioFormat], bytes] = lambda _line: b""
    """One loop in the line's format."""
    max_calls_of: Callable[[str], int] = lambda _org_id: 0
    """How many one organisation may have; 0: no limit of its own."""


@dataclass(slots=True, eq=False)
class ExpectedCall:
    """A call that has no line yet. Its configuration may still be patched through `session`."""

    facts: CallFacts
    session: SessionLayers
    line: AudioFormat
    voice: TextToSpeech
    engines: CallEngines
    warming: asyncio.Task[None] | None = None

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        return self.facts.call_id


class Calls:
    """All calls of this process. `run` owns their tasks."""

    def __init__(
        self,
        registry: AgentRegistry,
        supply: Supply,
        rules: CallRules,
        metrics: Metrics,
    ) -> None:
        self.registry = registry
        self._supply = supply
        self._rules = rules
        self._metrics = metrics
        self.clock: Clock = registry.clock
        self.metronome = Metronome(registry.clock)
        self._expected: set[ExpectedCall] = set()
        self._live: dict[str, Call] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self.observers: list[Callable[[Call], None]] = []
        """Each is shown every call before it begins."""

    @property
    def lag(self) -> float:
        """Seconds by which the pacing runs late, on the average of the last second."""
        return self.metronome.lag

    def __len__(self) -> int:
        return len(self._live)

    @property
    def expecting(self) -> int:
        """Calls that have no line yet."""
        return len(self._expected)

    def find(self, call_id: str) -> Call | None:
        """The live call of that id."""
        return self._live.get(call_id)

    async def run(self) -> None:
        """Serve until `close`. Start it once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._closing.wait()
                for call in list(self._live.values()):
                    call.end("disconnected")
        finally:
            self.metronome.close()

    def close(self) -> None:
        """End every call, take no new one; `run` returns when all are released."""
        for expected in list(self._expected):
            self.forget(expected)
        self._closing.set()

    def spawn(self, job: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something that must not outlive the calls. It may not raise."""
        assert self._tasks is not None
        return self._tasks.create_task(job, name=name)

    # --- the life of a call ---

    def session(self, org_id: str, layers: Sequence[Layer]) -> SessionLayers:
        """What a call of that organisation on these layers runs on. Raises ConfigError when it could not."""
        return SessionLayers(layers, functools.partial(self._supply.resolve, org_id))

    def refusal(self, org_id: str = "", besides: str = "") -> str | None:
        """Why no new call can begin now: closing, capacity, lag or organisation_capacity; None when one can. Without
        `org_id` only what concerns everybody is looked at. A call that is expected as `besides` is not counted: it is
        the one that asks. Whoever is told a reason refuses the call, and that is counted."""
        reason = self._reason(org_id, besides)
        if reason is not None:
            self._metrics.refused.labels(reason).inc()
        return reason

    def _reason(self, org_id: str, besides: str) -> str | None:
        if self._closing.is_set():
            return "closing"
        others = len(self._live) + sum(expected.call_id != besides for expected in self._expected)
        if 0 < self._rules.max_calls <= others:
            return "capacity"
        if self._live and 0 < self._rules.max_lag < self.lag:
            return "lag"
        limit = self._rules.max_calls_of(org_id) if org_id else 0
        if 0 < limit <= self._of_org(org_id, besides):
            return "organisation_capacity"
        return None

    def expect(
        self, facts: CallFacts, session: SessionLayers, line: AudioFormat, *, rehearse: bool = False
    ) -> ExpectedCall:
        """Make ready for a call on a line of that format; `rehearse`: with its greeting synthesised already. Raises
        ProviderError for a vendor that cannot be had."""
        engines = self._supply.engines(facts.org_id)
        model = _model(engines, session.config.llm)
        voice = engines.voice(session.config.voice, line)
        if rehearse and session.config.greeting:
            voice = RehearsedVoice(voice, session.config.greeting)
        expected = ExpectedCall(facts, session, line, voice, engines)
        expected.warming = self.spawn(_warm(voice, model), "warm")
        self._expected.add(expected)
        return expected

    def forget(self, expected: ExpectedCall) -> None:
        """It will never begin. Idempotent."""
        if expected in self._expected:
            self._expected.discard(expected)
            self.spawn(_release(expected), "release")

    def begin(
        self,
        expected: ExpectedCall,
        medium: Medium,
        *,
        transfer: Transfer | None = None,
        opening: Opening | None = START_AT_ONCE,
    ) -> Call:
        """The line is there: the call lives from now on. Raises LookupError when its agent is known no more, or when no
        call begins any more (the call is forgotten then)."""
        if self._closing.is_set():
            raise LookupError(expected.call_id)
        line, engines = expected.line, expected.engines
        parts = CallParts(
            clock=self.clock,
            metronome=self.metronome,
            medium=medium,
            voice=expected.voice,
            open_voice=lambda voice: engines.voice(voice, line),
            open_stt=lambda stt: engines.stt(stt, line),
            model=lambda llm: _model(engines, llm),
            vad=engines.vad,
            turn_model=engines.turn_model,
            reconfigure=expected.session.patch,
            hold_music=self._rules.hold_music(line),
            opening=opening,
            transfer=transfer,
        )
        call = Call(expected.facts, expected.session.config, parts)
        try:
            agent = self.registry.admit(call)
        except LookupError:
            log.info("call_unanswered", call_id=call.call_id, reason="agent_gone")
            self.forget(expected)
            raise
        self._expected.discard(expected)
        if agent.link is not None:
            call.attach(agent.link, agent.agent_id)
        call.events.watch(self._metrics.watcher())
        call.times.listen(self._metrics.turn_answered)
        for observer in self.observers:
            observer(call)
        self._live[call.call_id] = call
        self.spawn(self._run(call), f"call {call.call_id}")
        return call

    # --- inside ---

    def _of_org(self, org_id: str, besides: str) -> int:
        """How many calls an organisation has, live and expected."""
        live = sum(call.org_id == org_id for call in self._live.values())
        coming = (one for one in self._expected if one.call_id != besides)
        return live + sum(one.facts.org_id == org_id for one in coming)

    async def _run(self, call: Call) -> None:
        try:
            with self._metrics.call():
                await call.run()
        except Exception:
            # The root of a call: its fault must not take the others with it.
            log.exception("call_failed", call_id=call.call_id)
        finally:
            del self._live[call.call_id]
            self.registry.calls.remove(call.org_id, call.call_id)


def _model(engines: CallEngines, config: LlmConfig | None) -> LanguageModel | None:
    return None if config is None else engines.model(config.provider)


async def _warm(voice: TextToSpeech, model: LanguageModel | None) -> None:
    """Make the first words fast. Failing here is not an error: the call will tell."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(voice.warm())
            if model is not None:
                tasks.create_task(model.warm())
    except Exception:
        # The root of this task: an engine's fault must not take other calls with it.
        log.exception("warming_failed")


async def _release(expected: ExpectedCall) -> None:
    if expected.warming is not None:
        expected.warming.cancel()
    try:
        await expected.voice.aclose()
    except Exception:
        # As above.
        log.exception("release_failed", call_id=expected.call_id)
