"""Events of text conversations on the SDK socket (protocol §3.11).

Two audiences. The *owner* is the connection of the agent: it gets events of a call, with `call_id`. The *requester* is
a connection that writes to the agent by `llm.chat`: what it gets names the conversation by `session_id` alone. One
connection may be both. A page in a browser has a vocabulary of its own: `transports.chat.frames`.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from wire.events import CallEvent, CallMessage, Event, Maybe, ToolCallRequest

# --- to the owner ---


class LlmChatStarted(CallEvent, tag="llm.chat.started", kw_only=True):
    """A conversation in text begins. First frame of a chat; there is no `call.started`."""

    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    transport: str
    metadata: dict[str, msgspec.Raw]
    language: str
    model: str
    resumed: bool | Maybe = UNSET


class ChatMessage(CallEvent, tag="chat.message", kw_only=True):
    """The user wrote this."""

    message_id: str
    text: str


class ChatResponse(CallEvent, tag="chat.response", kw_only=True):
    """The user was answered this: the whole text, once an answer."""

    message_id: str
    text: str


class ChatOver(CallEvent, kw_only=True):
    """What the last frame of a chat says, however it ended."""

    metadata: dict[str, msgspec.Raw]
    messages: list[CallMessage]
    duration_seconds: float
    started_at: float
    ended_at: float


class LlmChatEnded(ChatOver, tag="llm.chat.ended", kw_only=True):
    """Last frame of a chat; there is no `call.ended`."""

    reason: str

    def failed(self, error: str) -> LlmChatError:
        """The same end, by a fault."""
        return LlmChatError(
            error=error,
            metadata=self.metadata,
            messages=self.messages,
            duration_seconds=self.duration_seconds,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )


class LlmChatError(ChatOver, tag="llm.chat.error", kw_only=True):
    """Last frame of a chat that a fault of the gateway ended."""

    error: str


# --- to the requester ---


class RequesterEvent(Event, kw_only=True):
    """Something about the conversation that the requester calls `session_id`."""

    session_id: str


class ChatBegun(RequesterEvent, tag="llm.chat.started", kw_only=True):
    """The first message was taken."""

    model: str


class LlmChatToken(RequesterEvent, tag="llm.chat.token", kw_only=True):
    """More of the answer: `token` is new, `text` all of it so far."""

    message_id: str
    token: str
    text: str


class LlmChatToolCall(RequesterEvent, tag="llm.chat.tool_call", kw_only=True):
    """The model asked the agent's program to run these."""

    message_id: str
    tool_calls: list[ToolCallRequest]


class LlmChatToolResult(RequesterEvent, tag="llm.chat.tool_result", kw_only=True):
    """What one of them came to: a text, mostly JSON."""

    message_id: str
    tool_call_id: str
    name: str
    result: str


class LlmChatDone(RequesterEvent, tag="llm.chat.done", kw_only=True):
    """The whole answer."""

    message_id: str
    text: str
    model: str


class ChatFailed(RequesterEvent, tag="llm.chat.error", kw_only=True):
    """No answer to this message."""

    error: str
