"""What OpenAI refuses in a request for chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]

_PARAMETERS = {
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens",
    "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "seed", "stop", "user", "n",
}  # fmt: skip


class ApiError(Exception):
    """A refusal, in the vendor's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def check_request(body: JSON, models: Sequence[str] | None, refused_options: dict[str, str]) -> None:
    """Refuse what the vendor refuses."""
    for name in body:
        if name not in _PARAMETERS:
            raise ApiError(400, f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
        if name in refused_options:
            raise ApiError(400, f"Unsupported parameter: '{name}'.", name, refused_options[name])
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise ApiError(400, "you must provide a model parameter")
    if models is not None and body["model"] not in models:
        raise ApiError(404, f"The model `{body['model']}` does not exist", None, "model_not_found")
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise ApiError(400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if not 0 <= body.get("temperature", 1) <= 2:
        raise ApiError(400, "Invalid 'temperature'", "temperature", "decimal_above_max_value")
    limit = body.get("max_tokens", body.get("max_completion_tokens", 1))
    if not isinstance(limit, int) or limit < 1:
        raise ApiError(400, "Invalid token limit", "max_tokens", "integer_below_min_value")
    if body.get("stream_options") and not body.get("stream"):
        raise ApiError(400, "stream_options without stream", "stream_options")
    if body.get("tool_choice") is not None and not body.get("tools"):
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    for tool in body.get("tools", ()):
        if tool.get("type") != "function" or not isinstance(tool["function"].get("parameters", {}), dict):
            raise ApiError(400, "Invalid tool", "tools")
    _check_messages(body.get("messages"))


def _check_messages(messages: list[JSON] | None) -> None:
    if not messages:
        raise ApiError(400, "Invalid 'messages': empty array.", "messages")
    owed: set[str] = set()
    for position, entry in enumerate(messages):
        where = f"messages.[{position}]"
        role = entry.get("role")
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise ApiError(400, f"Invalid value: '{role}'.", f"{where}.role")
        if role == "tool":
            if entry.get("tool_call_id") not in owed:
                raise ApiError(400, "'tool' must be a response to a preceding message with 'tool_calls'.", where)
            owed.discard(entry["tool_call_id"])
            continue
        if owed:
            raise ApiError(400, "'tool_calls' must be followed by tool messages responding to each.", where)
        if not isinstance(entry.get("content"), str) and not (role == "assistant" and entry.get("tool_calls")):
            raise ApiError(400, "Invalid type for content", f"{where}.content")
        owed = {call["id"] for call in entry.get("tool_calls", ())}
    if owed:
        raise ApiError(400, "'tool_calls' must be followed by tool messages responding to each.", "messages")
