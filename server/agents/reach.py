"""Who reaches which agent: channels that are added, changed and removed, and the callers of development agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from server.agents.agent import Agent
from server.agents.channels import Channel, Refusal, channel_key, find_channel, new_channel
from server.agents.link import AgentLink
from server.agents.registry import AgentRegistry
from server.store.base import AgentKey, Callers
from transports.twilio.numbers import normalise
from wire.commands import ChannelAdd, ChannelConfigure, ChannelRemove, DevConfig
from wire.link_events import ChannelAdded, ChannelConfigured, ChannelRemoved, DevConfigured
from wire.resolve import Scope

_ATTEMPTS = 3


class NumberDesk(Protocol):
    """Whoever sees to the numbers at the carrier."""

    async def check(self, agent: AgentKey, channel: Channel) -> None:
        """Raises `Refusal` for a number that the agent may not take."""
        ...

    def added(self, agent: AgentKey, channel: Channel) -> None:
        """The agent has taken it. Neither blocks nor raises."""
        ...


class Reach:
    """Channels and callers of the registry's agents. Methods that refuse raise `Refusal`."""

    def __init__(self, registry: AgentRegistry) -> None:
        self._registry = registry
        self.numbers: NumberDesk | None = None
        """None: numbers are nobody's business here."""

    async def add(self, link: AgentLink, command: ChannelAdd) -> None:
        """Add a channel, or replace the same one (protocol §2.2)."""
        agent = self._registry.owned(link, command.agent_id)
        key = channel_key(command.type, command.ref)
        layer = self._registry.rules.read(link.org_id, command.config, Scope.CHANNEL, [agent.layer])
        channel = new_channel(command, key, layer, agent.channels.get(key))
        channel.added_by = link.connection_id
        if self.numbers is not None:
            await self.numbers.check(agent.key, channel)
        if channel.owned:
            await self._claim(agent, channel)
            current = self._registry.find(agent.key)
            if current is not agent:
                # Taken over or removed while the number was asked for: it must not stay claimed for nothing.
                if current is None or key not in current.channels:
                    await self._registry.store.release_number(key, agent.key)
                return
            self._registry.numbers.put(key, agent.key)
        agent.channels[key] = channel
        link.deliver(ChannelAdded(agent_id=agent.agent_id, type=channel.type, ref=channel.ref))
        if self.numbers is not None:
            self.numbers.added(agent.key, channel)

    def configure(self, link: AgentLink, command: ChannelConfigure) -> None:
        """Patch a channel's configuration, for its future calls."""
        agent = self._registry.owned(link, command.agent_id)
        channel = self._channel(agent, command.ref)
        rules = self._registry.rules
        channel.layer = rules.patched(link.org_id, channel.layer, command.config, Scope.CHANNEL, [agent.layer])
        link.deliver(ChannelConfigured(agent_id=agent.agent_id, ref=command.ref))

    async def remove(self, link: AgentLink, command: ChannelRemove) -> None:
        """No more calls from there."""
        agent = self._registry.owned(link, command.agent_id)
        channel = self._channel(agent, command.ref, command.type)
        await self._registry.unlist(agent, channel)
        link.deliver(ChannelRemoved(agent_id=agent.agent_id, ref=command.ref or command.type))

    async def dev_config(self, link: AgentLink, command: DevConfig) -> None:
        """Say whose calls development agents get (protocol §2.1, behaviour §4).

        Lists of several non-production agents on one connection cannot be told apart, so they are united.
        """
        numbers = frozenset(normalise(caller) for caller in command.callers if caller.strip())
        if command.agent_id:
            agents = [self._registry.owned(link, command.agent_id)]
        else:
            mine = self._registry.of_link(link)
            agents = [agent for agent in mine if not agent.key.production]
            if len(agents) > 1 and numbers and link.dev_callers is not None:
                numbers |= link.dev_callers
            link.dev_callers = numbers
            agents = agents or mine
        await self._set_callers(agents, numbers)
        for agent in agents:
            link.deliver(DevConfigured(agent_id=agent.agent_id, callers=sorted(numbers)))

    async def inherit_callers(self, link: AgentLink, agent_id: str) -> None:
        """A development agent that comes after its connection's `dev.config` gets that one, too."""
        agent = self._registry.owned(link, agent_id)
        if link.dev_callers is not None and not agent.key.production:
            known = agent.callers.numbers if agent.callers is not None else None
            if known != link.dev_callers:
                await self._set_callers([agent], link.dev_callers)

    async def _set_callers(self, agents: Iterable[Agent], numbers: frozenset[str]) -> None:
        callers = Callers(numbers, self._registry.clock.wall()) if numbers else None
        for agent in agents:
            agent.callers = callers
            await self._registry.store.keep_callers(agent.key, callers)

    async def _claim(self, agent: Agent, channel: Channel) -> None:
        """Get the number from the store; an agent of the same organisation that does not answer loses it."""
        store = self._registry.store
        replacing: AgentKey | None = None
        for _ in range(_ATTEMPTS):
            holder = await store.claim_number(channel.key, agent.key, replacing)
            if holder == agent.key:
                return
            if holder.org_id != agent.key.org_id:
                break
            replacing = holder
            other = self._registry.find(holder)
            if other is None:
                continue
            if other.link is agent.link or await self._registry.present(other):
                break
            await self._registry.unlist(other, other.channels.get(channel.key, channel))
        else:
            holder = replacing or agent.key
        raise _in_use(channel, holder, agent.key.org_id)

    def _channel(self, agent: Agent, ref: str, type_: str = "") -> Channel:
        channel = find_channel(agent.channels.values(), ref, type_)
        if channel is None:
            raise Refusal("CHANNEL_NOT_FOUND", "The agent has no such channel", ref=ref or type_)
        return channel


def _in_use(channel: Channel, holder: AgentKey, org_id: str) -> Refusal:
    """Who has it is nobody's business outside of the organisation (behaviour §2)."""
    owner = {"owner": holder.slug} if holder.org_id == org_id else {}
    if channel.type == "phone":
        return Refusal("PHONE_IN_USE", "Another agent has this number", phone=channel.ref, **owner)
    return Refusal("CHANNEL_IN_USE", "Another agent has this channel", ref=channel.ref, **owner)
