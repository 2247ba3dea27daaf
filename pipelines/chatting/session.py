"""A conversation in text, from its first message to its end. No speech code runs here.

Messages are answered one after the other: a second answer that began before the tools of the first had run would mix
up the record. Each message ends in exactly one `done` or `failed`, at the latest when its time is up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from pipelines.chatting.answers import Answers, Said
from pipelines.chatting.turns import Reply, Requester, Turn, think
from pipelines.clock import Clock
from pipelines.events import CallEvents, EventSink
from pipelines.ids import new_id
from pipelines.parts import CallFacts
from pipelines.thinking.memory import MemoryDesk
from pipelines.thinking.mind import Mind
from providers.base import LanguageModel
from providers.errors import ProviderError
from wire.chat_events import ChatMessage, ChatResponse, LlmChatEnded, LlmChatError, LlmChatStarted
from wire.commands import (
    BotCancel,
    BotClear,
    BotReply,
    BotReplyStream,
    CallCommand,
    CallHangup,
    LlmToolResult,
    RawConfig,
    SessionConfigure,
)
from wire.config import CallConfig, LlmConfig
from wire.errors import ConfigError
from wire.events import CallEvent, CallMessage, LlmError, LlmToolCall, SessionConfigured, ToolCallRequest

log = structlog.get_logger(__name__)

TURN_SECONDS = 120.0
"""A message is answered by then, tools and all, or never."""
AGENT_SECONDS = 30.0
"""Where the agent's program answers itself, it has begun to by then."""
IDLE_SECONDS = 30 * 60.0
"""A conversation in which nobody writes for so long is over."""
MAX_WAITING = 5
"""Messages that may wait for the end of the turn before them."""
MAX_TEXT = 8000
"""Characters of one message of the user."""
MAX_MESSAGES = 1000
"""Messages of one conversation: what it keeps in memory is bounded."""

PEER_GONE = frozenset({"client_hangup", "connection_lost"})
"""Reasons of which the requester needs not be told."""


class ChatState(Enum):
    """A conversation's life."""

    NEW = auto()
    LIVE = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What a conversation is made of. `model` and `reconfigure` as in `CallParts`; `keep` is given what was said after
    each turn, without tools and instructions, for whoever restores it one day."""

    clock: Clock
    model: Callable[[LlmConfig | None], LanguageModel | None]
    reconfigure: Callable[[RawConfig], CallConfig]
    keep: Callable[[list[CallMessage]], None] | None = None


class ChatSession:
    """A live conversation. Only `run` waits; everything else keeps the order it is called in.

    Attach its agent, `start` and then `run`. To its agent it is a call like any other (`server.agents.calls.LiveCall`).
    """

    def __init__(self, facts: CallFacts, config: CallConfig, parts: ChatParts, requester: Requester) -> None:
        """Raises ProviderError for a model that cannot be had."""
        self.facts = facts
        self._parts = parts
        self._requester = requester
        self.state = ChatState.NEW
        self.events = CallEvents(facts.call_id, parts.clock)
        self._mind = Mind(config, parts.model(config.llm), self.publish, parts.clock)
        self._mind.tools.on_result = self._tool_result
        self._memory = MemoryDesk(self._mind, config.prompt, self.events)
        self._answers = Answers(self)
        self._waiting: deque[Turn] = deque()
        self._arrived = asyncio.Event()
        self._turn: Turn | None = None
        self._deadline: asyncio.Timeout | None = None
        self._shown: set[str] = set()
        self._attached = False
        self._messages = 0
        self._started_at = 0.0
        self._over = asyncio.Event()
        self._log = log.bind(call_id=facts.call_id, agent=facts.slug, org=facts.org_id)

    # --- who and where ---

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        return self.facts.call_id

    @property
    def org_id(self) -> str:
        """Whose conversation."""
        return self.facts.org_id

    @property
    def slug(self) -> str:
        """Whose agent's conversation."""
        return self.facts.slug

    @property
    def model(self) -> str:
        """The name of the model that answers; empty where the agent's program does."""
        llm = self._mind.config.llm
        return llm.model if llm is not None and self._mind.thinks else ""

    # --- life ---

    def restore(self, messages: list[CallMessage]) -> None:
        """What was said in an earlier conversation of the same thread. Before `run`."""
        self._mind.history.add(messages)

    def start(self) -> None:
        """Tell the agent that it begins. Once, before `run`."""
        self.state = ChatState.LIVE
        self._started_at = self._parts.clock.wall()
        self.publish(self._started(resumed=False))
        self._log.info("chat_started")

    async def run(self) -> None:
        """Answer until the conversation ends. Never raises for what a vendor or a peer does."""
        with structlog.contextvars.bound_contextvars(call_id=self.call_id, agent=self.slug):
            try:
                async with asyncio.TaskGroup() as tasks:
                    work = tasks.create_task(self._converse(), name="conversation")
                    await self._over.wait()
                    work.cancel()
            except* Exception as group:  # noqa: BLE001 - the root of its tasks: a fault ends this conversation only
                self._log.exception("chat_failed", errors=[repr(error) for error in group.exceptions])
            finally:
                self.end("error")

    def attach(self, sink: EventSink, agent_id: str) -> None:
        """The agent's socket, and what it calls the agent. On a conversation that lives already: the agent is back."""
        self.events.attach_owner(sink, agent_id)
        self._attached = True
        if self.state is ChatState.LIVE:
            self.publish(self._started(resumed=True))
            if self._turn is not None:
                self._tell(self._turn)
            self._mind.tools.ask_again()

    def detach(self) -> None:
        """The agent's socket is gone."""
        self.events.detach_owner()
        self._attached = False
        self._answers.close_streams()

    def end(self, reason: str, words: str = "") -> None:
        """End now: messages without an answer fail, `llm.chat.ended` is the agent's last frame. `words` are the agent's
        own for the reason, told to it instead and to nobody else. Idempotent."""
        if self.state is ChatState.ENDED:
            return
        self.state = ChatState.ENDED
        turn = self._turn
        if turn is not None and not turn.by_model and turn.reply is not None and turn.answered.is_set():
            # Agents say goodbye and hang up in one breath.
            self._answered(turn, turn.reply)
        turns = [*([self._turn] if self._turn is not None else []), *self._waiting]
        self._turn = None
        self._waiting.clear()
        for turn in turns:
            if turn.reply is not None:
                turn.reply.close_segment()
            if reason not in PEER_GONE:
                turn.requester.failed("The conversation has ended")
        self.events.publish(self._ended(reason, words))
        self.events.close()
        self._requester.ended(reason)
        self._log.info("chat_ended", reason=reason, messages=self._messages)
        self._over.set()

    # --- the user ---

    def write(self, text: str, requester: Requester | None = None) -> None:
        """The user writes. `requester` gets the answer, and what the agent says from now on; else the one before."""
        self._requester = requester or self._requester
        text = text.strip()
        if self.state is ChatState.ENDED:
            self._requester.failed("The conversation has ended")
        elif len(text) > MAX_TEXT:
            self._requester.failed(f"A message may have {MAX_TEXT} characters")
        elif len(self._waiting) >= MAX_WAITING + (self._turn is None):
            self._requester.failed("Too many messages at once: wait for the answer")
        elif self._messages >= MAX_MESSAGES:
            self._requester.failed("This conversation is too long: begin a new one")
        elif text:
            self._messages += 1
            self._waiting.append(Turn(text, self._requester))
            self._arrived.set()

    def set_page_context(self, key: str, value: str | None) -> bool:
        """What the user's page says of itself. False: too much, and nothing has changed."""
        return self._mind.prompt.set_page_context(key, value)

    # --- the agent ---

    def command(self, command: CallCommand) -> None:
        """Carry out one command of the agent."""
        if self.state is ChatState.ENDED:
            return
        try:
            self._obey(command)
        except Exception:  # noqa: BLE001 - whoever brought the command has other conversations
            self._log.exception("chat_failed")
            self.end("error")

    def publish(self, event: CallEvent) -> None:
        """State a fact to the agent. What it is to run, the requester sees as well, once."""
        self.events.publish(event)
        if isinstance(event, LlmToolCall) and self._turn is not None and self._turn.reply is not None:
            new = [call for call in event.tool_calls if call.id not in self._shown]
            self._shown.update(call.id for call in new)
            if new:
                self._turn.requester.tool_call(self._turn.reply.message_id, new)

    def reply_to(self, turn: Turn, message_id: str) -> Reply:
        """Begin the answer to a turn."""
        return Reply(turn.requester, self._mind.history, message_id)

    def say(self, said: Said) -> None:
        """Give the user a message that answers nothing."""
        if said.text.strip():
            remembered = said.remembered or not self._mind.thinks
            self._mind.history.assistant_heard(said.message_id, said.text, in_llm_context=remembered)
            self._requester.done(said.message_id, said.text)
            self.publish(ChatResponse(message_id=said.message_id, text=said.text))
            self._keep()

    # --- inside ---

    def _obey(self, command: CallCommand) -> None:
        match command:
            case BotReply() | BotReplyStream() | BotCancel() | BotClear():
                self._answers.obey(command, self._stop)
            case CallHangup():
                self.end("hangup", command.reason)
            case SessionConfigure():
                self._configure(command)
            case LlmToolResult():
                self._mind.tools.result(command)
            case _:
                if not self._memory.obey(command):
                    self._log.info("command_not_supported", command=type(command).__struct_config__.tag)

    def _configure(self, command: SessionConfigure) -> None:
        try:
            config = self._parts.reconfigure(command.config)
            model = self._parts.model(config.llm)
        except (ConfigError, ProviderError) as error:
            self.publish(SessionConfigured(success=False, error=str(error)))
            return
        self._mind.configure(config, model)
        self.publish(SessionConfigured(success=True))

    def _stop(self) -> None:
        """Let the model cease writing: what it wrote is the answer."""
        if self._turn is not None and self._deadline is not None:
            self._turn.answered.set()
            if self._deadline.expired():
                # It is on its way out already; letting go of a vendor takes a moment.
                return
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def _converse(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    while not self._waiting:
                        self._arrived.clear()
                        await self._arrived.wait()
            except TimeoutError:
                self.end("idle_timeout")
                return
            await self._answer(self._waiting.popleft())

    async def _answer(self, turn: Turn) -> None:
        """One turn, from the user's words to the last of the answer."""
        self._turn = turn
        model, config = self._mind.model, self._mind.config
        self._mind.history.user(turn.message_id, turn.text)
        self._answers.begin(turn)
        self._tell(turn)
        failure = ""
        try:
            async with asyncio.timeout(TURN_SECONDS) as self._deadline:
                if model is None:
                    await self._wait_for_agent(turn)
                else:
                    turn.by_model = True
                    self._shown.clear()
                    turn.reply = self.reply_to(turn, new_id("msg"))
                    await think(self._mind, model, config, turn.reply)
        except TimeoutError:
            stopped = turn.answered.is_set() and turn.reply is not None and turn.reply.text
            failure = "" if stopped else "The agent did not answer"
        except ProviderError as error:
            self._log.warning("model_failed", vendor=error.vendor, code=error.code, error=str(error))
            self.publish(LlmError(error="The language model failed", code=error.code))
            failure = "The language model failed"
        self._deadline = None
        self._conclude(turn, failure)

    async def _wait_for_agent(self, turn: Turn) -> None:
        """Until the agent's program has answered. Raises TimeoutError when it does not even begin to."""
        try:
            async with asyncio.timeout(AGENT_SECONDS):
                await turn.answered.wait()
        except TimeoutError:
            if turn.reply is None:
                raise
            await turn.answered.wait()

    def _conclude(self, turn: Turn, failure: str) -> None:
        if turn.reply is not None:
            turn.reply.close_segment()
        if self._turn is not turn:
            return
        self._turn = None
        if failure or turn.reply is None:
            turn.requester.failed(failure or "The agent did not answer")
        else:
            self._answered(turn, turn.reply)
        self._keep()
        self._answers.settle()

    def _answered(self, turn: Turn, reply: Reply) -> None:
        """The answer is complete."""
        self._turn = None
        reply.close_segment()
        turn.requester.done(reply.message_id, reply.text)
        self.publish(ChatResponse(message_id=reply.message_id, text=reply.text))

    def _tell(self, turn: Turn) -> None:
        """Tell the agent's program what the user wrote, once: it may be away, and come back while the turn waits."""
        if self._attached and not turn.told:
            turn.told = True
            self.publish(ChatMessage(message_id=turn.message_id, text=turn.text))

    def _tool_result(self, call: ToolCallRequest, result: str) -> None:
        if self._turn is not None and self._turn.reply is not None:
            self._turn.requester.tool_result(self._turn.reply.message_id, call, result)

    def _keep(self) -> None:
        if self._parts.keep is not None:
            said = self._mind.history.data("")
            self._parts.keep([one for one in said if one.role in ("user", "assistant") and one.content])

    def _started(self, *, resumed: bool) -> LlmChatStarted:
        facts = self.facts
        started = LlmChatStarted(
            from_=facts.from_,
            to=facts.to,
            direction=facts.direction,
            transport=facts.transport,
            metadata=facts.metadata,
            language=self._mind.config.language.split("-")[0],
            model=self.model,
        )
        if resumed:
            started.resumed = True
        return started

    def _ended(self, reason: str, words: str) -> LlmChatEnded | LlmChatError:
        ended_at = self._parts.clock.wall()
        ended = LlmChatEnded(
            reason=words or reason,
            metadata=self.facts.metadata,
            messages=self._mind.record(),
            duration_seconds=round(ended_at - self._started_at, 3),
            started_at=self._started_at,
            ended_at=ended_at,
        )
        return ended if reason != "error" else ended.failed("The gateway failed; its log says why")
