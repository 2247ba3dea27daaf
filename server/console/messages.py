"""What the console's page is told over its socket, and what it may ask for. Told by `kind`."""

from __future__ import annotations

import msgspec

from pipelines.turn_times import TurnRecord
from server.console.records import CallSummary


class Message(msgspec.Struct, kw_only=True, tag_field="kind", omit_defaults=False):
    """Something for the page."""


class Hello(Message, tag="hello", kw_only=True):
    """First of all: whose console this is."""

    org: str
    version: str
    now: float
    """The gateway's clock, epoch seconds."""


class ChannelLine(msgspec.Struct, kw_only=True):
    """One way to an agent."""

    type: str
    ref: str


class AgentLine(msgspec.Struct, kw_only=True):
    """One agent."""

    slug: str
    name: str
    """As its program calls it."""
    online: bool
    calls: int
    channels: list[ChannelLine]
    model: str
    """Who thinks: the server's model, or empty for the agent's own program."""


class Agents(Message, tag="agents", kw_only=True):
    """All agents, whenever something about them has changed."""

    agents: list[AgentLine]


class Health(Message, tag="health", kw_only=True):
    """How the gateway fares, every few seconds."""

    uptime_seconds: float
    calls: int
    max_calls: int
    connections: int
    agents: int
    loop_lag_ms: float
    memory_mb: float
    cpu_percent: float
    """Of one core, since it was last told."""
    store: str
    store_reachable: bool
    engines: list[str]
    """Vendors there is a key for; empty: the built-in engines serve everything."""


class Calls(Message, tag="calls", kw_only=True):
    """All calls that are known, oldest first; once, at the beginning."""

    calls: list[CallSummary]


class OneCall(Message, tag="call", kw_only=True):
    """A call is new or has changed."""

    call: CallSummary


class Transcript(Message, tag="transcript", kw_only=True):
    """All of a call that the page has asked to follow."""

    call_id: str
    events: list[msgspec.Raw]
    turns: list[TurnRecord]


class Happened(Message, tag="event", kw_only=True):
    """One more event of the call that is followed."""

    call_id: str
    event: msgspec.Raw


class Answered(Message, tag="turn", kw_only=True):
    """How long one more turn of it took."""

    call_id: str
    turn: TurnRecord


class Level(Message, tag="level", kw_only=True):
    """How loud one side of it is, ten times a second; `source` is user or bot."""

    call_id: str
    source: str
    db: float
    """dBFS, -60 to 0."""
    speech: bool


class Request(msgspec.Struct, kw_only=True):
    """What the page asks for: to `follow` a call ("" for none any more), or to `hang_up` one."""

    follow: str | None = None
    hang_up: str | None = None
