"""The way to Redis: every question has a deadline, and one that is not answered tells at once that Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from server.store.base import StoreUnavailable
from server.store.scripts import Call

log = structlog.get_logger(__name__)

Answer = list[bytes | int | None]
T = TypeVar("T")

_CONNECTIONS: Final = 8
_MAX_ERROR: Final = 200


@dataclass(frozen=True, slots=True)
class StoreTimes:
    """Seconds."""

    lease: float = 10.0
    """How long a node that falls silent keeps what it has."""
    renew: float = 3.0
    """How often a node renews its lease."""
    retry: float = 1.0
    """How often Redis is looked for while it is away."""
    patience: float = 6.0
    """How long a claim waits for Redis to come back: longer than `renew` and `retry` together."""
    poll: float = 0.25
    """How often a claim that waits looks again."""
    believed: float = 1.0
    """How long a node that renewed its lease before our eyes is believed to be there."""
    connect: float = 1.0
    deadline: float = 1.0
    """For a question and its answer, including the one repetition after a lost connection."""
    claim: float = 600.0
    """After that a claim is forgotten that nobody put back."""
    sweep: float = 200.0
    """How often all claims are put back."""
    callers: float = 24 * 3600.0
    """How long callers are kept of whom nobody said how long."""


def is_redis_address(url: str) -> bool:
    """Whether the client can make sense of it."""
    try:
        parse_url(url)
    except ValueError:
        return False
    return True


class RedisConnection:
    """Asks Redis. Once it has not answered, nothing but `look` asks any more, so that nobody waits in vain twice."""

    def __init__(self, url: str, times: StoreTimes) -> None:
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            max_connections=_CONNECTIONS,
            timeout=times.deadline,
            # The client would measure it with `asyncio.wait_for`, which in Python 3.11 can swallow a cancellation.
            socket_timeout=None,
            socket_connect_timeout=times.connect,
            retry=Retry(NoBackoff(), 1),
            protocol=2,
        )
        self._client = Redis.from_pool(pool)
        self._scripts: dict[str, AsyncScript] = {}
        self._deadline = times.deadline
        self.reachable = False
        self.lost = asyncio.Event()
        """Set when Redis has gone."""
        self._told = False

    async def look(self, call: Call) -> Answer:
        """Like `run`, also while Redis is away; its outcome says whether it is back."""
        try:
            answer = await self._within_deadline(lambda: self._eval(call))
        except StoreUnavailable as error:
            self._away(error)
            raise
        if not self.reachable:
            self.reachable, self._told = True, False
            log.info("store_reachable")
        return answer

    async def run(self, call: Call) -> Answer:
        """A script, in one step. Raises `StoreUnavailable`; then it may have been carried out or not."""
        return await self._ask(lambda: self._eval(call))

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for so many seconds. Raises `StoreUnavailable`."""
        await self._ask(lambda: self._client.set(key, value, px=milliseconds(ttl)))

    async def get(self, key: str) -> bytes | None:
        """A value, if it is there. Raises `StoreUnavailable`."""
        return cast("bytes | None", await self._ask(lambda: self._client.get(key)))

    async def take(self, key: str) -> bytes | None:
        """A value, for whoever asks first. Raises `StoreUnavailable`."""
        return cast("bytes | None", await self._ask(lambda: self._client.getdel(key)))

    async def close(self) -> None:
        """Let go of the sockets."""
        self.reachable = False
        await self._client.aclose()

    async def _eval(self, call: Call) -> Answer:
        if call.script not in self._scripts:
            self._scripts[call.script] = self._client.register_script(call.script)
        return cast("Answer", await self._scripts[call.script](call.keys, call.arguments))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        if not self.reachable:
            raise StoreUnavailable("Redis is away")
        try:
            return await self._within_deadline(question)
        except StoreUnavailable as error:
            self._away(error)
            raise

    async def _within_deadline(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._deadline):
                return await question()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}"[:_MAX_ERROR]) from error

    def _away(self, error: StoreUnavailable) -> None:
        if not self._told:
            log.warning("store_unreachable", error=str(error))
        self.reachable, self._told = False, True
        self.lost.set()


def milliseconds(seconds: float) -> int:
    """As Redis counts; at least one."""
    return max(1, round(seconds * 1000))
