"""The frames between a chat page and the gateway (docs/browser.md). Pure.

Pages of three dialects are read: `{"event":"message"}` of the published client, `{"type":"user.message"}` of pages
written by hand, and `{"action":…}` as on a data channel. Answers are one dialect that all of them understand.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from wire.events import Maybe, ToolCallRequest

MAX_FRAME_BYTES = 48 * 1024
"""What a page is sent at most in one frame about a tool."""

# --- from the page ---


@dataclass(frozen=True, slots=True)
class Message:
    """The user wrote this."""

    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """The page tells something of itself; None takes it back."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life that wants a `pong`, unless it is a bare word."""

    wants_pong: bool


@dataclass(frozen=True, slots=True)
class Nonsense:
    """Nothing that this gateway knows."""


Incoming = Message | Context | Ping | Nonsense


class _Frame(msgspec.Struct):
    """All that is ever read of a frame."""

    event: object = None
    type: object = None
    action: object = None
    text: object = None
    key: object = None
    value: object = None


_decoder = msgspec.json.Decoder(_Frame)


def read(frame: str) -> Incoming:
    """What a page's frame says. Never raises."""
    if frame.strip() == "ping":
        return Ping(wants_pong=False)
    try:
        fields = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Nonsense()
    name = fields.event or fields.action or fields.type
    if name in ("message", "user.message", "inject_text") and isinstance(fields.text, str):
        return Message(fields.text)
    if name == "set_context" and isinstance(fields.key, str):
        value = fields.value
        return Context(fields.key, value if value is None or isinstance(value, str) else _json(value))
    if name == "ping":
        return Ping(wants_pong=True)
    return Nonsense()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# --- to the page ---


class PageEvent(msgspec.Struct, kw_only=True, tag_field="event"):
    """Anything that a page is sent."""


class ChatConnected(PageEvent, tag="chat.connected", kw_only=True):
    """First frame: the conversation has begun."""

    session_id: str
    agent_id: str


class HistoryEntry(msgspec.Struct):
    """Something that was said in the thread before; `role` is user or assistant."""

    role: str
    text: str


class ChatHistory(PageEvent, tag="chat.history", kw_only=True):
    """What was said in the thread before, oldest first."""

    messages: list[HistoryEntry]
    thread_id: str


class ChatToken(PageEvent, tag="chat.token", kw_only=True):
    """More of an answer. Pages show `text` instead of what they had; others append `token`."""

    message_id: str
    token: str
    text: str


class ChatToolCall(PageEvent, tag="chat.tool_call", kw_only=True):
    """The agent uses tools."""

    message_id: str
    tool_calls: list[ToolCallRequest]


class ChatToolResult(PageEvent, tag="chat.tool_result", kw_only=True):
    """What a tool came to: any JSON, or a text."""

    message_id: str
    tool_call_id: str
    name: str
    result: msgspec.Raw


class ChatDone(PageEvent, tag="chat.done", kw_only=True):
    """The whole answer. `type` is for pages written by hand."""

    message_id: str
    text: str
    type: str = "bot.message"


class ChatError(PageEvent, tag="chat.error", kw_only=True):
    """A message that will not be answered; the conversation goes on."""

    error: str


class FatalError(PageEvent, tag="error", kw_only=True):
    """There is no conversation, or no longer; the socket closes."""

    error: str
    code: str


class Pong(PageEvent, tag="pong", kw_only=True):
    """Answers a ping."""

    session_id: str | Maybe = UNSET


def tool_result(message_id: str, call: ToolCallRequest, result: str) -> ChatToolResult:
    """A tool's result for a page. What would make a frame too large is replaced by its size."""
    try:
        raw = msgspec.Raw(result.encode()) if isinstance(msgspec.json.decode(result), dict | list) else None
    except (msgspec.DecodeError, RecursionError):
        raw = None
    raw = raw or msgspec.Raw(msgspec.json.encode(result))
    size = len(bytes(raw))
    if size > MAX_FRAME_BYTES:
        raw = msgspec.Raw(msgspec.json.encode({"truncated": True, "bytes": size}))
    return ChatToolResult(message_id=message_id, tool_call_id=call.id, name=call.name, result=raw)
