"""Which agent a phone call is for (behaviour §3.2 and §4). `decide` is pure; `Router` feeds it from the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from server.agents.agent import Agent
from server.agents.channels import Channel
from server.agents.registry import AgentRegistry
from server.store.base import AgentKey, Callers
from transports.twilio.numbers import normalise

RECENT: Final = 10.0
"""Seconds for which a production agent that dropped may still be waited for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent on the dialled number."""

    key: AgentKey
    online: bool
    offline_since: float | None = None
    callers: Callers | None = None


@dataclass(frozen=True, slots=True)
class Goes:
    """The call is for this agent, which is online."""

    agent: AgentKey


@dataclass(frozen=True, slots=True)
class Wait:
    """The call is for this agent, which dropped a moment ago and may be back any second."""

    agent: AgentKey


@dataclass(frozen=True, slots=True)
class Nobody:
    """Nobody takes the call; `reason` is for the log: unknown_number, agent_offline or not_a_caller."""

    reason: str


def decide(candidates: Sequence[Candidate], caller: str, now: float) -> Goes | Wait | Nobody:
    """The rule: a development agent this caller belongs to, then production, then a lone development agent.

    `caller` is normalised; `now` is on the clock of `offline_since`.
    """
    shared = [one for one in candidates if not one.key.production and one.online]
    mine = [one for one in shared if one.callers is not None and caller in one.callers.numbers]
    if mine:
        return Goes(max(mine, key=_precedence).key)
    production = next((one for one in candidates if one.key.production), None)
    if production is not None and production.online:
        return Goes(production.key)
    if production is not None:
        recent = production.offline_since is not None and now - production.offline_since < RECENT
        return Wait(production.key) if recent else Nobody("agent_offline")
    if len(shared) == 1:
        return Goes(shared[0].key)
    return Nobody("not_a_caller" if shared else "agent_offline" if candidates else "unknown_number")


def _precedence(one: Candidate) -> tuple[bool, float]:
    return one.key.slug.startswith("dev-"), one.callers.set_at if one.callers is not None else 0.0


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a call goes: the agent and, for its configuration, the channel it came through."""

    agent: Agent
    channel: Channel


OfOrg = Callable[[str], bool]


def any_org(_org_id: str) -> bool:
    """The call may be for anybody."""
    return True


class Router:
    """Finds the agent for a phone call."""

    def __init__(self, registry: AgentRegistry) -> None:
        self._registry = registry

    def route(self, to: str, caller: str, of_org: OfOrg = any_org) -> Routed | Wait | Nobody:
        """Decide now. Numbers and addresses in any spelling. `of_org` says whose agents the call may be for."""
        key, on_number = self._registry.numbers.called(to, of_org)
        if on_number and not any(of_org(one.org_id) for one in on_number):
            return Nobody("foreign_account")
        found = [agent for one in on_number if (agent := self._registry.find(one)) is not None]
        candidates = [Candidate(one.key, one.online, one.offline_since, one.callers) for one in found]
        decision = decide(candidates, normalise(caller), self._registry.clock.now())
        if not isinstance(decision, Goes):
            return decision
        agent = next(one for one in found if one.key == decision.agent)
        return Routed(agent, agent.channels[key])

    async def route_soon(self, to: str, caller: str, patience: float, of_org: OfOrg = any_org) -> Routed | Nobody:
        """Decide, waiting at most `patience` seconds for an agent that dropped a moment ago."""
        decision = self.route(to, caller, of_org)
        if isinstance(decision, Wait):
            await self._registry.returned(decision.agent, patience)
            decision = self.route(to, caller, of_org)
        return Nobody("agent_offline") if isinstance(decision, Wait) else decision
