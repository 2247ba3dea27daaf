"""What the console shows beside conversations: agents, telephones that ring, and how the gateway fares."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.clock import Clock
from server.agents.agent import Agent
from server.agents.registry import AgentRegistry
from server.auth import DEFAULT_ORG
from server.calls import Calls
from server.chats import Chats
from server.console.messages import AgentLine, Agents, ChannelLine, Health, Ringing, RingingLine
from server.dial import Dial
from server.screening import RingingCall
from server.settings import Settings
from server.supply import Supply
from transports.twilio.signature import is_loopback
from wire.errors import ConfigError

_STATM: Final = Path("/proc/self/statm")
_MEGABYTE: Final = 1024 * 1024


def open_organisation(settings: Settings) -> str | None:
    """Whose conversations anybody on this machine may see: nobody's, once an operator gave out keys or an address."""
    own_key = not settings.organisation_keys and settings.api_keys_file is None
    alone = settings.public_url is None and is_loopback(settings.host)
    return DEFAULT_ORG if own_key and alone else None


def agents_of(registry: AgentRegistry, supply: Supply, org_id: str) -> Agents:
    """All agents of an organisation, by name."""
    lines = [_line(registry, supply, agent) for agent in registry.of_org(org_id)]
    return Agents(agents=sorted(lines, key=lambda line: line.slug))


def ringing_of(registry: AgentRegistry, org_id: str) -> Ringing:
    """All calls of an organisation that are on their way, oldest first."""
    lines: list[RingingLine] = []
    for call in registry.calls:
        if call.org_id != org_id or not isinstance(call, Dial | RingingCall):
            continue
        facts = call.expected.facts if isinstance(call, Dial) else call.facts
        lines.append(
            RingingLine(
                call_id=call.call_id,
                agent=call.slug,
                from_=facts.from_,
                to=facts.to,
                direction=facts.direction,
                state=call.progress.state.name.lower() if isinstance(call, Dial) else "ringing",
            )
        )
    return Ringing(calls=lines)


def _line(registry: AgentRegistry, supply: Supply, agent: Agent) -> AgentLine:
    return AgentLine(
        slug=agent.key.slug,
        name=agent.agent_id,
        online=agent.online,
        calls=len(registry.calls.of_agent(agent.key)),
        channels=[ChannelLine(type=channel.type, ref=channel.ref) for channel in agent.channels.values()],
        model=_model(supply, agent),
    )


def _model(supply: Supply, agent: Agent) -> str:
    try:
        config = supply.resolve(agent.key.org_id, [agent.layer])
    except ConfigError:
        return ""
    return "" if config.llm is None else f"{config.llm.provider}:{config.llm.model}"


class Pulse:
    """Reads how the gateway fares. Shares are of the time since it was last read."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._began = clock.now()
        self._read = (clock.now(), time.process_time())
        self._share = 0.0

    def read(self, calls: Calls, chats: Chats, org_id: str, connections: int) -> Health:
        """As things stand. Counts of agents are those of the organisation, all else is the whole gateway's."""
        return Health(
            uptime_seconds=round(self._clock.now() - self._began, 1),
            calls=len(calls),
            max_calls=self._settings.max_concurrent_calls,
            chats=len(chats),
            connections=connections,
            agents=len(calls.registry.of_org(org_id)),
            loop_lag_ms=round(calls.lag * 1000, 1),
            memory_mb=_memory_mb(),
            cpu_percent=self._cpu_percent(),
            store="redis" if self._settings.redis_url is not None else "memory",
            store_reachable=calls.registry.store.reachable,
            engines=_vendors(sorted(self._settings.vendor_keys)),
        )

    def _cpu_percent(self) -> float:
        # The only use of another clock than the one of the calls: the processor's time is not theirs.
        now, used = self._clock.now(), time.process_time()
        before, used_before = self._read
        if now - before >= 1.0:
            self._share = round(100 * (used - used_before) / (now - before), 1)
            self._read = (now, used)
        return self._share


def _memory_mb() -> float:
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE, 1)


def _vendors(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != "deepgram-flux"]
