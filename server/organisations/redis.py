"""Organisations in Redis: `keys:<SHA-256 of the key, hex>` holds an organisation's id, `org:<id>` is a hash about it.

Hashes of organisations have the fields `name`, and `limits`, `twilio` and `credentials` as JSON; all may be missing,
and so may the hash. What `voice-gateway keys` knows of a key beside its organisation is in the hash `key:<SHA-256>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from server.auth import Source
from server.organisations.directory import Organisations
from server.organisations.entries import BadEntry, is_org_id, read_hash
from server.organisations.roll import KnownKey, Organisation, Roll

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK_SECONDS: Final = 2.0
"""How often it is read."""
_DEADLINE: Final = 5.0
_BATCH: Final = 500
_KEYS: Final = "keys:"
_ORG: Final = "org:"
_ABOUT: Final = "key:"


class RedisUnavailable(Exception):
    """Redis cannot be asked. The text holds no secret."""


class OrganisationsRedis:
    """The organisations in one Redis. Make it inside the event loop."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            decode_responses=True,
            encoding_errors="replace",
            # Measured by us: see `server.store.connection`.
            socket_timeout=None,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 1),
            protocol=2,
        )
        self._good: dict[str, Organisation] = {}
        self._told: dict[str, str] = {}

    async def follow(self, organisations: Organisations) -> None:
        """Read it every `LOOK_SECONDS`. Runs until cancelled.

        What Redis said last holds while it is away, and when another one comes back in its place that knows no key at
        all: it lost its memory, nobody revoked everything.
        """
        before: Roll | None = None
        run_id = ""
        away = lost = False
        while True:
            try:
                which, roll = await self._run_id(), await self.load()
            except RedisUnavailable as error:
                if not away:
                    log.warning("organisations_unreadable", source="redis", why=str(error))
                away = True
            except Exception:
                # The root of this work: what nobody foresaw must not take the gateway with it.
                if not away:
                    log.exception("organisations_unreadable", source="redis")
                away = True
            else:
                away = False
                if before is not None and before.keys and not roll.keys and which != run_id:
                    if not lost:
                        log.error("organisations_lost", source="redis", kept="what it said before it restarted")
                    lost = True
                else:
                    lost, run_id = False, which
                    if roll != before:
                        organisations.learn(Source.REDIS, roll)
                    before = roll
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def complaints(self) -> Mapping[str, str]:
        """What is wrong with organisations, as of the last time they were read."""
        return self._told

    async def load(self) -> Roll:
        """All that is there. Raises RedisUnavailable."""
        return await self._within_deadline(self._load())

    async def persists(self) -> bool:
        """Whether Redis writes anything to disk, as far as it says. Raises RedisUnavailable."""

        async def ask() -> bool:
            try:
                said = [await self._client.config_get(name) for name in ("save", "appendonly")]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            except ResponseError:
                return True  # it is somebody else's, who does not tell
            save, append = (cast("dict[str, str]", answer) for answer in said)
            return bool(save.get("save")) or append.get("appendonly") != "no"

        return await self._within_deadline(ask())

    async def keys(self) -> list[KnownKey]:
        """All keys with what is known of them. Raises RedisUnavailable."""

        async def read() -> list[KnownKey]:
            roll = await self._load()
            about = await self._hashes([_ABOUT + key.digest.hex() for key in roll.keys])
            return [_with_facts(key, facts or {}) for key, facts in zip(roll.keys, about, strict=True)]

        return await self._within_deadline(read())

    async def add(self, key: KnownKey) -> None:
        """A key is good from now on. Raises RedisUnavailable."""
        digest = key.digest.hex()
        facts = {"preview": key.preview, "name": key.name, "created": key.created}
        pipe = self._client.pipeline(transaction=True)
        pipe.set(_KEYS + digest, key.org_id)
        for name, value in facts.items():
            pipe.hset(_ABOUT + digest, name, value)
        await self._within_deadline(pipe.execute())

    async def remove(self, digest: bytes) -> None:
        """A key is not good any more. Raises RedisUnavailable."""
        await self._within_deadline(self._client.delete(_KEYS + digest.hex(), _ABOUT + digest.hex()))

    async def aclose(self) -> None:
        """Let go of the sockets."""
        await self._client.aclose()

    async def _run_id(self) -> str:
        """Which Redis this is; another one after each restart."""
        info = await self._within_deadline(self._client.info("server"))  # pyright: ignore[reportUnknownMemberType]
        return str(cast("dict[str, object]", info).get("run_id", ""))

    async def _load(self) -> Roll:
        names = await self._names(_KEYS)
        digests = {name: _digest(name.removeprefix(_KEYS)) for name in names}
        names = [name for name in names if digests[name]]
        keys: list[KnownKey] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            owners = cast("list[str | None]", await self._client.mget(batch))
            keys += [
                KnownKey(digests[name], owner, "pk_…")
                for name, owner in zip(batch, owners, strict=True)
                if owner is not None and is_org_id(owner)
            ]
        described = await self._names(_ORG)
        found = await self._hashes(described)
        orgs = {name.removeprefix(_ORG): fields for name, fields in zip(described, found, strict=True)}
        good = {org_id: one for org_id, fields in orgs.items() if (one := self._read(org_id, fields)) is not None}
        self._good = good
        # An organisation whose limits nobody can read is not let in without any.
        broken = orgs.keys() - good.keys()
        return Roll(good, tuple(sorted((key for key in keys if key.org_id not in broken), key=lambda key: key.digest)))

    def _read(self, org_id: str, fields: Mapping[str, str] | None) -> Organisation | None:
        """What a hash says; if it cannot be used, what it said before."""
        try:
            if not is_org_id(org_id) or fields is None:
                raise BadEntry(f"{org_id[:64]!r} is no organisation's id" if fields is not None else "is not a hash")
            one = read_hash(org_id, fields)
        except BadEntry as bad:
            if self._told.get(org_id) != str(bad):
                log.error("organisation_unusable", source="redis", org=org_id[:64], why=str(bad))
            self._told[org_id] = str(bad)
            return self._good.get(org_id)
        self._told.pop(org_id, None)
        return one

    async def _names(self, prefix: str) -> list[str]:
        scan = cast("Callable[..., AsyncIterator[str]]", self._client.scan_iter)
        # Redis may tell a name twice while its table grows or shrinks.
        return list(dict.fromkeys([name async for name in scan(match=prefix + "*", count=1000)]))

    async def _hashes(self, names: Sequence[str]) -> list[dict[str, str] | None]:
        """Their fields; None for what is no hash."""
        found: list[dict[str, str] | None] = []
        for start in range(0, len(names), _BATCH):
            pipe = self._client.pipeline(transaction=False)
            for name in names[start : start + _BATCH]:
                pipe.hgetall(name)
            answers = cast("list[object]", await pipe.execute(raise_on_error=False))
            for answer in answers:
                if isinstance(answer, RedisError) and not isinstance(answer, ResponseError):
                    raise answer
                found.append(cast("dict[str, str]", answer) if isinstance(answer, dict) else None)
        return found

    async def _within_deadline(self, question: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_DEADLINE):
                return await question
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnavailable(type(error).__name__) from None


def _with_facts(key: KnownKey, facts: Mapping[str, str]) -> KnownKey:
    preview = facts.get("preview", key.preview)
    return replace(key, preview=preview, name=facts.get("name", ""), created=facts.get("created", ""))


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return b""
    return digest if len(digest) == 32 else b""
