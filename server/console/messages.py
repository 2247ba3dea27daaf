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
    open: bool
    """Nobody had to sign in: the page is on the gateway's own machine."""
    key_kept: str
    """The file in which the generated API key is, for commands that read it there; "" where operators gave out keys.
    No key is ever told to a page."""


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


class RingingLine(msgspec.Struct, kw_only=True):
    """One telephone that rings, or a call that its agent was asked whether to take."""

    call_id: str
    agent: str
    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    state: str
    """requested, dialing, ringing or answered."""


class Ringing(Message, tag="ringing", kw_only=True):
    """All calls that are not live yet, whenever something about them has changed."""

    calls: list[RingingLine]


class Health(Message, tag="health", kw_only=True):
    """How the gateway fares, every few seconds."""

    uptime_seconds: float
    calls: int
    max_calls: int
    chats: int
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


class Conversations(Message, tag="calls", kw_only=True):
    """All calls and chats that are known, oldest first; once, at the beginning."""

    calls: list[CallSummary]


class OneCall(Message, tag="call", kw_only=True):
    """A call is new or has changed."""

    call: CallSummary


class Transcript(Message, tag="transcript", kw_only=True):
    """All of a call that the page has asked to follow."""

    call_id: str
    events: list[msgspec.Raw]
    turns: list[TurnRecord]
    shortened: bool
    """It was so long that its beginning is forgotten."""


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
