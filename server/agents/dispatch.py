"""From a connection's frames to whoever carries them out (protocol §1.7, §4.16).

Commands for calls are handed on at once, in order; registration commands may wait for other connections or the
store, so they go through a queue of their own and never hold up a call.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol, assert_never

import structlog

from pipelines.clock import Clock
from server.agents.admission import Admission
from server.agents.channels import Refusal
from server.agents.link import AgentLink, LinkTimes, event_name
from server.agents.reach import Reach
from server.agents.registry import AgentRegistry
from server.organisations.directory import Organisations
from server.store.base import AgentKey, StoreUnavailable
from wire.commands import (
    AgentConfigure,
    AgentCreate,
    AgentRemove,
    AgentResume,
    CallCommand,
    CallDial,
    ChannelAdd,
    ChannelConfigure,
    ChannelRemove,
    Connect,
    DevConfig,
    LlmChat,
    OnCall,
    Ping,
    Pong,
    RegistrationCommand,
)
from wire.link_events import ErrorEvent

log = structlog.get_logger(__name__)

_RETRY_AFTER: Final = 5.0

Slow = RegistrationCommand | Connect | CallDial
"""Commands that may wait for other connections or the store, and those that may need what such a one does."""


class Dials(Protocol):
    """Whoever makes calls for agents."""

    def dial(self, link: AgentLink, command: CallDial) -> None:
        """Carry out one command. Neither blocks nor raises: what becomes of it is told in events."""
        ...


class Chatting(Protocol):
    """Where connections hold conversations in text."""

    def say(self, link: AgentLink, command: LlmChat) -> None:
        """A connection writes to an agent. Never blocks, never raises."""
        ...

    def left(self, link: AgentLink) -> None:
        """A connection is gone."""
        ...


class AgentGateway:
    """All agent connections of this process."""

    chats: Chatting | None = None
    """Set by whoever composes the gateway; without it `llm.chat` is not supported."""

    def __init__(
        self, organisations: Organisations, registry: AgentRegistry, clock: Clock, times: LinkTimes | None = None
    ) -> None:
        self.registry = registry
        self.times = times or LinkTimes()
        self.reach = Reach(registry)
        self._clock = clock
        self._links: set[AgentLink] = set()
        self._admission = Admission(organisations, registry, clock, self._links)
        self._closed = False
        self.dials: Dials | None = None
        """None: this gateway makes no calls."""

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def open(self, peer: str) -> AgentLink:
        """A socket has opened; `peer` is the address it comes from."""
        link = AgentLink(f"conn_{secrets.token_hex(8)}", peer, self._clock, self.times)
        self._links.add(link)
        if self._closed:
            link.close(1012, "service_restart")
        return link

    async def leave(self, link: AgentLink) -> None:
        """The socket has closed. Idempotent."""
        self._links.discard(link)
        if self.chats is not None:
            self.chats.left(link)
        await self.registry.leave(link)

    def close(self) -> None:
        """Tell every client that this gateway goes away, and every new one, too. Sockets close by themselves."""
        self._closed = True
        for link in list(self._links):
            link.close(1012, "service_restart")

    def take(self, link: AgentLink, frame: str | bytes) -> Slow | None:
        """Take one frame. Never blocks. What comes back is for `register`, in order."""
        command = link.receive(frame)
        match command:
            case None | Ping() | Pong():
                return None
            case Connect():
                return None if self._admission.connect(link, command, self.times.penalty) else command
            case OnCall():
                self._to_call(link, command)
            case LlmChat() if self.chats is not None:
                self.chats.say(link, command)
            case (
                AgentCreate()
                | AgentConfigure()
                | AgentResume()
                | AgentRemove()
                | DevConfig()
                | ChannelAdd()
                | ChannelConfigure()
                | ChannelRemove()
            ):
                return command
            case CallDial() if self.dials is not None:
                # The number to call from may have been added a moment ago.
                return command
            case _:
                name = event_name(command)
                log.info("command_not_supported", connection=link.connection_id, command=name)
                error = ErrorEvent(code="BAD_REQUEST", error=f"{name} is not supported by this gateway", command=name)
                error.agent_id = command.agent_id
                link.deliver(error)
        return None

    async def register(self, link: AgentLink, commands: asyncio.Queue[Slow]) -> None:
        """Carry out a connection's registration commands, one after the other. Runs until cancelled."""
        while True:
            command = await commands.get()
            if isinstance(command, Connect):
                await self._admission.connect_if_room(link, command)
                continue
            if not link.connected:
                continue
            if isinstance(command, CallDial):
                if self.dials is not None:
                    self.dials.dial(link, command)
                continue
            try:
                await self._register(link, command)
            except Refusal as refusal:
                self._refused(link, command, refusal)
            except StoreUnavailable:
                text = "What gateways share cannot be reached; try again"
                self._refused(link, command, Refusal("REGISTRATION_ERROR", text, retry_after_s=_RETRY_AFTER))
            except Exception:
                # One command must not take the connection's other agents with it.
                log.exception("command_failed", connection=link.connection_id, command=event_name(command))
                self._refused(link, command, Refusal("REGISTRATION_ERROR", "The gateway failed; its log says why"))

    async def _register(self, link: AgentLink, command: RegistrationCommand) -> None:
        match command:
            case AgentCreate():
                agent_id = await self._admission.create(link, command)
                if agent_id:
                    await self.reach.inherit_callers(link, agent_id)
            case AgentConfigure():
                self.registry.configure(link, command.agent_id, command.config)
            case AgentResume():
                await self.registry.resume(link, command.agent_id)
            case AgentRemove():
                await self.registry.remove(link, command.agent_id)
            case DevConfig():
                await self.reach.dev_config(link, command)
            case ChannelAdd():
                await self.reach.add(link, command)
            case ChannelConfigure():
                self.reach.configure(link, command)
            case ChannelRemove():
                await self.reach.remove(link, command)
            case _:
                assert_never(command)

    def _refused(self, link: AgentLink, command: RegistrationCommand, refusal: Refusal) -> None:
        error = ErrorEvent(code=refusal.code, error=refusal.error, command=event_name(command))
        if command.agent_id:
            error.agent_id = command.agent_id
        for name, value in refusal.fields.items():
            setattr(error, name, value)
        link.deliver(error)
        log.info(
            "command_refused",
            connection=link.connection_id,
            org=link.org_id,
            agent=command.agent_id[:80],
            command=event_name(command),
            code=refusal.code,
        )

    def _to_call(self, link: AgentLink, command: CallCommand) -> None:
        """Unknown, ended and foreign calls are passed over in silence: any answer would revive them at the client."""
        call = self.registry.calls.find(link.org_id, command.call_id)
        if call is None:
            return
        agent = self.registry.find(AgentKey(call.org_id, call.slug))
        if agent is not None and agent.link is link:
            call.command(command)
