"""One agent, as the gateway knows it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from server.agents.channels import Channel
from server.agents.link import AgentLink
from server.origins import AllowedOrigins
from server.store.base import AgentKey, Callers
from wire.layers import Layer


@dataclass(frozen=True, slots=True)
class RegistryTimes:
    """Seconds (protocol §1.4, behaviour §3.2)."""

    grace: float = 20.0
    """How long live calls wait for their agent to come back (`AGENT_GRACE`)."""
    remembered: float = 10.0
    """How long an absent agent is known at least, so that a webhook may wait for it."""
    settle: float = 10.0
    """How long a returned agent has to add its channels again before the others go."""


@dataclass(slots=True, eq=False)
class Agent:
    """One agent. `link` is None while its connection is away."""

    key: AgentKey
    agent_id: str
    """What its connection calls it: echoed exactly, always."""
    link: AgentLink | None
    layer: Layer
    allowed_origins: AllowedOrigins = field(default_factory=AllowedOrigins)
    history_save: bool = False
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])
    callers: Callers | None = None
    """Who reaches it on a number it shares (development agents only)."""
    offline_since: float | None = None
    settles_at: float | None = None

    @property
    def online(self) -> bool:
        """Whether its program can be told anything now."""
        return self.link is not None and self.link.connected


MAX_SLUG: Final = 128
_NOT_SLUG: Final = re.compile(r"[^a-z0-9-]")


def slugify(agent_id: str) -> str:
    """The canonical form of an agent id: what two spellings of one agent have in common (protocol §1.5)."""
    bare = agent_id.rpartition(":")[2].strip().lower()
    return re.sub(r"-+", "-", _NOT_SLUG.sub("", re.sub(r"[_\s]+", "-", bare))).strip("-")
