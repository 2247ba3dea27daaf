"""What several nodes must agree on: who holds which agent and number, who calls a development agent, single-use tokens.

One small interface with an in-memory form (`server.store.memory`) for a gateway that is one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

NON_PRODUCTION = ("dev-", "staging-")


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An agent's name within its organisation; `slug` is canonical (`server.agents.agent.slugify`)."""

    org_id: str
    slug: str

    @property
    def production(self) -> bool:
        """Development and staging agents share numbers with a production agent; they never own them (behaviour §4)."""
        return not self.slug.startswith(NON_PRODUCTION)


@dataclass(frozen=True, slots=True)
class Callers:
    """Who reaches a development agent on a number it shares: normalised numbers, and when that was said (epoch s)."""

    numbers: frozenset[str]
    set_at: float


class Store(Protocol):
    """Shared facts. Each method is atomic. Time to live is in seconds."""

    async def claim_agent(self, agent: AgentKey, holder: str, replacing: str = "") -> str:
        """Make `holder` (a connection id) the agent's holder if it has none, or if its holder is `replacing`.

        Answers who holds it now: success is getting `holder` back.
        """
        ...

    async def release_agent(self, agent: AgentKey, holder: str) -> None:
        """Free the agent if `holder` still holds it."""
        ...

    async def claim_number(self, number: str, agent: AgentKey, replacing: AgentKey | None = None) -> AgentKey:
        """Put the agent on a number (normalised number or SIP address).

        Within one organisation a number has at most one production agent and any number of others; another
        organisation gets none. `replacing` names a production agent of the same organisation that may be pushed
        off. Answers `agent` on success, else who is in the way.
        """
        ...

    async def release_number(self, number: str, agent: AgentKey) -> None:
        """Take the agent off that number; unknown is fine."""
        ...

    async def keep_callers(self, agent: AgentKey, callers: Callers | None, ttl: float | None = None) -> None:
        """Remember a development agent's callers (`None` forgets), for `ttl` seconds or until told otherwise."""
        ...

    async def callers(self, agent: AgentKey) -> Callers | None:
        """What was remembered last, unless it has expired."""
        ...

    async def put_token(self, token: str, value: bytes, ttl: float) -> None:
        """Keep something that may be taken once, within `ttl` seconds."""
        ...

    async def take_token(self, token: str) -> bytes | None:
        """Take it; None if unknown, expired or taken before."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
