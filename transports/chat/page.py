"""One chat page without its socket: what it may send, what waits to be sent to it, how it ends.

Text frames and the time go in; events wait in `next` and an ending in `closure` for the shell to carry out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from transports.chat.frames import (
    ChatConnected,
    ChatDone,
    ChatError,
    ChatHistory,
    ChatToken,
    ChatToolCall,
    Context,
    FatalError,
    HistoryEntry,
    Message,
    PageEvent,
    Ping,
    Pong,
    read,
    tool_result,
)
from transports.flood import MAX_FRAME, FloodGate, Verdict
from wire.events import CallMessage, ToolCallRequest

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 256
"""Events that may wait for a page that does not read."""
MERGED_FROM: Final = 32
"""When so many events wait for a page that reads slowly, further pieces of an answer become one."""
MAX_HISTORY: Final = 50
"""Entries of `chat.history`."""
OFFLINE: Final = frozenset({"agent_disconnected", "agent_removed"})

_encoder = msgspec.json.Encoder()


class Conversation(Protocol):
    """What a page speaks into."""

    @property
    def call_id(self) -> str:
        """Its id on the wire."""
        ...

    def write(self, text: str) -> None:
        """The user writes."""
        ...

    def set_page_context(self, key: str, value: str | None) -> bool:
        """The page tells something of itself; False when it was too much."""
        ...

    def end(self, reason: str) -> None:
        """It is over. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Closure:
    """How the socket is to be closed."""

    code: int
    reason: str


class ChatPage:
    """The user's side of a conversation: a `Requester` that writes frames. `agent_id` as its owner calls it."""

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._gate = FloodGate()
        self._conversation: Conversation | None = None
        self._events: deque[PageEvent] = deque()
        self._ready = asyncio.Event()
        self.closure: Closure | None = None
        """Set when we close."""
        self.closing = asyncio.Event()
        """Set once the socket is to be closed, or is."""

    def open(self, conversation: Conversation, thread_id: str = "", restored: list[CallMessage] | None = None) -> None:
        """The conversation is there; `restored` is what was said in its thread before."""
        self._conversation = conversation
        self._put(ChatConnected(session_id=conversation.call_id, agent_id=self._agent_id))
        entries = [HistoryEntry(one.role, one.content or "") for one in restored or [] if one.content]
        if entries:
            self._put(ChatHistory(messages=entries[-MAX_HISTORY:], thread_id=thread_id))

    # --- in ---

    def receive(self, frame: str, now: float) -> None:
        """Take one frame of the page; `now` is monotonic seconds."""
        if self._conversation is None or self.closing.is_set():
            return
        incoming = None if len(frame) > MAX_FRAME else read(frame)
        verdict = self._gate.judge(len(frame), now, ping=isinstance(incoming, Ping))
        if verdict is Verdict.TAKE:
            self._obey(incoming, self._conversation)
        elif verdict is Verdict.STRIKE:
            self._put(ChatError(error="Too many or too large messages"))
        elif verdict is Verdict.END:
            log.warning("chat_flooded", call_id=self._conversation.call_id)
            self._conversation.end("flood")

    def gone(self, code: int) -> None:
        """The page's side is closed, with that code (1005, 1006: without a word)."""
        self.closing.set()
        self._ready.set()
        if self._conversation is not None:
            self._conversation.end("connection_lost" if code == 1006 else "client_hangup")

    # --- out: what a Requester is told ---

    def token(self, message_id: str, token: str, text: str) -> None:
        """More of an answer."""
        last = self._events[-1] if len(self._events) >= MERGED_FROM else None
        if isinstance(last, ChatToken) and last.message_id == message_id:
            last.token += token
            last.text = text
        else:
            self._put(ChatToken(message_id=message_id, token=token, text=text))

    def tool_call(self, message_id: str, calls: list[ToolCallRequest]) -> None:
        """The agent uses tools."""
        self._put(ChatToolCall(message_id=message_id, tool_calls=calls))

    def tool_result(self, message_id: str, call: ToolCallRequest, result: str) -> None:
        """What one of them came to."""
        self._put(tool_result(message_id, call, result))

    def done(self, message_id: str, text: str) -> None:
        """The whole answer."""
        self._put(ChatDone(message_id=message_id, text=text))

    def failed(self, error: str) -> None:
        """A message that will not be answered."""
        self._put(ChatError(error=error))

    def ended(self, reason: str) -> None:
        """The conversation is over."""
        if reason in OFFLINE:
            self.refuse("AGENT_OFFLINE", f"Agent '{self._agent_id}' is not online", 1013)
        elif reason == "error":
            self.refuse("INTERNAL", "The gateway failed", 1011)
        elif reason == "flood":
            self.refuse("RATE_LIMITED", "Too many or too large messages", 1008)
        elif reason == "disconnected":
            self.close(1012, "service_restart")
        else:
            # An agent may end it for reasons of its own, which are nobody else's business.
            self.close(1000, reason if reason == "idle_timeout" else "ended")

    def refuse(self, code: str, error: str, closing: int) -> None:
        """Say why, then close with that code. Ignored when already closing."""
        if not self.closing.is_set():
            self._put(FatalError(error=error, code=code))
            self.close(closing, code)

    def close(self, code: int, reason: str) -> None:
        """Close once what waits is sent. Idempotent."""
        if not self.closing.is_set():
            self.closure = Closure(code, reason[:120].encode()[:120].decode(errors="ignore"))
            self.closing.set()
            self._ready.set()

    async def next(self) -> bytes | None:
        """The next frame for the page; None when closing and nothing waits."""
        while not self._events:
            if self.closing.is_set():
                return None
            self._ready.clear()
            await self._ready.wait()
        return _encoder.encode(self._events.popleft())

    # --- inside ---

    def _obey(self, incoming: object, conversation: Conversation) -> None:
        match incoming:
            case Message(text=text):
                conversation.write(text)
            case Context(key=key, value=value):
                if not conversation.set_page_context(key, value):
                    log.info("page_context_refused", call_id=conversation.call_id)
            case Ping(wants_pong=True):
                self._put(Pong())
            case _:
                pass

    def _put(self, event: PageEvent) -> None:
        if self.closing.is_set():
            return
        if len(self._events) < MAX_WAITING:
            self._events.append(event)
            self._ready.set()
            return
        log.warning("chat_page_too_slow")
        self._events.clear()
        self.close(1013, "slow_consumer")
        if self._conversation is not None:
            self._conversation.end("connection_lost")
