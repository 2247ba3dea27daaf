"""All conversations in text: those of pages in browsers, and those that SDK connections hold by `llm.chat`."""

from __future__ import annotations

import asyncio
import functools
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from pipelines.chatting.session import ChatParts, ChatSession
from pipelines.chatting.turns import Requester
from pipelines.parts import CallFacts
from providers.errors import ProviderError
from server.agents.agent import Agent, slugify
from server.agents.channels import find_channel
from server.agents.link import AgentLink
from server.agents.registry import AgentRegistry
from server.agents.requester import LinkRequester
from server.calls import SessionLayers
from server.metrics import Metrics
from server.store.base import AgentKey
from server.supply import Supply
from server.threads import ThreadKey, Threads
from wire.chat_events import ChatFailed
from wire.commands import LlmChat
from wire.errors import ConfigError
from wire.events import CallMessage
from wire.layers import Layer

log = structlog.get_logger(__name__)

_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a client may call a session or a thread."""
_IDENTITY: Final = ("userId", "contactId")
_MAX_IDENTITY: Final = 512

Metadata = Mapping[str, msgspec.Raw]


class ChatRefused(Exception):
    """No conversation can begin. `code` and the text are for whoever asked."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code
        self.error = error


@dataclass(frozen=True, slots=True)
class Restored:
    """The thread of a new conversation, and what was said in it before."""

    thread_id: str
    said: list[CallMessage]


NO_THREAD: Final = Restored("", [])


class Chats:
    """All conversations of this process. `run` owns their tasks."""

    def __init__(
        self,
        registry: AgentRegistry,
        supply: Supply,
        metrics: Metrics,
        max_chats: int = 0,
    ) -> None:
        """`max_chats` 0 means no limit."""
        self._registry = registry
        self._supply = supply
        self._max_chats = max_chats
        self._live: set[ChatSession] = set()
        self._named: dict[tuple[str, str], ChatSession] = {}
        """Those that SDK connections began: the id is the name they gave them, which their organisation knows."""
        self._of_link: dict[AgentLink, set[ChatSession]] = {}
        self._threads = Threads(registry.clock.now)
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self.observers: list[Callable[[ChatSession], None]] = []
        """Each is shown every conversation before it begins."""
        metrics.gauge("gateway_chats_live", "Conversations in text going on", lambda: len(self))

    def __len__(self) -> int:
        return len(self._live)

    @property
    def full(self) -> bool:
        """Whether no new conversation can begin."""
        return self._tasks is None or self._closing.is_set() or 0 < self._max_chats <= len(self._live)

    async def run(self) -> None:
        """Serve until `close`. Start it once."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._closing.wait()
            for chat in list(self._live):
                chat.end("disconnected")

    def close(self) -> None:
        """End every conversation, take no new one; `run` returns when all are over."""
        self._closing.set()

    # --- pages ---

    def open(
        self, key: AgentKey, metadata: Metadata, requester: Requester, thread: str
    ) -> tuple[ChatSession, Restored]:
        """A page's conversation begins. `metadata` is sealed in its token, `thread` what its address says. Raises
        ChatRefused."""
        agent = self._online(key)
        thread_key = _thread_key(key, metadata, thread)
        restored = NO_THREAD
        if thread_key is not None:
            restored = Restored(thread_key.thread_id, self._threads.find(thread_key))
        chat = self._begin(agent, f"chat-{secrets.token_hex(12)}", metadata, (requester, thread_key, restored.said))
        return chat, restored

    # --- SDK connections ---

    def say(self, link: AgentLink, command: LlmChat) -> None:
        """A connection writes to an agent of its organisation. Never raises: what is wrong it is told."""
        chat = self._named.get((link.org_id, command.session_id))
        key = AgentKey(link.org_id, slugify(command.agent_id))
        try:
            if not _ID.fullmatch(command.session_id):
                raise ChatRefused(
                    "BAD_REQUEST", "session_id: 1 to 128 letters, digits, dots, colons, underscores and dashes"
                )
            agent = self._registry.find(key)
            if chat is not None and agent is not None and chat.slug == key.slug:
                # Its agent may be away for a moment: the conversation knows what to do about that.
                requester = LinkRequester(link, command.session_id, agent, chat.model)
            elif chat is None and self._registry.calls.find(link.org_id, command.session_id) is None:
                agent = self._online(key, command.agent_id)
                requester = LinkRequester(link, command.session_id, agent)
                chat = self._begin(agent, command.session_id, command.metadata, (requester, None, []))
                self._named[chat.org_id, chat.call_id] = chat
                requester.begun(chat.model)
            else:
                raise ChatRefused("BAD_REQUEST", "session_id: is in use, choose another")
        except ChatRefused as refused:
            link.deliver(ChatFailed(session_id=command.session_id[:128], error=refused.error))
            return
        self._of_link.setdefault(link, set()).add(chat)
        chat.write(command.text, requester)

    def left(self, link: AgentLink) -> None:
        """A connection is gone; conversations in which nobody else wrote end."""
        for chat in self._of_link.pop(link, set()):
            if not any(chat in others for others in self._of_link.values()):
                chat.end("client_hangup")

    # --- inside ---

    def _online(self, key: AgentKey, name: str = "") -> Agent:
        agent = self._registry.find(key)
        if agent is None or not agent.online:
            raise ChatRefused("AGENT_OFFLINE", f"Agent '{name[:128] or key.slug}' is not online")
        return agent

    def _begin(
        self,
        agent: Agent,
        call_id: str,
        metadata: Metadata,
        who: tuple[Requester, ThreadKey | None, list[CallMessage]],
    ) -> ChatSession:
        if self.full:
            raise ChatRefused("SERVER_AT_CAPACITY", "The gateway has no room for another conversation")
        limit = self._supply.limits(agent.key.org_id).chats
        if 0 < limit <= sum(chat.org_id == agent.key.org_id for chat in self._live):
            log.warning("organisation_at_capacity", org=agent.key.org_id, what="chats", limit=limit)
            raise ChatRefused("SERVER_AT_CAPACITY", "This organisation has no room for another conversation")
        requester, thread, said = who
        facts = CallFacts(
            call_id=call_id,
            org_id=agent.key.org_id,
            slug=agent.key.slug,
            from_="chat",
            to=agent.agent_id,
            direction="inbound",
            transport="chat",
            metadata=dict(metadata),
        )
        layers = self._layers(agent, metadata)
        engines = self._supply.engines(agent.key.org_id)
        parts = ChatParts(
            clock=self._registry.clock,
            model=lambda llm: None if llm is None else engines.model(llm.provider),
            reconfigure=layers.patch,
            keep=None if thread is None else lambda said: self._threads.keep(thread, said),
        )
        try:
            chat = ChatSession(facts, layers.config, parts, requester)
        except ProviderError as error:
            log.warning("chat_refused", agent=agent.key.slug, org=agent.key.org_id, error=str(error))
            raise ChatRefused("SERVER_AT_CAPACITY", "The agent's language model cannot be had") from error
        chat.restore(said)
        self._registry.admit(chat)
        assert agent.link is not None
        chat.attach(agent.link, agent.agent_id)
        self._live.add(chat)
        for observe in self.observers:
            observe(chat)
        chat.start()
        assert self._tasks is not None
        self._tasks.create_task(self._run(chat), name=f"chat {call_id}")
        return chat

    def _layers(self, agent: Agent, metadata: Metadata) -> SessionLayers:
        """Agent, its chat channel if it has one, and the language that was sealed in, if we know it."""
        resolve = functools.partial(self._supply.resolve, agent.key.org_id)
        channel = find_channel(agent.channels.values(), "", "chat")
        layers = [agent.layer, *([channel.layer] if channel is not None else [])]
        language = _text(metadata.get("lang"))
        try:
            if language:
                return SessionLayers([*layers, Layer({"language": language})], resolve)
        except ConfigError as error:
            log.info("chat_language_refused", agent=agent.key.slug, org=agent.key.org_id, error=str(error))
        try:
            return SessionLayers(layers, resolve)
        except ConfigError as error:
            log.warning("chat_refused", agent=agent.key.slug, org=agent.key.org_id, error=str(error))
            raise ChatRefused("CONFIG_ERROR", "The agent's configuration cannot be served") from error

    async def _run(self, chat: ChatSession) -> None:
        try:
            await chat.run()
        except Exception:
            # The root of a conversation: its fault must not take the others with it.
            log.exception("chat_failed", call_id=chat.call_id)
        finally:
            self._live.remove(chat)
            self._named.pop((chat.org_id, chat.call_id), None)
            self._registry.calls.remove(chat.org_id, chat.call_id)
            for chats in self._of_link.values():
                chats.discard(chat)


def _thread_key(key: AgentKey, metadata: Metadata, thread: str) -> ThreadKey | None:
    """The thread of a page: what was sealed in beats what its address says. None for no (usable) thread."""
    sealed: object = msgspec.json.decode(metadata.get("threadId", b"null"))
    if sealed is not None and sealed != "":
        # A number is a name, too. Where what was sealed in is none, the page does not get to choose one.
        thread = str(sealed) if isinstance(sealed, str | int) and not isinstance(sealed, bool) else ""
    if not _ID.fullmatch(thread):
        return None
    identity = msgspec.json.encode([metadata.get(name, msgspec.Raw(b"null")) for name in _IDENTITY]).decode()
    return ThreadKey(key, thread, identity) if len(identity) <= _MAX_IDENTITY else None


def _text(value: msgspec.Raw | None) -> str:
    """The string, or "" for anything else."""
    if value is None:
        return ""
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return ""
