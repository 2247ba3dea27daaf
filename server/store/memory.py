"""The store of a gateway that is one process: plain dictionaries, forgotten at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from server.store.base import AgentKey, Callers, token_digest


@dataclass(slots=True)
class _Number:
    """Who is on one number. All belong to `org_id`."""

    org_id: str
    production: AgentKey | None = None
    others: set[AgentKey] = field(default_factory=set[AgentKey])

    @property
    def somebody(self) -> AgentKey | None:
        return self.production or next(iter(self.others), None)


class MemoryStore:
    """`Store` in memory. `now` gives monotonic seconds; expired things are dropped when something is put."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._agents: dict[AgentKey, str] = {}
        self._numbers: dict[str, _Number] = {}
        self._callers: dict[AgentKey, tuple[Callers, float]] = {}
        self._tokens: dict[str, tuple[bytes, float]] = {}

    @property
    def reachable(self) -> bool:
        """See `Store`."""
        return True

    async def run(self) -> None:
        """See `Store`."""

    async def claim_agent(self, agent: AgentKey, holder: str, replacing: str = "") -> str:
        """See `Store`."""
        current = self._agents.get(agent)
        if current is None or (replacing and current == replacing):
            self._agents[agent] = holder
        return self._agents[agent]

    async def release_agent(self, agent: AgentKey, holder: str) -> None:
        """See `Store`."""
        if self._agents.get(agent) == holder:
            del self._agents[agent]

    async def holder_of(self, agent: AgentKey) -> str:
        """See `Store`."""
        return self._agents.get(agent, "")

    async def claim_number(self, number: str, agent: AgentKey, replacing: AgentKey | None = None) -> AgentKey:
        """See `Store`."""
        record = self._numbers.setdefault(number, _Number(agent.org_id))
        if record.org_id != agent.org_id:
            return record.somebody or AgentKey(record.org_id, "")
        if not agent.production:
            record.others.add(agent)
        elif record.production in (None, agent, replacing):
            record.production = agent
        else:
            return record.production
        return agent

    async def in_production(self, number: str) -> bool:
        """See `Store`."""
        record = self._numbers.get(number)
        return record is not None and record.production is not None

    async def release_number(self, number: str, agent: AgentKey) -> None:
        """See `Store`."""
        record = self._numbers.get(number)
        if record is None:
            return
        record.others.discard(agent)
        if record.production == agent:
            record.production = None
        if record.somebody is None:
            del self._numbers[number]

    async def keep_callers(self, agent: AgentKey, callers: Callers | None, ttl: float | None = None) -> None:
        """See `Store`."""
        now = self._now()
        self._callers = {key: kept for key, kept in self._callers.items() if kept[1] > now}
        if callers is None:
            self._callers.pop(agent, None)
        else:
            self._callers[agent] = (callers, float("inf") if ttl is None else now + ttl)

    async def callers(self, agent: AgentKey) -> Callers | None:
        """See `Store`."""
        kept = self._callers.get(agent)
        return kept[0] if kept is not None and kept[1] > self._now() else None

    async def put_token(self, token: str, value: bytes, ttl: float) -> None:
        """See `Store`."""
        now = self._now()
        # Insertion order is roughly expiry order: only the front needs a look.
        while self._tokens and next(iter(self._tokens.values()))[1] <= now:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token_digest(token)] = (value, now + ttl)

    async def see_token(self, token: str) -> bytes | None:
        """See `Store`."""
        value, expires = self._tokens.get(token_digest(token), (b"", 0.0))
        return value if expires > self._now() else None

    async def take_token(self, token: str) -> bytes | None:
        """See `Store`."""
        value, expires = self._tokens.pop(token_digest(token), (b"", 0.0))
        return value if expires > self._now() else None

    async def close(self) -> None:
        """See `Store`."""
        self._tokens.clear()
