"""The request of chat completions, as OpenAI and everything shaped like it takes it, and what a refusal names.

Pure: no sockets, no time. The answer is read in `providers.openai_stream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from providers.base import Generation, Message
from wire.config import Tool

TokenLimit = Literal["max_completion_tokens", "max_tokens"]
JsonObject = dict[str, object]
"""A JSON object on its way to the vendor."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """How one family of servers differs. `vendor` is the name in errors and logs."""

    vendor: str = "openai"
    token_limit: TokenLimit = "max_completion_tokens"
    stream_usage: bool = True


OPENAI = Quirks()
COMPATIBLE = Quirks(token_limit="max_tokens")
"""Ollama, vLLM, llama.cpp and the like: most know only the older name of the token limit."""


def quirks_of(base_url: str) -> Quirks:
    """Quirks of whatever answers at that base URL: OpenAI itself, or something shaped like it."""
    host = urlsplit(base_url).hostname or ""
    return OPENAI if host == "openai.com" or host.endswith(".openai.com") else COMPATIBLE


# --- request ---


def request_body(generation: Generation, quirks: Quirks) -> JsonObject:
    """The body of `POST /chat/completions`. The model's name goes out verbatim."""
    config = generation.config
    body: JsonObject = {
        "model": config.model,
        "messages": [_message(message) for message in generation.messages],
        "stream": True,
    }
    if config.temperature is not None:
        body["temperature"] = min(max(config.temperature, 0.0), 2.0)
    if config.max_tokens is not None:
        body[quirks.token_limit] = max(config.max_tokens, 1)
    if quirks.stream_usage:
        body["stream_options"] = {"include_usage": True}
    if generation.tools:
        body["tools"] = [_tool(tool) for tool in generation.tools]
        # `none` rather than no tools at all: a history with tool calls is refused by some servers without them.
        body["tool_choice"] = "none" if generation.force_text else "auto"
    return body


def _message(message: Message) -> JsonObject:
    entry: JsonObject = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        entry["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        entry["content"] = message.content or None
        entry["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return entry


def _tool(tool: Tool) -> JsonObject:
    parameters: object = msgspec.json.decode(tool.parameters)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


# --- refused options ---

_OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_OPTIONAL = ("temperature", "max_completion_tokens", "max_tokens", "stream_options", "tool_choice")


class _ErrorBody(msgspec.Struct):
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _ErrorEnvelope(msgspec.Struct):
    error: _ErrorBody | None = None


def error_facts(body: bytes) -> tuple[str, ...]:
    """`type`, `code` and `param` of an error body: short words of the vendor. Its message may quote the caller."""
    try:
        error = msgspec.json.decode(body, type=_ErrorEnvelope).error
    except msgspec.DecodeError:
        return ()
    if error is None:
        return ()
    return tuple(str(fact)[:60] for fact in (error.type, error.code, error.param) if fact)


def refused_option(error_body: bytes, sent: JsonObject) -> str | None:
    """Which option of `sent` that we can do without made the server refuse it, if the refusal names one."""
    candidates = [option for option in _OPTIONAL if option in sent]
    named = error_facts(error_body)[-1:]
    if named and named[0] in candidates:
        return named[0]
    text = error_body.decode(errors="replace")
    return next((option for option in candidates if option in text), None)


def amend(body: JsonObject, refused: tuple[str, ...]) -> JsonObject:
    """`body` for a server that refused these options, in that order: renamed once where there is another name, else
    dropped."""
    amended = dict(body)
    for number, option in enumerate(refused):
        value = amended.pop(option, None)
        other = _OTHER_NAME.get(option)
        if value is not None and other is not None and other not in refused[:number]:
            amended[other] = value
    return amended
