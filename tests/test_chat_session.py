"""A conversation in text by itself: a model that is slow to let go, and whatever else no vendor's simulator does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pipelines.chatting.session import ChatParts, ChatSession, ChatState
from pipelines.clock import LoopClock
from pipelines.parts import CallFacts
from providers.base import Generation, LlmEvent, TextDelta
from tests.test_resolve import call as resolved
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.chat_events import ChatResponse
from wire.commands import BotCancel, BotReply, CallHangup
from wire.events import CallEvent, ToolCallRequest

FACTS = CallFacts("chat-1", "org_main", "mara", "chat", "mara", "inbound", "chat", {})


class ClingingModel:
    """Writes one word, then nothing; whoever does not want more waits a second until it has let go."""

    async def generate(self, generation: Generation) -> AsyncIterator[LlmEvent]:
        try:
            yield TextDelta(f"{len(generation.messages)} so far.")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise

    async def warm(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass
class Reader:
    """Reads the answers, and what the agent is told."""

    done_with: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    over: list[str] = field(default_factory=list[str])
    told: list[CallEvent] = field(default_factory=list[CallEvent])

    def deliver(self, event: CallEvent) -> None:
        self.told.append(event)

    def token(self, message_id: str, token: str, text: str) -> None: ...

    def tool_call(self, message_id: str, calls: list[ToolCallRequest]) -> None: ...

    def tool_result(self, message_id: str, call: ToolCallRequest, result: str) -> None: ...

    def done(self, message_id: str, text: str) -> None:
        self.done_with.append(text)

    def failed(self, error: str) -> None:
        self.errors.append(error)

    def ended(self, reason: str) -> None:
        self.over.append(reason)


def conversation(reader: Reader, model: ClingingModel | None) -> ChatSession:
    config = resolved({"llm": "openai:gpt-test"} if model is not None else {})
    parts = ChatParts(LoopClock(), lambda _: model, lambda _: config)
    chat = ChatSession(FACTS, config, parts, reader)
    chat.attach(reader, "mara")
    chat.start()
    return chat


async def test_an_order_to_stop_that_comes_while_the_model_lets_go_changes_nothing() -> None:
    reader = Reader()
    chat = conversation(reader, ClingingModel())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(chat.run())
        chat.write("Hi")
        await asyncio.sleep(1)
        for _ in range(3):
            chat.command(BotCancel(call_id="chat-1"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert (reader.done_with, reader.errors, chat.state) == (["1 so far."], [], ChatState.LIVE)
        chat.end("hangup")


async def test_an_agent_that_answers_and_hangs_up_at_once_has_answered() -> None:
    reader = Reader()
    chat = conversation(reader, None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(chat.run())
        chat.write("Hi")
        chat.write("Anybody?")
        await asyncio.sleep(1)
        chat.command(BotReply(call_id="chat-1", message_id="msg_1", text="Goodbye!", in_reply_to=""))
        chat.command(CallHangup(call_id="chat-1"))
    assert reader.done_with == ["Goodbye!"]
    assert reader.errors == ["The conversation has ended"]
    assert [event.text for event in reader.told if isinstance(event, ChatResponse)] == ["Goodbye!"]
    assert reader.over == ["hangup"]
