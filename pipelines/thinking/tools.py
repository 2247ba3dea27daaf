"""Functions the model wants run by the agent's own program: asked for in rounds, answered whenever (protocol §4.9)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from pipelines.thinking.history import History
from providers.base import ToolCall
from wire.commands import LlmToolResult
from wire.config import Tool
from wire.events import CallEvent, LlmToolCall, ToolCallRequest

log = structlog.get_logger(__name__)

TOOL_SECONDS = 30.0
"""How long a round may take; what is missing then is told to the model as timed out."""
TIMED_OUT = '{"error":"tool timeout"}'
UNKNOWN_TOOL = '{"error":"Unknown tool"}'


@dataclass(slots=True)
class _Round:
    """A round that waits for results."""

    requests: list[ToolCallRequest]
    missing: set[str]
    silent: set[str] = field(default_factory=set[str])
    """Calls whose result asked for no further answer."""
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class ToolRounds:
    """The tool calls of one call. Results are kept in the history whatever becomes of the answer they were for."""

    def __init__(self, tools: Sequence[Tool], history: History, publish: Callable[[CallEvent], None]) -> None:
        self.configure(tools)
        self._history = history
        self._publish = publish
        self._rounds: dict[str, _Round] = {}
        """By `msg_id`; a round that was asked for again has several."""
        self.on_result: Callable[[ToolCallRequest, str], None] | None = None
        """Told of each result as the model will read it, timeouts included."""

    def configure(self, tools: Sequence[Tool]) -> None:
        """Offer these from the next answer on; rounds that run keep running."""
        self._tools = {tool.name: tool for tool in tools}

    async def run(self, calls: tuple[ToolCall, ...]) -> bool:
        """Have these run; True when the model should go on with their results. Never raises for a missing result."""
        ephemeral = {call.id for call in calls if call.name in self._tools and self._tools[call.name].ephemeral}
        self._history.tool_calls(calls, ephemeral)
        known = [call for call in calls if call.name in self._tools]
        for call in calls:
            if call.name not in self._tools:
                self._history.tool_result(call.id, UNKNOWN_TOOL)
        if not known:
            return True
        requests = [ToolCallRequest(id=call.id, name=call.name, arguments=call.arguments) for call in known]
        waiting = _Round(requests, {call.id for call in known})
        waiting.silent = {call.id for call in known if self._tools[call.name].no_followup}
        self._ask(waiting)
        try:
            async with asyncio.timeout(TOOL_SECONDS):
                await waiting.complete.wait()
        except TimeoutError:
            log.warning("tool_timeout", missing=len(waiting.missing))
            for call_id in waiting.missing:
                self._settle(waiting, call_id, TIMED_OUT)
        finally:
            self._rounds = {msg_id: other for msg_id, other in self._rounds.items() if other is not waiting}
        return len(waiting.silent) < len(calls)

    def ask_again(self) -> None:
        """Ask an agent that is back for what is still missing, each round under another id; results for the earlier
        id count too. The time a round may take goes on."""
        for waiting in {id(waiting): waiting for waiting in self._rounds.values()}.values():
            if waiting.missing:
                self._ask(waiting)

    def result(self, command: LlmToolResult) -> None:
        """Results from the agent, all or some of them. Those of an unknown round are ignored."""
        waiting = self._rounds.get(command.msg_id)
        if waiting is None:
            log.info("tool_result_unknown", msg_id=command.msg_id)
            return
        for result in command.results:
            if result.tool_call_id in waiting.missing:
                waiting.missing.discard(result.tool_call_id)
                self._settle(waiting, result.tool_call_id, _content(result.result))
                if result.no_followup:
                    waiting.silent.add(result.tool_call_id)
        if not waiting.missing:
            waiting.complete.set()

    def round_of(self, call_id: str) -> str:
        """The `msg_id` under which that call was asked for last; "" when its round is over."""
        asked = [msg_id for msg_id, one in self._rounds.items() if any(call_id == r.id for r in one.requests)]
        return asked[-1] if asked else ""

    def _settle(self, waiting: _Round, call_id: str, content: str) -> None:
        self._history.tool_result(call_id, content)
        if self.on_result is not None:
            self.on_result(next(one for one in waiting.requests if one.id == call_id), content)

    def _ask(self, waiting: _Round) -> None:
        msg_id = f"tr_{secrets.token_hex(8)}"
        self._rounds[msg_id] = waiting
        missing = [request for request in waiting.requests if request.id in waiting.missing]
        self._publish(LlmToolCall(msg_id=msg_id, tool_calls=missing))


def _content(result: msgspec.Raw) -> str:
    """A string goes to the model as it is, everything else as JSON."""
    value: object = msgspec.json.decode(result)
    return value if isinstance(value, str) else bytes(result).decode()
