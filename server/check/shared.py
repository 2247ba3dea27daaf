"""Redis: is it there, is it new enough, how fast does it answer, and does its clock agree with ours."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from server.check.findings import DEADLINE, Finding, Visit, failed, ok, warning
from server.organisations.redis import OrganisationsRedis, RedisUnavailable

_OLDEST: Final = (6, 2)
_SLOW: Final = 0.05
_SKEW: Final = 2.0


async def check_redis(visit: Visit) -> list[Finding]:
    """What REDIS_URL leads to."""
    if visit.settings.redis_url is None:
        return [ok("Redis", "REDIS_URL is not set: one gateway keeps everything in memory")]
    url = visit.settings.redis_url.get_secret_value()
    try:
        client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_connect_timeout=DEADLINE, protocol=2
        )
    except ValueError:
        return [failed("Redis", "REDIS_URL is no address that the Redis client understands", "See docs/redis.md.")]
    try:
        async with asyncio.timeout(DEADLINE):
            findings = await _asked(client, visit)
    except (AuthenticationError, AuthorizationError, NoPermissionError):
        return [failed("Redis", "refuses the user or password of REDIS_URL", "Put the right ones into REDIS_URL.")]
    except (RedisError, OSError, TimeoutError) as error:
        advice = "Start Redis, or correct REDIS_URL. Until it answers, no agent can register."
        return [failed("Redis", f"does not answer ({type(error).__name__})", advice)]
    finally:
        await client.aclose()
    return [*findings, *await _organisations(url)]


async def _asked(client: Redis, visit: Visit) -> list[Finding]:
    await client.execute_command("PING")  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]
    clock = visit.clock
    begun = clock.now()
    seconds, micros = await client.time()  # pyright: ignore[reportUnknownMemberType]
    took = clock.now() - begun
    skew = clock.wall() - took / 2 - (int(seconds) + int(micros) / 1e6)
    info = cast("dict[str, object]", await client.info("server"))  # pyright: ignore[reportUnknownMemberType]
    findings = [_version(str(info.get("redis_version", "")), took)]
    if str(info.get("redis_mode", "")) == "cluster":
        advice = "Use a Redis that is not a cluster, alone or with replicas (docs/redis.md)."
        findings.append(failed("Redis", "is a Redis Cluster, which the gateway's scripts cannot use", advice))
    if abs(skew) > _SKEW:
        advice = "Let both machines keep time by NTP."
        findings.append(warning("Redis", f"its clock and ours are {abs(skew):.0f} s apart", advice))
    return findings


def _version(version: str, took: float) -> Finding:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    text = f"{version} answers in {took * 1000:.1f} ms"
    if numbers and numbers < _OLDEST:
        return failed("Redis", text, "The gateway needs Redis 6.2 or newer.")
    if took > _SLOW:
        return warning("Redis", text, "Put it nearer: each registration and each token waits for it.")
    return ok("Redis", text)


async def _organisations(url: str) -> list[Finding]:
    redis = OrganisationsRedis(url)
    try:
        roll, persists = await redis.load(), await redis.persists()
    except RedisUnavailable:
        return [failed("organisations", "those in Redis cannot be read", "Redis may be too slow, or lack a right.")]
    finally:
        await redis.aclose()
    broken = [
        failed(f"org:{org_id}", text, "Correct the hash in Redis (docs/organisations.md).")
        for org_id, text in redis.complaints.items()
    ]
    if roll.keys and not persists:
        advice = "Let that Redis write to disk (appendonly yes), or keep the keys in API_KEYS_FILE."
        broken.append(warning("organisations", "their keys are in a Redis that forgets them when it restarts", advice))
    return [*broken, ok("organisations", f"{len(roll.keys)} keys in Redis")] if roll.keys or broken else []
