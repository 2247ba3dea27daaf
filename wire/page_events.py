"""What the gateway tells a page of its own call, beside the call's events (docs/browser.md)."""

from __future__ import annotations

import msgspec

from wire.events import CallEvent


class AudienceEvent(CallEvent, kw_only=True):
    """A fact that the agent knows first: only those who watch its call are told."""


class ToolOutcome(msgspec.Struct):
    """What one function came to: its text, or JSON."""

    tool_call_id: str
    result: str


class LlmToolOutcome(AudienceEvent, tag="llm.tool_result", kw_only=True):
    """A function has run; `results` says it again for readers of lists."""

    msg_id: str
    tool_call_id: str
    name: str
    result: str
    results: list[ToolOutcome]


class SessionFrame(msgspec.Struct, kw_only=True, tag_field="event"):
    """A frame that only pages get."""

    call_id: str


class SessionStarted(SessionFrame, tag="session.started", kw_only=True):
    """The first frame of all."""

    session_id: str


class SessionEnded(SessionFrame, tag="session.ended", kw_only=True):
    """The session is over; the connection closes."""

    session_id: str
    reason: str


class SessionOver(SessionFrame, tag="session.timeout", kw_only=True):
    """What makes published clients let go at once, whatever the reason: they do not look at `session.ended`."""

    session_id: str
    reason: str


class ConfigUpdated(SessionFrame, tag="config.updated", kw_only=True):
    """These settings of the page were taken."""

    config: dict[str, msgspec.Raw]


class Pong(SessionFrame, tag="pong", kw_only=True):
    """We are here too."""
