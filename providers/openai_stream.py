"""The streamed answer of chat completions, put together from its bytes.

Pure: no sockets, no time. `EventLines` cuts bytes into events, `Answer` turns events into text, tool calls and usage.
Servers differ in small ways that are all met here: tool calls whole or in pieces, with or without index, arguments as
text or as an object, thoughts beside or inside the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from providers.base import LlmEvent, TextDelta, ToolCall, ToolCalls, Usage

DONE = b"[DONE]"
MAX_EVENT = 1024 * 1024
"""Bytes of one event; a server that sends more without a line end is not speaking this protocol."""


class EventLines:
    """Cuts the bytes of a server-sent event stream into the data of its events.

    Bytes, not text: the pieces may end inside a character, and JSON may hold line separators that only look like ends
    of lines to a text splitter. Every event of this protocol is one `data:` line.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of all events that are complete now. Raises ValueError when a line never ends."""
        self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise ValueError("event too long")
        return [bytes(line[5:].strip()) for line in lines if line.startswith(b"data:")]


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, object] | None = None


class _ToolFragment(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolFragment] | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _TokenCounts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _TokenCounts | None = None
    error: dict[str, object] | str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class StreamFailed(Exception):
    """The server reported an error inside the stream."""


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""


class Answer:
    """One streamed answer, put together.

    Whether tools were called is told by the calls that came, not by `finish_reason`: several servers say `stop`.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._usage: _TokenCounts | None = None
        self._speech = ThoughtFilter()
        self.done = False
        """The stream's end mark has come: nothing follows."""
        self.complete = False
        """The server said that the answer is whole; a stream that stops before that was cut."""

    def feed(self, data: bytes) -> str:
        """Take one event's data and give the text to speak, often none.

        Raises StreamFailed when the server reports an error, msgspec.DecodeError when the event cannot be read.
        """
        if data == DONE:
            self.done = self.complete = True
            return ""
        chunk = _decode_chunk(data)
        if chunk.error:
            raise StreamFailed
        self._usage = chunk.usage or self._usage
        return "".join([self._choice(choice) for choice in chunk.choices or () if not choice.index])

    def end(self) -> Iterator[LlmEvent]:
        """What is left once the stream has ended: held-back text, the tool calls, the usage."""
        if text := self._speech.end():
            yield TextDelta(text)
        calls = tuple(
            ToolCall(call.id or f"call_{number}", call.name, call.arguments.strip() or "{}")
            for number, call in enumerate(self._calls)
            if call.name
        )
        if calls:
            yield ToolCalls(calls)
        if self._usage is not None:
            yield Usage(self._usage.prompt_tokens or 0, self._usage.completion_tokens or 0)

    def _choice(self, choice: _Choice) -> str:
        if choice.finish_reason == "error":
            raise StreamFailed
        self.complete = self.complete or bool(choice.finish_reason)
        if choice.delta is None:
            return ""
        for fragment in choice.delta.tool_calls or ():
            self._add(fragment)
        return self._speech.feed(_spoken(choice.delta.content))

    def _add(self, fragment: _ToolFragment) -> None:
        call = self._call_of(fragment)
        call.id = call.id or fragment.id or ""
        function = fragment.function
        if function is None:
            return
        call.name = call.name or function.name or ""
        if isinstance(function.arguments, dict):
            call.arguments = msgspec.json.encode(function.arguments).decode()
        else:
            call.arguments += function.arguments or ""

    def _call_of(self, fragment: _ToolFragment) -> _Call:
        """The call a fragment belongs to. A new id begins a new call, whatever its index says (Ollama, Mistral)."""
        if fragment.id:
            known = [call for call in self._calls if call.id == fragment.id]
        elif fragment.index is not None:
            known = [call for call in self._calls if call.index == fragment.index]
        elif fragment.function and fragment.function.name:
            known = []
        else:
            known = self._calls
        if known:
            return known[-1]
        begun = _Call(index=fragment.index)
        self._calls.append(begun)
        return begun


def _spoken(content: str | list[_Part] | None) -> str:
    """Text of a delta; of parts only those that are text (Mistral sends thoughts as parts of another type)."""
    if isinstance(content, list):
        return "".join([part.text or "" for part in content if part.type == "text"])
    return content or ""


class ThoughtFilter:
    """Takes `<think>…</think>` spans out of streamed text, and the blank space that follows them."""

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._trim = False

    def feed(self, text: str) -> str:
        """The part of the text so far that may be spoken; what may be the beginning of a tag waits."""
        self._held += text
        spoken = ""
        while True:
            tag = self._CLOSE if self._thinking else self._OPEN
            before, found, after = self._held.partition(tag)
            if not found:
                break
            if not self._thinking:
                spoken += self._release(before)
            self._trim = self._thinking
            self._thinking = not self._thinking
            self._held = after
        ready = len(self._held) - _tag_start(self._held, tag)
        text, self._held = self._held[:ready], self._held[ready:]
        return spoken if self._thinking else spoken + self._release(text)

    def end(self) -> str:
        """What was held back and turned out not to be a tag."""
        held, self._held = self._held, ""
        return "" if self._thinking else self._release(held)

    def _release(self, text: str) -> str:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return text


def _tag_start(text: str, tag: str) -> int:
    """How many characters at the end of `text` may begin `tag`."""
    return next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)
