"""One message of the user and its answer: who waits for it, how it is written, how the server's model makes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.ids import new_id
from pipelines.thinking.history import History
from pipelines.thinking.mind import MAX_ROUNDS, Mind
from providers.base import LanguageModel, TextDelta, ToolCall, ToolCalls
from wire.config import CallConfig
from wire.events import ToolCallRequest


class Requester(Protocol):
    """Whoever writes to the agent and reads its answers. None of these blocks or raises.

    Each message it wrote ends in exactly one `done` or `failed`; `message_id` names the answer.
    """

    def token(self, message_id: str, token: str, text: str) -> None:
        """More of an answer: `token` is new, `text` all of it so far."""
        ...

    def tool_call(self, message_id: str, calls: list[ToolCallRequest]) -> None:
        """The agent's program is running these."""
        ...

    def tool_result(self, message_id: str, call: ToolCallRequest, result: str) -> None:
        """What one of them came to, as the model reads it."""
        ...

    def done(self, message_id: str, text: str) -> None:
        """The whole answer, or something the agent says by itself."""
        ...

    def failed(self, error: str) -> None:
        """A message that will not be answered."""
        ...

    def ended(self, reason: str) -> None:
        """The conversation is over."""
        ...


class Reply:
    """An answer on its way to its reader. Between rounds of tools it goes on after a blank line."""

    def __init__(self, requester: Requester, history: History, message_id: str) -> None:
        self.requester = requester
        self.message_id = message_id
        self.text = ""
        self._history = history
        self._segment = ""
        self._segments = 0

    def write(self, token: str) -> None:
        """More text. Blank text at the beginning of a segment is left out."""
        if not self._segment:
            token = token.lstrip()
            if not token:
                return
            shown = f"\n\n{token}" if self.text else token
        else:
            shown = token
        self._segment += token
        self.text += shown
        self.requester.token(self.message_id, shown, self.text)

    def close_segment(self) -> None:
        """What was written so far is one entry of the record: all of it was read."""
        if self._segment:
            self._segments += 1
            self._history.assistant_heard(f"{self.message_id}.{self._segments}", self._segment)
            self._segment = ""


@dataclass(slots=True, eq=False)
class Turn:
    """A message and the answer to it. `told`: the agent's program has been told of the message."""

    text: str
    requester: Requester
    message_id: str = field(default_factory=lambda: new_id("u"))
    reply: Reply | None = None
    by_model: bool = False
    told: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """The agent's program, or its order to stop, has completed the answer."""


async def think(mind: Mind, model: LanguageModel, config: CallConfig, reply: Reply) -> None:
    """Let the model answer, with as many rounds of tools as it wants. Raises ProviderError."""
    try:
        for number in range(MAX_ROUNDS + 1):
            calls = await _generate(mind, model, config, reply, number)
            reply.close_segment()
            if not calls or not await mind.tools.run(calls):
                break
    finally:
        reply.close_segment()
        mind.history.forget_ephemeral()


async def _generate(
    mind: Mind, model: LanguageModel, config: CallConfig, reply: Reply, number: int
) -> tuple[ToolCall, ...]:
    calls: tuple[ToolCall, ...] = ()
    async for event in model.generate(mind.request(config, last=number == MAX_ROUNDS)):
        if isinstance(event, TextDelta):
            reply.write(event.text)
        elif isinstance(event, ToolCalls):
            calls = event.calls
    return calls
