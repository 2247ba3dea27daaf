"""Who is there: the agents of all connections, who owns each, and what happens to them when a connection drops.

An agent is `(organisation, slug)`. While its connection is away it stays reserved for a time, so that its program may
come back to its live calls (protocol §1.4); anyone else of the organisation may take it over meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import suppress
from typing import Final
from weakref import WeakValueDictionary

import structlog

from pipelines.clock import Clock
from server.agents.agent import MAX_SLUG, Agent, RegistryTimes, slugify
from server.agents.calls import LiveCall, LiveCalls
from server.agents.channels import Channel, Numbers, Refusal
from server.agents.configuration import ConfigRules
from server.agents.link import AgentLink
from server.origins import read_allowed_origins
from server.store.base import AgentKey, Callers, Store
from wire.commands import AgentCreate, RawConfig
from wire.link_events import AgentConfigured, AgentCreated, AgentDisplaced, AgentRemoved, AgentResumed
from wire.resolve import Scope

log = structlog.get_logger(__name__)

CALLERS_KEPT: Final = 24 * 3600.0
"""Seconds for which the callers of an absent development agent are remembered (behaviour §4)."""
_RETRY_AFTER: Final = 5.0
_ATTEMPTS: Final = 3
_SHOWN: Final = 100
_SHOWN_ORIGINS: Final = 3
_ARRIVING_S: Final = 2.0
"""How long after a connection of an organisation came its agents are taken to be registering."""
_WAIT_ARRIVING_S: Final = 1.0
_WAIT_S: Final = 0.1
"""How long one who asks for an absent agent waits for it, and if nobody seems to be registering (browser §1.5)."""


class AgentRegistry:
    """All agents of this process. Methods that refuse raise `Refusal`."""

    def __init__(self, store: Store, clock: Clock, rules: ConfigRules, times: RegistryTimes | None = None) -> None:
        self.store = store
        self.clock = clock
        self.rules = rules
        self.calls = LiveCalls()
        self.numbers = Numbers()
        self._times = times or RegistryTimes()
        self._agents: dict[AgentKey, Agent] = {}
        self._links: dict[str, AgentLink] = {}
        self._due = asyncio.Event()
        self._returns: WeakValueDictionary[AgentKey, asyncio.Event] = WeakValueDictionary()
        """Each lives as long as somebody waits for it."""
        self._named: dict[str, dict[AgentKey, None]] = {}
        self._binding: Counter[str] = Counter()
        """Registrations under way, by organisation."""
        self._arrived: dict[str, float] = {}
        """When a connection of an organisation came last."""

    # --- look-ups ---

    def find(self, key: AgentKey) -> Agent | None:
        """The agent, online or away."""
        return self._agents.get(key)

    def of_org(self, org_id: str) -> list[Agent]:
        """All agents of one organisation."""
        return [agent for agent in self._agents.values() if agent.key.org_id == org_id]

    def of_link(self, link: AgentLink) -> list[Agent]:
        """All agents of one connection."""
        return [agent for agent in self._agents.values() if agent.link is link]

    def named(self, slug: str) -> list[Agent]:
        """The agents of that name, of all organisations."""
        return [self._agents[key] for key in self._named.get(slug, ())]

    async def online(self, key: AgentKey) -> bool:
        """Whether the agent is connected, to this node or another; one that seems to be registering is waited for.

        Raises `StoreUnavailable` when other nodes cannot be asked.
        """
        agent = self._agents.get(key)
        if agent is not None and agent.online:
            return True
        holder = await self.store.holder_of(key)
        if holder and holder not in self._links:
            return True
        fresh = self.clock.now() < self._arrived.get(key.org_id, float("-inf")) + _ARRIVING_S
        arriving = fresh or self._binding[key.org_id] > 0
        return await self.returned(key, _WAIT_ARRIVING_S if arriving else _WAIT_S)

    def owned(self, link: AgentLink, agent_id: str) -> Agent:
        """This connection's agent of that name, in any form. Raises `Refusal` AGENT_NOT_FOUND."""
        agent = self._agents.get(AgentKey(link.org_id, slugify(agent_id)))
        if agent is None or agent.link is not link:
            raise Refusal("AGENT_NOT_FOUND", "This connection has no such agent")
        return agent

    def admit(self, call: LiveCall) -> Agent:
        """A call begins: from now on it gets its agent's commands, and is told when the agent goes or comes back.

        Raises `LookupError` if the agent is no longer known: then nobody will ever answer that call.
        """
        agent = self._agents.get(AgentKey(call.org_id, call.slug))
        if agent is None:
            raise LookupError(call.slug)
        self.calls.add(call)
        return agent

    async def returned(self, key: AgentKey, timeout: float) -> bool:
        """Wait until the agent is online again, at most `timeout` seconds."""
        agent = self._agents.get(key)
        if agent is not None and agent.online:
            return True
        event = self._returns.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True

    # --- connections ---

    def join(self, link: AgentLink) -> None:
        """A connection was accepted."""
        self._links[link.connection_id] = link
        self._arrived[link.org_id] = self.clock.now()

    async def leave(self, link: AgentLink) -> None:
        """A connection is gone. Idempotent. Its agents stay reserved, unless the client said goodbye."""
        if self._links.pop(link.connection_id, None) is None:
            return
        agents = self.of_link(link)
        now = self.clock.now()
        for agent in agents:
            agent.link, agent.offline_since, agent.settles_at = None, now, None
            for call in self.calls.of_agent(agent.key):
                call.detach()
        self._due.set()
        for agent in agents:
            await self.store.release_agent(agent.key, link.connection_id)
            if link.final and agent.link is None:
                await self._forget(agent, "agent_disconnected")

    async def run(self) -> None:
        """Carry out what becomes due. Runs until cancelled; start it once."""
        while True:
            self._due.clear()
            try:
                due = await self.expire()
            except Exception:
                log.exception("agent_registry_failed")
                due = self.clock.now() + 1.0
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self.clock.now())):
                    await self._due.wait()

    async def expire(self) -> float | None:
        """Do what is due now; answers when something is due next (monotonic seconds), None for nothing."""
        now = self.clock.now()
        coming: list[float] = []
        for agent in list(self._agents.values()):
            if self._agents.get(agent.key) is not agent:
                continue
            if agent.offline_since is not None:
                ends = agent.offline_since + self._times.grace
                forgotten = max(ends, agent.offline_since + self._times.remembered)
                if now >= ends:
                    self._end_calls(agent, "agent_disconnected")
                if now >= forgotten:
                    log.info("agent_forgotten", org=agent.key.org_id, agent=agent.key.slug)
                    await self._forget(agent, "agent_disconnected")
                coming += [time for time in (ends, forgotten) if time > now]
            elif agent.settles_at is not None and now >= agent.settles_at:
                await self._settle(agent)
            elif agent.settles_at is not None:
                coming.append(agent.settles_at)
        return min(coming, default=None)

    # --- agents ---

    async def create(self, link: AgentLink, command: AgentCreate) -> str:
        """Create, replace or take back an agent (protocol §2.1). Answers its id, or "" if the connection closed."""
        agent_id = command.agent_id or f"agent_{secrets.token_hex(6)}"
        key = self._key(link, agent_id)
        layer = self.rules.read(link.org_id, command.config, Scope.AGENT)
        origins, unusable = read_allowed_origins(command.allowed_origins)
        if unusable:
            shown = [text[:_SHOWN] for text in unusable[:_SHOWN_ORIGINS]]
            log.warning("allowed_origins_ignored", org=key.org_id, agent=key.slug, count=len(unusable), first=shown)
        agent = Agent(key, agent_id, link, layer, origins, command.history_save)
        bound = await self._bind(link, agent, AgentCreated(agent_id=agent_id))
        return agent_id if bound else ""

    async def resume(self, link: AgentLink, agent_id: str) -> None:
        """Bind a known agent that nobody holds, with the configuration it had."""
        key = self._key(link, agent_id)
        known = self._agents.get(key)
        if known is None or (known.online and known.link is not link):
            raise Refusal("AGENT_NOT_FOUND", "There is no such agent to resume")
        agent = Agent(key, agent_id, link, known.layer, known.allowed_origins, known.history_save)
        await self._bind(link, agent, AgentResumed(agent_id=agent_id))

    def configure(self, link: AgentLink, agent_id: str, config: RawConfig) -> None:
        """Patch the defaults of future calls."""
        agent = self.owned(link, agent_id)
        agent.layer = self.rules.patched(link.org_id, agent.layer, config, Scope.AGENT)
        link.deliver(AgentConfigured(agent_id=agent.agent_id))

    async def remove(self, link: AgentLink, agent_id: str) -> None:
        """End the agent, its calls and its channels, and forget its callers."""
        agent = self.owned(link, agent_id)
        agent.callers = None
        await self.store.keep_callers(agent.key, None)
        await self._forget(agent, "agent_removed")
        link.deliver(AgentRemoved(agent_id=agent.agent_id))

    async def kick(self, key: AgentKey) -> bool:
        """An operator frees the slug. False if there is no such agent."""
        agent = self._agents.get(key)
        if agent is None:
            return False
        link = agent.link
        await self._forget(agent, "agent_removed")
        log.info("agent_kicked", org=key.org_id, agent=key.slug)
        if link is not None:
            link.deliver(AgentDisplaced(agent_id=agent.agent_id, reason="kicked"))
            if not self.of_link(link):
                link.close(4001, "displaced")
        return True

    async def present(self, agent: Agent) -> bool:
        """Whether somebody answers on the agent's connection; if nobody does, the connection is dropped."""
        return agent.link is not None and await self.keep_if_alive(agent.link)

    async def keep_if_alive(self, link: AgentLink) -> bool:
        """Whether somebody answers on a connection; if nobody does, it is dropped."""
        if await link.probe():
            return True
        link.close(1001, "ping_timeout")
        await self.leave(link)
        return False

    # --- inside ---

    def _key(self, link: AgentLink, agent_id: str) -> AgentKey:
        slug = slugify(agent_id)
        if not slug or len(slug) > MAX_SLUG:
            raise Refusal("BAD_REQUEST", "agent_id: needs at least one letter a-z or digit, and at most 128 of them")
        return AgentKey(link.org_id, slug)

    async def _bind(self, link: AgentLink, agent: Agent, answer: AgentCreated | AgentResumed) -> bool:
        """Make `link` the connection of the agent, as `agent` describes it. False if it was closed meanwhile."""
        self._binding[link.org_id] += 1
        try:
            callers = await self._remembered(agent.key)
            await self._claim(link, agent.key)
        finally:
            self._binding[link.org_id] -= 1
        if not link.connected:
            await self.store.release_agent(agent.key, link.connection_id)
            return False
        # From here on nothing waits: all of it happens at once, or none.
        known = self._agents.get(agent.key)
        back = known is not None and known.link is not link
        if known is not None:
            agent.channels, agent.settles_at, callers = known.channels, known.settles_at, known.callers
        if back and agent.channels:
            agent.settles_at = self.clock.now() + self._times.settle
            self._due.set()
        agent.callers = callers
        self._agents[agent.key] = agent
        self._named.setdefault(agent.key.slug, {})[agent.key] = None
        link.deliver(answer)
        if back or known is None:
            for call in self.calls.of_agent(agent.key):
                call.attach(link, agent.agent_id)
        returned = self._returns.pop(agent.key, None)
        if returned is not None:
            returned.set()
        return True

    async def _remembered(self, key: AgentKey) -> Callers | None:
        """A development agent's callers, asked for before anything is claimed: the store may not answer."""
        known = self._agents.get(key)
        return None if key.production else known.callers if known is not None else await self.store.callers(key)

    async def _claim(self, link: AgentLink, key: AgentKey) -> None:
        """Get the agent from the store. A holder that does not answer loses it silently (protocol §1.6)."""
        replacing = ""
        for _ in range(_ATTEMPTS):
            replacing = await self.store.claim_agent(key, link.connection_id, replacing)
            if replacing == link.connection_id:
                return
            holder = self._links.get(replacing)
            if holder is None:  # gone, or on another node: the store lets only the first be replaced
                continue
            if await self.keep_if_alive(holder):
                break
        hint = {"holder_alive": True, "retry_after_s": _RETRY_AFTER}
        raise Refusal("AGENT_IN_USE", "Another live connection of this organisation holds this agent", **hint)

    async def _settle(self, agent: Agent) -> None:
        """Drop the channels that a returned agent has not added again."""
        agent.settles_at = None
        current = agent.link.connection_id if agent.link is not None else ""
        for channel in list(agent.channels.values()):
            if channel.added_by != current:
                await self.unlist(agent, channel)

    async def unlist(self, agent: Agent, channel: Channel) -> None:
        """Take a channel away from its agent."""
        if agent.channels.get(channel.key) is channel:
            del agent.channels[channel.key]
        # While the store was asked about another channel, the agent may have come back and added this one again.
        if channel.owned and channel.key not in self._agents.get(agent.key, agent).channels:
            self.numbers.take(channel.key, agent.key)
            await self.store.release_number(channel.key, agent.key)

    def _end_calls(self, agent: Agent, reason: str) -> None:
        for call in self.calls.of_agent(agent.key):
            call.end(reason)

    async def _forget(self, agent: Agent, reason: str) -> None:
        """The agent is no more: its calls end, its slug and its numbers are free."""
        if self._agents.get(agent.key) is not agent:
            return
        del self._agents[agent.key]
        same = self._named[agent.key.slug]
        del same[agent.key]
        if not same:
            del self._named[agent.key.slug]
        self._end_calls(agent, reason)
        if agent.link is not None:
            await self.store.release_agent(agent.key, agent.link.connection_id)
        for channel in list(agent.channels.values()):
            await self.unlist(agent, channel)
        if agent.callers is not None and agent.key not in self._agents:
            await self.store.keep_callers(agent.key, agent.callers, CALLERS_KEPT)
