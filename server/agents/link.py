"""One agent socket, without the socket: who may say what when, who is still there, and how it ends (protocol §1).

Text frames and the clock go in; frames wait in `outbox` and an ending in `closure` for the shell in
`server.agents.endpoint` to carry out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from pipelines.clock import Clock
from server.agents.outbox import Outbox
from server.throttle import TokenBucket
from wire.commands import AnyCommand, Connect, Ping, Pong, Unknown
from wire.events import Event
from wire.link_events import Connected, ErrorEvent
from wire.link_events import Ping as PingEvent
from wire.link_events import Pong as PongEvent
from wire.parsing import BadCommand, FrameError, parse

log = structlog.get_logger(__name__)

MAX_FRAME: Final = 8 * 1024 * 1024
"""Characters of one frame: `agent.create` carries whole prompts and tool schemas (the protocol asks for 1 MiB)."""
_MAX_STRANGER_FRAME: Final = 64 * 1024
"""Nobody's frames are parsed beyond this before they have shown a key."""
_NONSENSE_BURST: Final = 20
_FINAL_REASONS: Final = ("client_disconnect", "displaced")
_MAX_REASON: Final = 123
"""Bytes of a close reason (RFC 6455 §5.5)."""


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """Deadlines in seconds (protocol §1.1, §1.2, §1.6)."""

    auth: float = 10.0
    ping_after: float = 20.0
    """Silence after which we ask."""
    stale_after: float = 45.0
    """Silence after which nobody is there."""
    probe: float = 3.0
    """How long a round trip may take when somebody else wants the agent."""
    probe_holds: float = 1.0
    """How long the answer to a probe is believed."""
    penalty: float = 1.5
    """How long a socket is held that keeps coming with bad keys."""
    close: float = 5.0
    """For the last frames and the closing handshake."""


class LinkState(Enum):
    """Where a connection is in its life."""

    OPEN = "open"
    CONNECTED = "connected"
    CLOSED = "closed"


_MOVES: Final = {
    LinkState.OPEN: {LinkState.CONNECTED, LinkState.CLOSED},
    LinkState.CONNECTED: {LinkState.CLOSED},
    LinkState.CLOSED: set[LinkState](),
}


@dataclass(frozen=True, slots=True)
class Closure:
    """How the socket is to be closed: after `delay` seconds, with this code and reason."""

    code: int
    reason: str
    delay: float = 0.0


class AgentLink:
    """One connection of an SDK. Not thread-safe; nothing here blocks except `probe`."""

    def __init__(self, connection_id: str, peer: str, clock: Clock, times: LinkTimes) -> None:
        self.connection_id = connection_id
        self.peer = peer
        """The address it comes from."""
        self.org_id = ""
        """Known once connected."""
        self.key_digest = b""
        """SHA-256 of the key it has shown."""
        self.outbox = Outbox()
        self.closure: Closure | None = None
        """Set when we close; None when the peer went first."""
        self.closing = asyncio.Event()
        """Set in state CLOSED."""
        self.final = False
        """The client said goodbye: it does not come back for its agents."""
        self.dev_callers: frozenset[str] | None = None
        """From a `dev.config` that named no agent; agents that come later get it, too."""
        self.ping_socket: Callable[[], None] | None = None
        """Sends a protocol-level ping, where the server can (its answer calls `heard`)."""
        self._clock = clock
        self._times = times
        self._state = LinkState.OPEN
        self._opened_at = self._frame_at = self._life_at = self._pinged_at = clock.now()
        self._proven_at = float("-inf")
        self._waiting: list[asyncio.Future[bool]] = []
        self._nonsense = TokenBucket(rate=1.0, burst=_NONSENSE_BURST)

    @property
    def state(self) -> LinkState:
        """Where this connection is in its life."""
        return self._state

    @property
    def connected(self) -> bool:
        """Whether it has shown a key and is not closing."""
        return self._state is LinkState.CONNECTED

    # --- out ---

    def deliver(self, event: Event) -> None:
        """Queue an event. Never blocks; nothing is sent after closing has begun."""
        if self._state is not LinkState.CLOSED and not self.outbox.put(event):
            self.close(1013, "slow_consumer", discard=True)

    def accept(self, org_id: str) -> None:
        """The key is good."""
        self._move(LinkState.CONNECTED)
        self.org_id = org_id
        self.deliver(Connected(connection_id=self.connection_id, org_id=org_id))

    def refuse(self, code: str, error: str, *, delay: float = 0.0) -> None:
        """Say why, then close 1008. Ignored when already closed."""
        self.deliver(ErrorEvent(code=code, error=error))
        self.close(1008, code, delay=delay)

    def close(self, code: int, reason: str, *, delay: float = 0.0, discard: bool = False) -> None:
        """Close the socket once what waits is sent (or at once, if `discard`). Idempotent."""
        if self._state is LinkState.CLOSED:
            return
        self.closure = Closure(code, reason.encode()[:_MAX_REASON].decode(errors="ignore"), delay)
        log.info("agent_link_closing", connection=self.connection_id, org=self.org_id, code=code, reason=reason)
        self._end(discard=discard)

    # --- in ---

    def receive(self, frame: str | bytes) -> AnyCommand | None:
        """Read one frame. What is to be done about it beyond this connection is returned, if anything."""
        if self._state is LinkState.CLOSED:
            return None
        self._frame_at = self._clock.now()
        self.heard()
        if len(frame) > MAX_FRAME:
            self.close(1009, "frame_too_large")
            return None
        if self._state is LinkState.OPEN and len(frame) > _MAX_STRANGER_FRAME:
            self._not_authenticated("")
            return None
        try:
            command = parse(frame)
        except FrameError:
            self._tolerate(ErrorEvent(code="BAD_REQUEST", error="A frame must be one JSON object"), 1007)
        except BadCommand as bad:
            self._bad_command(bad)
        else:
            return self._sort(command)
        return None

    def heard(self) -> None:
        """A sign of life of any kind."""
        self._life_at = self._clock.now()
        if self._waiting:
            self._proven_at = self._life_at
            self._answer_probes(alive=True)

    def gone(self, code: int, reason: str) -> None:
        """The peer's side is closed, with that code (1005/1006: without a word)."""
        if self._state is LinkState.CLOSED:
            return
        self.final = code == 1000 and reason in _FINAL_REASONS
        log.info("agent_link_gone", connection=self.connection_id, org=self.org_id, code=code, reason=reason[:80])
        self._end(discard=True)

    def tick(self) -> float | None:
        """Do what is due by now; answers when to come again (monotonic seconds), None when closed."""
        now = self._clock.now()
        if self._state is LinkState.OPEN and now >= self._opened_at + self._times.auth:
            self.refuse("AUTH_TIMEOUT", "No connect frame in time")
        elif self._state is LinkState.CONNECTED and now >= self._life_at + self._times.stale_after:
            self.close(1001, "ping_timeout")
        elif self._state is LinkState.CONNECTED and now >= self._ping_due():
            self._ping()
        match self._state:
            case LinkState.OPEN:
                return self._opened_at + self._times.auth
            case LinkState.CONNECTED:
                return min(self._ping_due(), self._life_at + self._times.stale_after)
            case LinkState.CLOSED:
                return None

    async def probe(self) -> bool:
        """Whether somebody is there: a round trip within `LinkTimes.probe`. Many askers share one ping."""
        now = self._clock.now()
        if not self.connected or now >= self._life_at + self._times.stale_after:
            return False
        if now < self._proven_at + self._times.probe_holds:
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._ping()
        self._waiting.append(answer)
        try:
            async with asyncio.timeout(self._times.probe):
                return await answer
        except TimeoutError:
            return False
        finally:
            if answer in self._waiting:
                self._waiting.remove(answer)

    # --- inside ---

    def _sort(self, command: AnyCommand | Unknown) -> AnyCommand | None:
        match command:
            case Ping():
                self.deliver(PongEvent(timestamp=self._clock.wall()))
            case Pong():
                pass
            case Connect():
                return command if self._state is LinkState.OPEN else None
            case _ if self._state is LinkState.OPEN:
                self._not_authenticated(command.event if isinstance(command, Unknown) else event_name(command))
            case Unknown():
                log.info("unknown_command", connection=self.connection_id, command=command.event[:60])
            case _:
                return command
        return None

    def _bad_command(self, bad: BadCommand) -> None:
        if self._state is LinkState.OPEN and bad.event != "connect":
            self._not_authenticated(bad.event)
            return
        error = ErrorEvent(code="BAD_REQUEST", error=f"{bad.event}: {bad.field} is missing or of the wrong type")
        error.command = bad.event
        if bad.agent_id:
            error.agent_id = bad.agent_id
        if self._nonsense.take(self._clock.now()):
            self.deliver(error)

    def _not_authenticated(self, event: str) -> None:
        error = ErrorEvent(code="NOT_AUTHENTICATED", error="Send connect first")
        if event:
            error.command = event[:60]
        self._tolerate(error, 1008)

    def _tolerate(self, error: ErrorEvent, code: int) -> None:
        """Answer what cannot be used, but not for ever."""
        if self._nonsense.take(self._clock.now()):
            self.deliver(error)
        else:
            self.close(code, "too_many_bad_frames")

    def _ping_due(self) -> float:
        return max(self._frame_at, self._pinged_at) + self._times.ping_after

    def _ping(self) -> None:
        self._pinged_at = self._clock.now()
        self.deliver(PingEvent())
        if self.ping_socket is not None:
            self.ping_socket()

    def _end(self, *, discard: bool) -> None:
        self._move(LinkState.CLOSED)
        self.outbox.close(discard=discard)
        self._answer_probes(alive=False)
        self.closing.set()

    def _answer_probes(self, *, alive: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            if not answer.done():
                answer.set_result(alive)

    def _move(self, state: LinkState) -> None:
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"agent link: {self._state.value} cannot become {state.value}")
        self._state = state


def event_name(command: AnyCommand) -> str:
    """The command's name on the wire."""
    return str(command.__struct_config__.tag)
