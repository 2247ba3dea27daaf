"""The store of gateways that share a Redis.

A node is one gateway process. What it claims is its own as long as it renews its lease; a node that falls silent loses
everything at once, so that a crash frees its agents and numbers without anybody cleaning up. What this node means to
have is noted here as well: while Redis is away it is answered from the notes, and when Redis is back (perhaps another
one, perhaps empty) it is told all of it again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec
import structlog

from pipelines.clock import Clock
from server.store import scripts
from server.store.base import AgentKey, Callers, StoreUnavailable
from server.store.connection import RedisConnection, StoreTimes, milliseconds
from server.store.scripts import Claim, Claimant, InTheWay, OnNumber, claim_key

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Kept:
    """Callers as they are to be written; None forgets them. `ttl` None: until told otherwise."""

    callers: Callers | None
    ttl: float | None
    written: bool = False


class RedisStore:
    """`Store` in Redis. Make it inside the event loop; nothing works before `run` has begun."""

    def __init__(self, url: str, clock: Clock, times: StoreTimes | None = None) -> None:
        self._clock = clock
        self._times = times or StoreTimes()
        self._redis = RedisConnection(url, self._times)
        lease, kept = milliseconds(self._times.lease), milliseconds(self._times.claim)
        self._me = Claimant(secrets.token_hex(8), lease, kept)
        self._order = asyncio.Lock()
        """One change at a time: what is noted is then always what Redis was told last."""
        self._wanted: dict[Claim, str] = {}
        """What this node means to have; for agents, by which connection."""
        self._granted: set[Claim] = set()
        """What is this node's as far as Redis was heard to say, wanted or not."""
        self._owed: set[Claim] = set()
        """What Redis may have otherwise than it is noted."""
        self._callers: dict[AgentKey, _Kept] = {}
        self._renewals = 0
        self._run_id: bytes | int | None = None
        self._swept_at = float("-inf")
        self._others_first = float("-inf")
        """Until then, nothing is claimed that was not this node's before Redis was gone."""
        self._seen: dict[str, float] = {}
        """When other nodes renewed their leases before our eyes."""
        self._closed = False

    @property
    def reachable(self) -> bool:
        """See `Store`."""
        return self._redis.reachable

    # --- agents and numbers ---

    async def claim_agent(self, agent: AgentKey, holder: str, replacing: str = "") -> str:
        """See `Store`."""
        return await self._claim(agent, holder, replacing) or holder

    async def release_agent(self, agent: AgentKey, holder: str) -> None:
        """See `Store`."""
        if self._wanted.get(agent) == holder:
            await self._release(agent)

    async def holder_of(self, agent: AgentKey) -> str:
        """See `Store`."""
        (holder,) = await self._redis.run(scripts.holder_of(agent))
        return str(holder, "utf-8") if isinstance(holder, bytes) else ""

    async def claim_number(self, number: str, agent: AgentKey, replacing: AgentKey | None = None) -> AgentKey:
        """See `Store`."""
        field = scripts.on_number(replacing) if replacing is not None else ""
        way = await self._claim(OnNumber(number, agent), "", field)
        if way is not None:
            org_id, _, slug = way.rpartition(" ")
            return AgentKey(org_id, slug)
        if replacing not in (None, agent):
            self._wanted.pop(OnNumber(number, replacing), None)
        return agent

    async def in_production(self, number: str) -> bool:
        """See `Store`."""
        return (await self._redis.run(scripts.in_production(number)))[0] == 1

    async def release_number(self, number: str, agent: AgentKey) -> None:
        """See `Store`."""
        claim = OnNumber(number, agent)
        if claim in self._wanted:
            await self._release(claim)

    # --- callers and tokens ---

    async def keep_callers(self, agent: AgentKey, callers: Callers | None, ttl: float | None = None) -> None:
        """See `Store`."""
        self._callers[agent] = _Kept(callers, ttl)
        with suppress(StoreUnavailable):
            await self._write_callers(agent)

    async def callers(self, agent: AgentKey) -> Callers | None:
        """See `Store`."""
        kept = self._callers.get(agent)
        if kept is not None and not kept.written:
            return kept.callers
        value = await self._redis.get(scripts.callers_key(agent))
        return None if value is None else msgspec.json.decode(value, type=Callers)

    async def put_token(self, token: str, value: bytes, ttl: float) -> None:
        """See `Store`."""
        await self._redis.put(scripts.token_key(token), value, ttl)

    async def see_token(self, token: str) -> bytes | None:
        """See `Store`."""
        return await self._redis.get(scripts.token_key(token))

    async def take_token(self, token: str) -> bytes | None:
        """See `Store`."""
        return await self._redis.take(scripts.token_key(token))

    # --- being there ---

    async def run(self) -> None:
        """See `Store`."""
        while True:
            try:
                await self._renew()
            except StoreUnavailable:
                pass
            except Exception:
                log.exception("store_upkeep_failed")
            self._redis.lost.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.renew if self.reachable else self._times.retry):
                    await self._redis.lost.wait()

    async def close(self) -> None:
        """See `Store`."""
        async with self._order:
            self._closed = True
            with suppress(StoreUnavailable):
                await self._redis.run(self._me.leave())
            await self._redis.close()

    # --- inside ---

    async def _claim(self, claim: Claim, holder: str, replacing: str) -> str | None:
        """Get it for `holder`: None on success, else who has it."""
        give_up = self._clock.now() + self._times.patience
        before: InTheWay | None = None
        while True:
            try:
                way = await self._ask(claim, holder, replacing)
            except StoreUnavailable:
                if claim in self._granted and not self.reachable:
                    return self._claim_from_notes(claim, holder, replacing)
                if self._closed or self._clock.now() >= give_up:
                    raise
            else:
                if way is None:
                    return None
                if way.node == self._me.node or self._is_there(way, before):
                    return way.who
                before = way
            await asyncio.sleep(self._times.poll)

    @asynccontextmanager
    async def _in_order(self) -> AsyncGenerator[None]:
        """Our turn with Redis; nobody waits for it while Redis is away."""
        if not self.reachable:
            raise StoreUnavailable("Redis is away")
        async with self._order:
            yield

    async def _ask(self, claim: Claim, holder: str, replacing: str) -> InTheWay | None:
        async with self._in_order():
            if claim not in self._granted and self._clock.now() < self._others_first:
                raise StoreUnavailable("nodes are still putting back what they had")
            return await self._tell(claim, holder, replacing)

    def _claim_from_notes(self, claim: Claim, holder: str, replacing: str) -> str | None:
        current = self._wanted.get(claim, holder)
        if current not in (holder, replacing):
            return current
        self._wanted[claim] = holder
        self._owed.add(claim)
        return None

    def _is_there(self, way: InTheWay, before: InTheWay | None) -> bool:
        """Whether the other node has renewed its lease since `before`, or before our eyes a moment ago.

        A lease that is there proves nothing: its node may have crashed seconds ago, and an SDK that is refused then may
        never ask again (protocol §1.6).
        """
        now = self._clock.now()
        if before is not None and before.node == way.node and before.lease != way.lease:
            recent = {node: at for node, at in self._seen.items() if now < at + self._times.believed}
            self._seen = {**recent, way.node: now}
        return now < self._seen.get(way.node, float("-inf")) + self._times.believed

    async def _release(self, claim: Claim) -> None:
        # Noted before anything waits: whoever claims it meanwhile has it in the notes again when our turn comes.
        del self._wanted[claim]
        self._owed.add(claim)
        with suppress(StoreUnavailable):
            await self._settle(claim)

    async def _settle(self, claim: Claim) -> None:
        """Tell Redis how it is noted."""
        async with self._in_order():
            if claim not in self._owed:
                return
            holder = self._wanted.get(claim)
            if holder is None:
                await self._give_back(claim)
                return
            had = claim in self._granted
            way = await self._tell(claim, holder, scripts.PUT_BACK)
        if way is not None and had:
            log.warning("claim_lost", claim=claim_key(claim), node=way.node)

    async def _tell(self, claim: Claim, holder: str, replacing: str) -> InTheWay | None:
        """Claim it in Redis, and note the outcome."""
        if self._closed:
            raise StoreUnavailable("the gateway stops")
        try:
            answer = await self._redis.run(self._me.claim(claim, holder, replacing))
        except BaseException:
            self._owed.add(claim)
            raise
        way = scripts.in_the_way(answer)
        if way is None:
            self._granted.add(claim)
            # What was put back may have been released while Redis was asked: then that is still owed.
            if replacing != scripts.PUT_BACK or self._wanted.get(claim) == holder:
                self._wanted[claim] = holder
                self._owed.discard(claim)
            return None
        if not way.node:
            self._redis.lost.set()
            raise StoreUnavailable("the lease has run out")
        if way.node != self._me.node:
            self._granted.discard(claim)
        return way

    async def _give_back(self, claim: Claim) -> None:
        await self._redis.run(self._me.release(claim))
        self._granted.discard(claim)
        if claim not in self._wanted:
            self._owed.discard(claim)

    async def _renew(self) -> None:
        """Show that this node is there. When Redis may have missed something, it is told everything again."""
        async with self._order:
            now = await self._renew_lease()
        for claim in list(self._owed):
            if self._clock.now() >= now + self._times.renew:
                return
            await self._settle(claim)
        for agent in [agent for agent, kept in self._callers.items() if not kept.written]:
            await self._write_callers(agent)

    async def _renew_lease(self) -> float:
        expected = str(self._renewals).encode()
        self._renewals += 1
        before, run_id = await self._redis.look(self._me.renew(str(self._renewals)))
        now = self._clock.now()
        if self._run_id is not None and (before is None or run_id != self._run_id):
            # Redis was away for long, or is another one. What nodes had is theirs to put back before others ask for it.
            self._others_first = now + self._times.renew + self._times.retry
            log.info("store_claims_put_back", claims=len(self._wanted))
        if before != expected or run_id != self._run_id or now >= self._swept_at + self._times.sweep:
            self._run_id, self._swept_at = run_id, now
            self._owed |= self._wanted.keys()
            for kept in self._callers.values():
                kept.written = False
        return now

    async def _write_callers(self, agent: AgentKey) -> None:
        async with self._in_order():
            kept = self._callers.get(agent)
            if kept is None or kept.written or self._closed:
                return
            value = b"" if kept.callers is None else msgspec.json.encode(kept.callers)
            ttl = milliseconds(self._times.callers if kept.ttl is None else kept.ttl)
            await self._redis.run(self._me.keep_callers(agent, value, ttl))
            kept.written = True
            done = kept.callers is None or kept.ttl is not None
            if done and self._callers.get(agent) is kept:
                del self._callers[agent]
