"""Events about a connection and its agents: what the gateway sends besides the events of calls (protocol §1, §3.3)."""

from __future__ import annotations

from msgspec import UNSET

from wire.events import Event, Maybe


class Connected(Event, tag="connected", kw_only=True):
    """The key was accepted."""

    connection_id: str
    org_id: str
    protocol_version: str = "2"


class Ping(Event, tag="ping", kw_only=True):
    """Are you there?"""


class Pong(Event, tag="pong", kw_only=True):
    """Answer to the client's ping."""

    timestamp: float


class ErrorEvent(Event, tag="error", kw_only=True):
    """A command was refused, or something went wrong. Never names another code in its text (protocol §1.8)."""

    code: str
    error: str
    agent_id: str | Maybe = UNSET
    call_id: str | Maybe = UNSET
    command: str | Maybe = UNSET
    phone: str | Maybe = UNSET
    ref: str | Maybe = UNSET
    owner: str | Maybe = UNSET
    holder_alive: bool | Maybe = UNSET
    retry_after_s: float | Maybe = UNSET
    used: int | Maybe = UNSET
    limit: int | Maybe = UNSET


class AgentEvent(Event, kw_only=True):
    """Something about one agent; `agent_id` is exactly what that connection called it."""

    agent_id: str


class AgentCreated(AgentEvent, tag="agent.created", kw_only=True):
    """The agent may be used now."""


class AgentResumed(AgentEvent, tag="agent.resumed", kw_only=True):
    """A known agent was bound again."""


class AgentConfigured(AgentEvent, tag="agent.configured", kw_only=True):
    """New defaults for future calls."""


class AgentRemoved(AgentEvent, tag="agent.removed", kw_only=True):
    """The agent is gone, its calls ended."""


class AgentDisplaced(AgentEvent, tag="agent.displaced", kw_only=True):
    """An operator took the agent away from this connection."""

    reason: str


class ChannelAdded(AgentEvent, tag="channel.added", kw_only=True):
    """`ref` is what the client sent, or the type where there is none."""

    type: str
    ref: str


class ChannelConfigured(AgentEvent, tag="channel.configured", kw_only=True):
    """New defaults for future calls of that channel."""

    ref: str


class ChannelRemoved(AgentEvent, tag="channel.removed", kw_only=True):
    """No more calls from there."""

    ref: str


class DevConfigured(AgentEvent, tag="dev.configured", kw_only=True):
    """The callers that reach this development agent."""

    callers: list[str]
