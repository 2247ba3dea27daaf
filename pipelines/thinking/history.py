"""The record of one call: what the model is told was said, and what the agent gets at the end. Pure.

The user's entries are what was understood, the assistant's what was heard. A round of tool calls is one entry with its
results inside, so that a call without a result, or a result without its call, cannot reach a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import UNSET

from providers.base import Message, ToolCall
from wire.events import CallMessage, ToolCallFunction, ToolCallRecord

NO_RESULT = '{"error":"no result"}'
"""What a model reads for a tool call that was never answered."""


@dataclass(slots=True)
class _Said:
    """Something one side said. `pending`: it was generated, and how much of it will be heard is not known yet."""

    role: Literal["system", "user", "assistant"]
    text: str
    id: str | None = None
    turn_id: int | None = None
    in_llm_context: bool = True
    pending: bool = False


@dataclass(slots=True)
class _Round:
    """Tool calls of one answer and the results so far."""

    calls: tuple[ToolCall, ...]
    ephemeral: frozenset[str] = frozenset()
    results: dict[str, str] = field(default_factory=dict[str, str])

    def lasting(self) -> _Round | None:
        """The round without what is to be forgotten; None when nothing is left."""
        calls = tuple(call for call in self.calls if call.id not in self.ephemeral)
        return _Round(calls, results=self.results) if calls else None


_Entry = _Said | _Round


class History:
    """Everything that was said in one call, in order."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    @property
    def count(self) -> int:
        """Messages of the model's context, without the system prompt."""
        return len(self.messages_for_llm(""))

    def user(self, message_id: str, text: str, turn_id: int | None = None) -> None:
        """The user said `text`, cumulative for the turn: it replaces what the same turn said so far. Words added
        after tools were asked for come after these. Silence is not an entry."""
        if not text.strip():
            return
        asked_tools = False
        for entry in reversed(self._entries):
            if isinstance(entry, _Round):
                asked_tools = True
            elif entry.role == "user" and turn_id is not None and entry.turn_id == turn_id:
                if asked_tools and entry.text != text:
                    self._entries.remove(entry)
                    break
                entry.id, entry.text = message_id, text
                return
        self._entries.append(_Said("user", text, message_id, turn_id))

    def assistant_says(self, message_id: str, text: str, *, in_llm_context: bool = True) -> None:
        """The assistant is about to say `text` (all of the message so far). It takes its place now; models see it at
        once, the record only what `assistant_heard` will tell."""
        entry = self._assistant(message_id)
        if entry is None:
            said = _Said("assistant", text, message_id, in_llm_context=in_llm_context, pending=True)
            self._entries.append(said)
        elif entry.pending:
            entry.text = text

    def assistant_heard(self, message_id: str, text: str, *, in_llm_context: bool = True) -> None:
        """The caller heard `text` of that message and will hear no more. Nothing heard: the message never was."""
        entry = self._assistant(message_id)
        if entry is None:
            entry = _Said("assistant", text, message_id, in_llm_context=in_llm_context)
            self._entries.append(entry)
        entry.text, entry.pending = text, False
        if not text.strip():
            self._entries.remove(entry)

    def tool_calls(self, calls: Iterable[ToolCall], ephemeral: Iterable[str] = ()) -> None:
        """The model asked for these; `ephemeral` are the ids of those to be forgotten after the reply."""
        self._entries.append(_Round(tuple(calls), frozenset(ephemeral)))

    def tool_result(self, call_id: str, content: str) -> bool:
        """A tool answered; kept whatever becomes of the reply. False: no such call, or answered before."""
        for entry in reversed(self._entries):
            if isinstance(entry, _Round) and any(call.id == call_id for call in entry.calls):
                if call_id in entry.results:
                    return False
                entry.results[call_id] = content
                return True
        return False

    def forget_ephemeral(self) -> None:
        """The reply is out: drop the ephemeral calls and their results."""
        self._entries = list(_lasting(self._entries))

    def add(self, messages: Iterable[CallMessage], prompts: Sequence[str] = ()) -> int:
        """Append what the agent gives; returns the new count. System entries stay where they are and never replace the
        instructions, but one equal to one of `prompts` (the instructions as written, and rendered) is left out, because
        agents feed back the messages of an earlier call. Results without their call are left out too."""
        for message in messages:
            self._add(message, prompts)
        return self.count

    def set(self, messages: Iterable[CallMessage], prompts: Sequence[str] = ()) -> int:
        """Replace the model's context; as `add` otherwise. What was said only for the record stays in the record."""
        self.clear()
        return self.add(messages, prompts)

    def clear(self) -> int:
        """Empty the model's context; returns the count, 0. Speech that is still playing will come back as heard."""
        self._entries = [entry for entry in self._entries if isinstance(entry, _Said) and not entry.in_llm_context]
        return self.count

    def messages_for_llm(self, system: str) -> tuple[Message, ...]:
        """The conversation as a model is to see it, `system` first unless it is empty."""
        head = (Message("system", system),) if system else ()
        shown = (entry for entry in self._entries if isinstance(entry, _Round) or entry.in_llm_context)
        return (*head, *_messages(shown))

    def data(self, system: str) -> list[CallMessage]:
        """The same as `history.data` carries it."""
        return [_record(message) for message in self.messages_for_llm(system)]

    def record(self, system: str) -> list[CallMessage]:
        """Everything that was said and heard, as `call.ended` carries it; `system` first unless it is empty."""
        head = (Message("system", system),) if system else ()
        said = (entry for entry in _lasting(self._entries) if isinstance(entry, _Round) or not entry.pending)
        return [_record(message) for message in (*head, *_messages(said))]

    def _assistant(self, message_id: str) -> _Said | None:
        for entry in reversed(self._entries):
            if isinstance(entry, _Said) and entry.role == "assistant" and entry.id == message_id:
                return entry
        return None

    def _add(self, message: CallMessage, prompts: Sequence[str]) -> None:
        text = message.content or ""
        match message.role:
            case "tool":
                if isinstance(message.tool_call_id, str):
                    self.tool_result(message.tool_call_id, text)
            case "system" | "developer":
                if text not in prompts:
                    self._entries.append(_Said("system", text))
            case "assistant":
                if text:
                    self._entries.append(_Said("assistant", text))
                if message.tool_calls is not UNSET and message.tool_calls:
                    self.tool_calls(_tool_call(call) for call in message.tool_calls)
            case _:
                self._entries.append(_Said("user", text))


def _lasting(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    for entry in entries:
        kept = entry if isinstance(entry, _Said) else entry.lasting()
        if kept is not None:
            yield kept


def _messages(entries: Iterable[_Entry]) -> Iterator[Message]:
    """Entries as messages; what the assistant said right before it called tools is one message with the calls."""
    spoken: _Said | None = None
    for entry in entries:
        if isinstance(entry, _Round):
            yield Message("assistant", spoken.text if spoken else "", entry.calls)
            spoken = None
            for call in entry.calls:
                yield Message("tool", entry.results.get(call.id, NO_RESULT), tool_call_id=call.id)
            continue
        if not entry.text:
            continue
        if spoken:
            yield Message("assistant", spoken.text)
        spoken = entry if entry.role == "assistant" else None
        if spoken is None:
            yield Message(entry.role, entry.text)
    if spoken:
        yield Message("assistant", spoken.text)


def _record(message: Message) -> CallMessage:
    calls = [ToolCallRecord(id=c.id, function=ToolCallFunction(c.name, c.arguments)) for c in message.tool_calls]
    return CallMessage(
        role=message.role,
        content=None if calls and not message.content else message.content,
        tool_calls=calls or UNSET,
        tool_call_id=message.tool_call_id or UNSET,
    )


def _tool_call(call: ToolCallRecord) -> ToolCall:
    return ToolCall(call.id, call.function.name, call.function.arguments)
