"""Phone calls: from the carrier's webhook to a live call (behaviour §3.2).

The webhook finds the agent, resolves what the call is configured with and warms its voice while the carrier opens the
media stream; the stream's one-time secret turns that into a call. A call that never opens its stream leaves no trace.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from pipelines.audio.tones import hold_music
from pipelines.call import Call
from pipelines.clock import Clock
from pipelines.medium import MediumSink, Transfer, TransferFailed
from pipelines.metronome import Metronome
from pipelines.parts import CallFacts, CallParts
from providers.base import MULAW_8K, LanguageModel, TextToSpeech
from providers.errors import ProviderError
from server.agents.registry import AgentRegistry
from server.engines import CallEngines
from server.metrics import Metrics
from server.routing import Nobody, Routed, Router
from server.store.base import AgentKey
from transports.twilio import twiml
from transports.twilio.line import StreamStart
from transports.twilio.numbers import reported
from transports.twilio.rest import CarrierError
from wire.commands import RawConfig
from wire.config import CallConfig, LlmConfig
from wire.errors import ConfigError
from wire.layers import Layer, patch
from wire.resolve import Scope, read_layer

log = structlog.get_logger(__name__)

STREAM_SECONDS: Final = 30.0
"""A call whose media stream has not opened by then is forgotten."""
AGENT_PATIENCE: Final = 5.0
"""How long the webhook waits for an agent that dropped a moment ago."""
SAFETY_NET_SECONDS: Final = 30.0
"""A call that the carrier says is over ends by then, should its stream not have told."""
FINAL_STATUSES: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


class Carrier(Protocol):
    """What is asked of the carrier's own API. Both raise CarrierError."""

    async def hang_up(self, call_sid: str) -> None:
        """End a call in progress."""
        ...

    async def redirect(self, call_sid: str, twiml: str) -> None:
        """Let a call go on with other TwiML."""
        ...


@dataclass(frozen=True, slots=True)
class PhoneRules:
    """What the operator decides. `max_calls` 0 means no limit; `no_agent_message` None means a bare rejection."""

    stream_url: Callable[[], str]
    max_calls: int = 0
    no_agent_message: str | None = None
    hold_music: bytes = b""
    """8 kHz µ-law; empty: the built-in music."""
    carrier: Carrier | None = None
    """Ends calls whose media stream never opened, and transfers callers; None without an account."""
    forward_url: Callable[[], str] = lambda: ""
    """Where the carrier tells the outcome of a transfer."""


@dataclass(slots=True, eq=False)
class _Expected:
    """A call whose stream is on its way."""

    facts: CallFacts
    config: CallConfig
    secret: str
    session: SessionLayers
    voice: TextToSpeech
    warming: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


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


class Phone:
    """All phone calls of this process. `run` owns their tasks."""

    def __init__(
        self,
        registry: AgentRegistry,
        engines: CallEngines,
        resolve: Callable[[Sequence[Layer]], CallConfig],
        rules: PhoneRules,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._router = Router(registry)
        self._engines = engines
        self._resolve = resolve
        self._rules = rules
        self._metrics = metrics
        self._clock: Clock = registry.clock
        self._metronome = Metronome(registry.clock)
        self._expected: dict[str, _Expected] = {}
        self._calls: set[Call] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()

    @property
    def lag(self) -> float:
        """Seconds by which the last tick of the pacing came late."""
        return self._metronome.lateness

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def expecting(self) -> int:
        """Calls that were answered and whose media stream has not opened yet."""
        return len(self._expected)

    async def run(self) -> None:
        """Serve until `close`. Start it once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._closing.wait()
                for call in list(self._calls):
                    call.end("disconnected")
        finally:
            self._metronome.close()

    def close(self) -> None:
        """End every call, take no new one; `run` returns when all are released."""
        for expected in list(self._expected.values()):
            self._forget(expected)
        self._closing.set()

    # --- the webhook ---

    async def ring(self, form: Mapping[str, str]) -> str:
        """The carrier asks what to do with a call; the answer is TwiML. Never raises for what an agent configured."""
        call_id, to, caller = form.get("CallSid", ""), form.get("To", ""), form.get("From", "")
        if not call_id or not to:
            return twiml.reject()
        refusal = self._refusal(call_id)
        if refusal is not None:
            return refusal
        routed = await self._router.route_soon(to, caller, AGENT_PATIENCE)
        if isinstance(routed, Nobody):
            log.info("call_unanswered", call_id=call_id, reason=routed.reason)
            message = self._rules.no_agent_message
            return twiml.say_and_hang_up(message) if message else twiml.reject()
        # Others may have rung while this one waited for its agent.
        refusal = self._refusal(call_id)
        if refusal is not None:
            return refusal
        try:
            expected = self._expect(call_id, caller, to, routed)
        except (ConfigError, ProviderError) as error:
            log.warning("call_refused", call_id=call_id, agent=routed.agent.key.slug, error=str(error))
            return twiml.reject()
        parameters = {"call_id": call_id, "key": expected.secret}
        return twiml.connect_stream(self._rules.stream_url(), parameters)

    def status(self, form: Mapping[str, str]) -> None:
        """The carrier tells how a call fares; duplicates and late ones are fine."""
        call_id = form.get("CallSid", "")
        if form.get("CallStatus") not in FINAL_STATUSES:
            return
        expected = self._expected.get(call_id)
        if expected is not None:
            self._forget(expected)
        call = next((call for call in self._calls if call.call_id == call_id), None)
        if call is not None:
            asyncio.get_running_loop().call_later(SAFETY_NET_SECONDS, call.end, "hangup")

    def _refusal(self, call_id: str) -> str | None:
        """Why no call of that id can begin now, as TwiML; None when it can."""
        if self._registry.calls.find(call_id) is not None:
            log.warning("call_refused", call_id=call_id, reason="already_live")
            return twiml.reject()
        limit = self._rules.max_calls
        others = len(self._calls) + len(self._expected) - (call_id in self._expected)
        if self._closing.is_set() or 0 < limit <= others:
            log.warning("call_refused", call_id=call_id, reason="capacity")
            return twiml.reject("busy")
        return None

    def _expect(self, call_id: str, caller: str, to: str, routed: Routed) -> _Expected:
        again = self._expected.get(call_id)
        if again is not None:
            self._forget(again)
        session = SessionLayers([routed.agent.layer, routed.channel.layer], self._resolve)
        config = session.config
        key: AgentKey = routed.agent.key
        facts = CallFacts(
            call_id=call_id,
            org_id=key.org_id,
            slug=key.slug,
            from_=reported(caller),
            to=reported(to),
            direction="inbound",
            transport="phone",
            metadata={},
        )
        model = self._model(config.llm)
        voice = self._engines.voice(config.voice, MULAW_8K)
        expected = _Expected(facts, config, secrets.token_urlsafe(24), session, voice)
        assert self._tasks is not None
        expected.warming = self._tasks.create_task(_warm(expected.voice, model), name="warm")
        loop = asyncio.get_running_loop()
        expected.timer = loop.call_later(STREAM_SECONDS, self._never_opened, expected)
        self._expected[call_id] = expected
        return expected

    def _never_opened(self, expected: _Expected) -> None:
        log.warning("stream_never_opened", call_id=expected.facts.call_id)
        self._forget(expected)
        if self._rules.carrier is not None and self._tasks is not None:
            self._tasks.create_task(_hang_up(self._rules.carrier, expected.facts.call_id), name="hang up")

    def _forget(self, expected: _Expected) -> None:
        self._take(expected)
        assert self._tasks is not None
        self._tasks.create_task(_release(expected), name="release")

    def _take(self, expected: _Expected) -> None:
        self._expected.pop(expected.facts.call_id, None)
        if expected.timer is not None:
            expected.timer.cancel()

    # --- the stream ---

    def admit(self, start: StreamStart) -> MediumSink | None:
        """A media stream says which call it is; its secret counts once."""
        expected = self._expected.get(start.call_id)
        if expected is None or not hmac.compare_digest(expected.secret.encode(), start.key.encode()):
            return None
        self._take(expected)
        config = expected.config
        parts = CallParts(
            clock=self._clock,
            metronome=self._metronome,
            medium=start.medium,
            voice=expected.voice,
            open_voice=lambda voice: self._engines.voice(voice, MULAW_8K),
            open_stt=lambda stt: self._engines.stt(stt, MULAW_8K),
            model=self._model,
            vad=self._engines.vad,
            turn_model=self._engines.turn_model,
            reconfigure=expected.session.patch,
            hold_music=self._rules.hold_music or hold_music(MULAW_8K),
            transfer=self._transfer(expected.facts),
        )
        call = Call(expected.facts, config, parts)
        try:
            agent = self._registry.admit(call)
        except LookupError:
            log.info("call_unanswered", call_id=call.call_id, reason="agent_gone")
            self._forget(expected)
            return None
        if agent.link is not None:
            call.attach(agent.link, agent.agent_id)
        call.events.watch(self._metrics.watcher())
        call.times.listen(self._metrics.turn_answered)
        self._calls.add(call)
        assert self._tasks is not None
        self._tasks.create_task(self._live(call), name=f"call {call.call_id}")
        return call

    def _transfer(self, facts: CallFacts) -> Transfer | None:
        """How this caller is connected elsewhere; the other side sees the number that was dialled."""
        carrier = self._rules.carrier
        if carrier is None:
            return None

        async def transfer(to: str) -> None:
            try:
                target = twiml.dial(reported(to), facts.to, self._rules.forward_url())
                await carrier.redirect(facts.call_id, target)
            except CarrierError as error:
                raise TransferFailed(str(error)) from error

        return transfer

    def _model(self, config: LlmConfig | None) -> LanguageModel | None:
        return None if config is None else self._engines.model(config.provider)

    async def _live(self, call: Call) -> None:
        try:
            with self._metrics.call():
                await call.run()
        except Exception:
            # The root of a call: its fault must not take the others with it.
            log.exception("call_failed", call_id=call.call_id)
        finally:
            self._calls.discard(call)
            self._registry.calls.remove(call.call_id)


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


async def _hang_up(carrier: Carrier, call_id: str) -> None:
    """The caller is in a call that we know nothing of: let them go."""
    try:
        await carrier.hang_up(call_id)
    except CarrierError as error:
        log.warning("hang_up_failed", call_id=call_id, error=str(error))
    except Exception:
        log.exception("hang_up_failed", call_id=call_id)


async def _release(expected: _Expected) -> None:
    if expected.warming is not None:
        expected.warming.cancel()
    try:
        await expected.voice.aclose()
    except Exception:
        # As above.
        log.exception("release_failed", call_id=expected.facts.call_id)
