"""Who is let in: keys that are good, connections and agents for which an organisation has room (behaviour §2)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from pipelines.clock import Clock
from server.agents.agent import slugify
from server.agents.channels import Refusal
from server.agents.link import AgentLink, LinkState
from server.agents.registry import AgentRegistry
from server.auth import digest_of, redact
from server.organisations.directory import Organisations
from server.store.base import AgentKey
from server.throttle import Failures
from wire.commands import AgentCreate, Connect
from wire.link_events import ErrorEvent

log = structlog.get_logger(__name__)

_BAD_KEYS_BURST: Final = 5
_BAD_KEYS_RATE: Final = 0.1
_FULL: Final = "SERVER_AT_CAPACITY"


class Admission:
    """Decides about the connections in `links`, which somebody else keeps."""

    def __init__(
        self, organisations: Organisations, registry: AgentRegistry, clock: Clock, links: Collection[AgentLink]
    ) -> None:
        self._organisations = organisations
        self._keys = organisations.keys
        self._registry = registry
        self._links = links
        self._clock = clock
        self._bad_keys = Failures(_BAD_KEYS_RATE, _BAD_KEYS_BURST)
        self._coming: set[AgentKey] = set()
        self._keys.on_change(self._revoke)

    def connect(self, link: AgentLink, command: Connect, penalty: float) -> bool:
        """Accept or refuse a key; `penalty` is how long the socket of a guesser is held. Never blocks.

        False: the organisation has as many connections as it may, and `connect_if_room` shall see who is still there.
        """
        org_id = self._keys.org_of(command.api_key)
        if org_id is None:
            self._refuse_key(link, command, penalty)
        elif self._full(org_id):
            return False
        else:
            self._accept(link, command, org_id)
        return True

    async def connect_if_room(self, link: AgentLink, command: Connect) -> None:
        """Accept a good key once connections have made room that nobody answers on, or say that there is none."""
        org_id = self._keys.org_of(command.api_key)
        if org_id is None or link.state is not LinkState.OPEN:
            return
        async with asyncio.TaskGroup() as tasks:
            for other in self._of_org(org_id):
                tasks.create_task(self._registry.keep_if_alive(other))
        if link.state is not LinkState.OPEN:
            return
        if not self._full(org_id):
            self._accept(link, command, org_id)
            return
        limit = self._organisations.limits(org_id).connections
        log.warning("organisation_at_capacity", org=org_id, what="connections", limit=limit)
        text = "This organisation has no room for another connection"
        link.deliver(ErrorEvent(code=_FULL, error=text, used=len(self._of_org(org_id)), limit=limit))
        link.close(1008, _FULL)

    async def create(self, link: AgentLink, command: AgentCreate) -> str:
        """Create an agent as the registry does, if there is room for one more. Raises `Refusal`."""
        limit = self._organisations.limits(link.org_id).agents
        key = AgentKey(link.org_id, slugify(command.agent_id))
        if limit and self._registry.find(key) is None:
            coming = {one for one in self._coming if one.org_id == link.org_id and self._registry.find(one) is None}
            used = len(self._registry.of_org(link.org_id)) + len(coming - {key})
            if used >= limit:
                log.warning("organisation_at_capacity", org=link.org_id, what="agents", limit=limit)
                raise Refusal(_FULL, "This organisation has no room for another agent", used=used, limit=limit)
        mine = key not in self._coming
        self._coming.add(key)
        try:
            return await self._registry.create(link, command)
        finally:
            if mine:
                self._coming.discard(key)

    def _accept(self, link: AgentLink, command: Connect, org_id: str) -> None:
        link.key_digest = digest_of(command.api_key)
        link.accept(org_id)
        self._registry.join(link)
        log.info("agent_link_connected", connection=link.connection_id, org=org_id, key=redact(command.api_key))

    def _refuse_key(self, link: AgentLink, command: Connect, penalty: float) -> None:
        if self._keys.may_be_unread(command.api_key):
            # Not known to be bad: the client shall ask again when Redis has told.
            log.warning("key_cannot_be_looked_up", peer=link.peer, key=redact(command.api_key))
            link.close(1012, "service_restart")
            return
        now = self._clock.now()
        by_peer = self._bad_keys.too_many("peer " + link.peer, now)
        by_key = self._bad_keys.too_many("key " + command.api_key[:12], now)
        if not (by_peer or by_key):
            log.warning("bad_key", peer=link.peer, key=redact(command.api_key))
        link.refuse("INVALID_KEY", "Invalid API key", delay=penalty if by_peer or by_key else 0.0)

    def _full(self, org_id: str) -> bool:
        limit = self._organisations.limits(org_id).connections
        return 0 < limit <= len(self._of_org(org_id))

    def _of_org(self, org_id: str) -> list[AgentLink]:
        return [link for link in self._links if link.connected and link.org_id == org_id]

    def _revoke(self) -> None:
        """Keys have changed: who came with one that is not good any more has to go."""
        for link in list(self._links):
            if link.connected and self._keys.owner(link.key_digest) != link.org_id:
                log.warning("key_revoked", connection=link.connection_id, org=link.org_id)
                link.refuse("INVALID_KEY", "This API key was revoked")
