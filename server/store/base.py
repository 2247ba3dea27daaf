"""What several nodes must agree on: who holds which agent and number, who calls a development agent, single-use tokens.

One small interface with two forms: `server.store.memory` for a gateway that is one process, `server.store.redis` for
those that share a Redis.
"""

from __future__ import annotations

import hashlib
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


def token_digest(token: str) -> str:
    """What is kept in place of a token: who reads the store learns none."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class StoreUnavailable(Exception):
    """What others share cannot be asked now. It may be later; whether this was carried out is not known."""


class Store(Protocol):
    """Shared facts. Each method is atomic. Time to live is in seconds.

    A claim belongs to the node (process) that made it, and is free when that node is gone. Claims, `callers` and tokens
    raise `StoreUnavailable` when the store cannot be asked, except for what this node is known to have. What is given
    back or kept (`release_…`, `keep_callers`) never raises: it is said again when the store is back.
    """

    @property
    def reachable(self) -> bool:
        """Whether the store answers."""
        ...

    async def run(self) -> None:
        """Keep this node's claims. Runs until cancelled, if there is anything to do; start it once."""
        ...

    async def claim_agent(self, agent: AgentKey, holder: str, replacing: str = "") -> str:
        """Make `holder` (a connection id) the agent's holder if it has none, or if its holder is `replacing`.

        Answers who holds it now: success is getting `holder` back. Only connections of this node can be replaced. A
        holder on another node is answered once that node has been seen to be there, which may take as long as it takes
        to find out that it is not.
        """
        ...

    async def release_agent(self, agent: AgentKey, holder: str) -> None:
        """Free the agent if `holder` still holds it."""
        ...

    async def holder_of(self, agent: AgentKey) -> str:
        """The connection that holds the agent now, on whichever node; "" for none."""
        ...

    async def claim_number(self, number: str, agent: AgentKey, replacing: AgentKey | None = None) -> AgentKey:
        """Put the agent on a number (normalised number or SIP address).

        Within one organisation a number has at most one production agent and any number of others; another
        organisation gets none. `replacing` names a production agent of the same organisation and node that may be
        pushed off. Answers `agent` on success, else who is in the way; on another node as with `claim_agent`.
        """
        ...

    async def in_production(self, number: str) -> bool:
        """Whether a production agent is on that number now, on whichever node."""
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

    async def see_token(self, token: str) -> bytes | None:
        """What would be taken now; it stays."""
        ...

    async def take_token(self, token: str) -> bytes | None:
        """Take it; None if unknown, expired or taken before."""
        ...

    async def close(self) -> None:
        """Give back what this node has, and let go of connections."""
        ...
