"""Calls from browsers: from a page's offer to a live call, and to its end (docs/browser.md).

An offer is answered at once; the agent is told of the call when the connection stands, which may be never. Until then
the session costs a place and some sockets, for half a minute at most.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import msgspec
import structlog

from pipelines.call import Call, CallState
from pipelines.clock import Clock
from pipelines.greeting import Cue, Opening
from pipelines.medium import Medium, MediumSink
from pipelines.metronome import Metronome
from pipelines.parts import CallFacts
from providers.base import PCM_16K
from providers.errors import ProviderError
from server.api.errors import ApiError
from server.calls import Calls, ExpectedCall
from server.store.base import AgentKey
from transports.flood import FloodGate, Verdict
from transports.webrtc.messages import (
    Configure,
    InjectText,
    Mute,
    Outgoing,
    PageCommand,
    Ping,
    PutContext,
    frame,
    frames_of,
    read_frame,
)
from transports.webrtc.offer import Offer, OfferError
from transports.webrtc.peer import NoPortError, Session
from wire.commands import RawConfig
from wire.errors import ConfigError
from wire.events import CallEnded, CallEvent, CallStarted
from wire.layers import Layer
from wire.page_config import page_settings
from wire.page_events import ConfigUpdated, Pong, SessionStarted
from wire.resolve import Scope, read_layer

log = structlog.get_logger(__name__)

CONNECT_SECONDS: Final = 30.0
"""A session that has not connected by then is given up."""
SILENT_SECONDS: Final = 15.0
"""A page that sends neither pings nor packets for so long is gone. Pings alone may pause: tabs in the background are
held back."""
_LOOK_SECONDS: Final = 1.0
_EARLY_FRAMES: Final = 20


class BrowserPeer(Medium, Protocol):
    """One browser's connection, as `transports.webrtc.peer.Peer` is."""

    @property
    def heard_at(self) -> float:
        """When audio last came (loop time)."""
        ...

    async def answer(self, offer: Offer) -> str:
        """The answer. Raises OfferError, NoPortError; the peer is closed then."""
        ...

    def start(self, sink: MediumSink) -> None:
        """The call begins: its audio flows."""
        ...

    def tell(self, frames: list[Outgoing]) -> None:
        """Send these to the page."""
        ...

    def deafen(self, *, on: bool) -> None:
        """Let nothing of the caller's audio through, or let it through again."""
        ...


OpenPeer = Callable[[Clock, Metronome, Session], BrowserPeer]


@dataclass(frozen=True, slots=True)
class BrowserRules:
    """What the operator decides. 0: no limit."""

    open_peer: OpenPeer
    per_agent: int = 0
    """Sessions of one agent at a time."""
    per_org: int = 0
    config_wait: float = 0.6
    """Seconds for which a greeting waits for what the agent makes of the session's metadata."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who wants to talk to whom, and with which settings. `metadata` is merged already."""

    agent: AgentKey
    metadata: dict[str, msgspec.Raw]
    config: RawConfig
    offer: Offer


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer, and what the session is called; its call has the same id."""

    sdp: str
    session_id: str


class BrowserCalls:
    """All browser sessions of this process."""

    def __init__(self, calls: Calls, rules: BrowserRules) -> None:
        self._calls = calls
        self._rules = rules
        self._sessions: set[BrowserSession] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def answer(self, visit: Visit) -> Answered:
        """Answer a page's offer. Raises ApiError 400, 404, 503."""
        agent = self._calls.registry.find(visit.agent)
        if agent is None or not agent.online:
            raise ApiError(404, "AGENT_OFFLINE", f"Agent '{visit.agent.slug}' is not online")
        self._make_room(visit.agent)
        channel = agent.channels.get("webrtc")
        layers = [agent.layer] if channel is None else [agent.layer, channel.layer]
        session = BrowserSession(self._calls, self._expect(visit, layers), self._rules, self._sessions.discard)
        self._sessions.add(session)
        try:
            return Answered(await session.answer(visit.offer), session.call_id)
        except OfferError as error:
            raise ApiError(400, "BAD_REQUEST", str(error)) from None
        except NoPortError:
            raise _no_room(visit.agent, "no_udp_port") from None

    def close(self) -> None:
        """The gateway stops: sessions that are not calls yet are given up."""
        for session in list(self._sessions):
            session.give_up("closing")

    def _make_room(self, agent: AgentKey) -> None:
        """Raises ApiError 503 when there is none."""
        reason = self._calls.refusal(agent.org_id)
        ours = [session.agent for session in self._sessions]
        if 0 < self._rules.per_agent <= ours.count(agent):
            reason = "agent_capacity"
        elif 0 < self._rules.per_org <= sum(one.org_id == agent.org_id for one in ours):
            reason = "organisation_capacity"
        if reason is not None:
            raise _no_room(agent, reason)

    def _expect(self, visit: Visit, layers: list[Layer]) -> ExpectedCall:
        """Make ready, with as many of the page's settings as can be had. Raises ApiError 503."""
        facts = CallFacts(
            call_id=f"wrt_{secrets.token_hex(12)}",
            org_id=visit.agent.org_id,
            slug=visit.agent.slug,
            from_="webrtc",
            to=visit.agent.slug,
            direction="inbound",
            transport="webrtc",
            metadata=visit.metadata,
        )
        settings, dropped = page_settings(visit.config)
        if dropped:
            log.info("page_settings_dropped", call_id=facts.call_id, keys=dropped[:20])
        try:
            chosen = self._usable(settings, layers, facts)
            return self._calls.expect(facts, self._calls.session(facts.org_id, [*layers, chosen]), PCM_16K)
        except (ConfigError, ProviderError) as error:
            log.warning("session_refused", agent=visit.agent.slug, org=visit.agent.org_id, error=str(error))
            raise ApiError(503, "AGENT_UNAVAILABLE", "The agent cannot take calls now") from None

    def _usable(self, settings: RawConfig, layers: list[Layer], facts: CallFacts) -> Layer:
        """The page's settings as a layer; what of them cannot be had is as if it had not been said."""
        usable: RawConfig = {}
        layer = Layer()
        for key, value in settings.items():
            try:
                more = read_layer({**usable, key: value}, Scope.CALL)
                self._calls.session(facts.org_id, [*layers, more])
            except ConfigError as error:
                log.warning("page_setting_refused", call_id=facts.call_id, key=key, error=str(error))
            else:
                usable[key], layer = value, more
        return layer


def _no_room(agent: AgentKey, reason: str) -> ApiError:
    """`reason` is for the operator."""
    log.warning("session_refused", agent=agent.slug, org=agent.org_id, reason=reason)
    return ApiError(503, "SERVER_AT_CAPACITY", "No session is free now; try again later", {"Retry-After": "5"})


class SessionState(Enum):
    """A session's life."""

    OFFERED = auto()
    LIVE = auto()
    OVER = auto()


class BrowserSession:
    """One page and its call: what the peer tells goes to the call, what the call tells to the page."""

    def __init__(
        self, calls: Calls, expected: ExpectedCall, rules: BrowserRules, over: Callable[[BrowserSession], None]
    ) -> None:
        self._calls = calls
        self._expected = expected
        self._rules = rules
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._log = log.bind(call_id=expected.call_id, agent=expected.facts.slug, org=expected.facts.org_id)
        self.state = SessionState.OFFERED
        self._peer = rules.open_peer(calls.clock, calls.metronome, self)
        self._call: Call | None = None
        self._gate = FloodGate()
        self._early: list[PageCommand] = []
        self._pinged_at = self._loop.time()
        self._timer = self._loop.call_later(CONNECT_SECONDS, self.give_up, "never_connected")

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        return self._expected.call_id

    @property
    def agent(self) -> AgentKey:
        """Whom the page talks to."""
        return AgentKey(self._expected.facts.org_id, self._expected.facts.slug)

    async def answer(self, offer: Offer) -> str:
        """Raises OfferError, NoPortError, and then the session is over."""
        try:
            answer = await self._peer.answer(offer)
        except BaseException:
            self.give_up("not_answered")
            raise
        self._log.info("session_offered", events=offer.has_events)
        return answer

    def give_up(self, reason: str) -> None:
        """It will not become a call. Idempotent; no-op for one that has."""
        if self.state is SessionState.OFFERED:
            self._log.info("session_given_up", reason=reason)
            self._end()
            self._calls.forget(self._expected)
            self._calls.spawn(self._peer.hang_up(), "close peer")

    # --- the peer ---

    def on_connected(self) -> None:
        """The connection stands: the call begins."""
        if self.state is not SessionState.OFFERED:
            return
        facts = self._expected.facts
        opening = Opening(Cue.CONFIGURED, self._rules.config_wait) if facts.metadata else Opening()
        try:
            call = self._calls.begin(self._expected, self._peer, opening=opening)
        except LookupError:
            self.give_up("agent_gone")
            return
        self.state = SessionState.LIVE
        self._call = call
        self._peer.tell([frame(SessionStarted(call_id=self.call_id, session_id=self.call_id))])
        call.events.watch(self)
        self._peer.start(call)
        self._timer.cancel()
        self._pinged_at = self._loop.time()
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def on_lost(self, reason: str) -> None:
        """The browser is gone."""
        if self._call is not None:
            self._call.on_gone(reason)
        else:
            self.give_up(reason)

    def on_frame(self, frame: str | bytes) -> None:
        """The page sent something."""
        now = self._loop.time()
        ping = frame in ("ping", b"ping")
        match self._gate.judge(len(frame), now, ping=ping):
            case Verdict.TAKE:
                if ping:
                    self._pinged_at = now
                elif (command := read_frame(frame)) is not None:
                    self._obey(command)
            case Verdict.END if self.state is SessionState.LIVE:
                self._log.warning("session_flooded")
                self.on_lost("disconnected")
            case _:
                pass

    # --- the call ---

    def deliver(self, event: CallEvent) -> None:
        """A fact of the call."""
        self._peer.tell(frames_of(event))
        if isinstance(event, CallStarted):
            early, self._early = self._early, []
            for command in early:
                self._obey(command)
        elif isinstance(event, CallEnded):
            self._end()

    # --- inside ---

    def _obey(self, command: PageCommand) -> None:
        if self.state is SessionState.OVER:
            return
        if self._call is None or self._call.state is not CallState.LIVE:
            # The channel may open before the agent has been told of the call.
            self._early = [*self._early, command][:_EARLY_FRAMES]
            return
        page = self._call.page
        match command:
            case Mute(on=on):
                self._peer.deafen(on=on)
                page.mute(on=on)
            case InjectText(text=text):
                page.write(text)
            case PutContext(key=key, value=value):
                page.show(key, value)
            case Configure(config=config):
                self._configure(config, self._call)
            case Ping():
                self._pinged_at = self._loop.time()
                self._peer.tell([frame(Pong(call_id=self.call_id))])

    def _configure(self, config: RawConfig, call: Call) -> None:
        settings, dropped = page_settings(config)
        if dropped:
            self._log.info("page_settings_dropped", keys=dropped[:20])
        taken = call.page.configure(settings)
        self._peer.tell([frame(ConfigUpdated(call_id=self.call_id, config=taken))])

    def _look(self) -> None:
        """Is anybody there?"""
        silent = self._loop.time() - max(self._pinged_at, self._peer.heard_at)
        if silent >= SILENT_SECONDS:
            self._log.info("session_silent", seconds=round(silent))
            self.on_lost("connection_lost")
        if self.state is SessionState.LIVE:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _end(self) -> None:
        self.state = SessionState.OVER
        self._timer.cancel()
        self._early = []
        self._over(self)
