"""What a token is worth: one session, of one agent, for a minute, whoever asks where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import msgspec
import pytest

from pipelines.clock import LoopClock
from server.store.base import AgentKey, Store, StoreUnavailable
from server.store.memory import MemoryStore
from server.tokens import TokenChannel, TokenRefused, Tokens
from tests.redis_server import Node, RedisServer, eventually, node
from tests.redis_server import redis_server as redis_server
from tests.virtual_time import event_loop_policy as event_loop_policy

MARA = AgentKey("org_a", "mara")
APP = "https://app.site.com"


def of(store: Store, per_agent: int = 0) -> Tokens:
    return Tokens(store, LoopClock(), per_agent)


@pytest.fixture
async def tokens() -> Tokens:
    return of(MemoryStore(LoopClock().now))


@pytest.fixture
async def nodes(redis_server: RedisServer) -> AsyncGenerator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        yield (await stack.enter_async_context(node(redis_server)), await stack.enter_async_context(node(redis_server)))


async def refusal(
    tokens: Tokens, token: str, channel: TokenChannel = "webrtc", origin: str | None = None, agent: str | None = None
) -> tuple[int, str]:
    """Status and code."""
    with pytest.raises(TokenRefused) as refused:
        await tokens.consume(channel, token, origin, agent)
    assert token[:12] not in refused.value.detail or not token
    return refused.value.status, refused.value.code


@pytest.mark.proves("row-179")
async def test_a_token_opens_one_session_only(tokens: Tokens) -> None:
    metadata = {"userId": msgspec.Raw(b'"1"')}
    token = (await tokens.mint("webrtc", MARA, metadata, None)).token
    grant = await tokens.consume("webrtc", token, None, None)
    assert grant.agent == MARA
    assert {key: bytes(value) for key, value in grant.metadata.items()} == {"userId": b'"1"'}
    assert await refusal(tokens, token) == (401, "UNAUTHORIZED")


@pytest.mark.proves("row-179")
async def test_a_token_lives_for_a_minute(tokens: Tokens) -> None:
    early, late = [(await tokens.mint("chat", MARA, {}, None)).token for _ in range(2)]
    await asyncio.sleep(59)
    await tokens.consume("chat", early, None, None)
    await asyncio.sleep(2)
    assert await refusal(tokens, late, "chat") == (401, "UNAUTHORIZED")


@pytest.mark.proves("row-179")
async def test_who_is_not_entitled_leaves_a_token_unused(tokens: Tokens) -> None:
    token = (await tokens.mint("webrtc", MARA, {}, APP)).token
    assert await refusal(tokens, token, "chat") == (401, "UNAUTHORIZED")
    assert await refusal(tokens, token, "chat", agent="zoe") == (401, "UNAUTHORIZED")
    for agent in ("zoe", "", "mar", "dev-mara"):
        assert await refusal(tokens, token, agent=agent) == (403, "FORBIDDEN")
    for origin in ("https://other.io", "null", "", "http://app.site.com", APP + ":8443", f"{APP}, {APP}", APP + "/"):
        assert await refusal(tokens, token, origin=origin) == (403, "ORIGIN_NOT_ALLOWED")
    assert (await tokens.consume("webrtc", token, "HTTPS://APP.site.com:443", "org_a:MARA")).agent == MARA


async def test_apps_send_no_origin_and_are_let_in(tokens: Tokens) -> None:
    token = (await tokens.mint("webrtc", MARA, {}, APP)).token
    assert (await tokens.consume("webrtc", token, None, None)).agent == MARA


async def test_a_token_of_a_backend_may_be_used_from_any_page(tokens: Tokens) -> None:
    token = (await tokens.mint("webrtc", MARA, {}, None)).token
    assert (await tokens.consume("webrtc", token, "https://any.where", None)).agent == MARA


async def test_guesses_open_nothing(tokens: Tokens) -> None:
    token = (await tokens.mint("webrtc", MARA, {}, None)).token
    guesses = ["", "wrtc_", token[:-1], token + "x", token.upper(), token.swapcase(), "cht_" + token[5:], token + "\0"]
    guesses += [" " + token, token[5:], "wrtc_" + "é" * 32, "wrtc_" + "\ud800" * 32, "wrtc_" + "*" * 32, "x" * 100_000]
    for guess in guesses:
        assert await refusal(tokens, guess) == (401, "UNAUTHORIZED")
        assert await refusal(tokens, guess, "chat") == (401, "UNAUTHORIZED")
    await tokens.consume("webrtc", token, None, None)


async def test_tokens_are_not_alike(tokens: Tokens) -> None:
    made = [(await tokens.mint("webrtc", MARA, {}, None)).token for _ in range(500)]
    assert len(set(made)) == 500
    assert all(len(set(column)) > 40 for column in list(zip(*made, strict=True))[5:])


async def test_the_store_learns_no_token() -> None:
    class Watched(MemoryStore):
        def __init__(self) -> None:
            super().__init__(LoopClock().now)

        @property
        def kept(self) -> str:
            return repr(self._tokens)

    store = Watched()
    token = (await of(store).mint("webrtc", MARA, {}, None)).token
    assert token[5:] not in store.kept


async def test_unused_tokens_of_one_agent_are_bounded() -> None:
    tokens = of(MemoryStore(LoopClock().now), per_agent=3)
    first = (await tokens.mint("webrtc", MARA, {}, None)).token
    await asyncio.sleep(30)
    for _ in range(2):
        await tokens.mint("chat", MARA, {}, None)
    with pytest.raises(TokenRefused) as refused:
        await tokens.mint("webrtc", MARA, {}, None)
    assert (refused.value.status, refused.value.code) == (429, "RATE_LIMITED")
    assert refused.value.headers["Retry-After"] == "30"
    await tokens.mint("webrtc", AgentKey("org_b", "mara"), {}, None)
    await tokens.consume("webrtc", first, None, None)
    await tokens.mint("webrtc", MARA, {}, None)
    await asyncio.sleep(61)
    for _ in range(3):
        await tokens.mint("webrtc", MARA, {}, None)
    assert len(tokens) == 3


async def test_a_token_that_could_not_be_kept_does_not_count() -> None:
    class Away(MemoryStore):
        async def put_token(self, token: str, value: bytes, ttl: float) -> None:
            raise StoreUnavailable("away")

    tokens = of(Away(LoopClock().now), per_agent=1)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await tokens.mint("webrtc", MARA, {}, None)
    assert len(tokens) == 0


async def test_a_token_can_be_held_without_being_shown(tokens: Tokens) -> None:
    minted = await tokens.mint("webrtc", MARA, {"pin": msgspec.Raw(b'"4711"')}, None)
    assert minted.token not in repr(minted)
    assert "4711" not in repr(await tokens.consume("webrtc", minted.token, None, None))


@pytest.mark.proves("row-179")
async def test_of_twenty_who_come_at_once_to_two_gateways_one_gets_in(nodes: tuple[Node, Node]) -> None:
    gateways = [of(store) for store in nodes]
    await eventually(lambda: all(store.reachable for store in nodes))
    for _ in range(10):
        token = (await gateways[0].mint("webrtc", MARA, {}, None)).token
        coming = (gateways[turn % 2].consume("webrtc", token, None, None) for turn in range(20))
        outcomes = await asyncio.gather(*coming, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        refusals = [outcome for outcome in outcomes if isinstance(outcome, TokenRefused)]
        assert [refused.status for refused in refusals] == [401] * 19


async def test_a_stranger_at_another_gateway_leaves_the_token_unused(nodes: tuple[Node, Node]) -> None:
    here, there = (of(store) for store in nodes)
    token = (await here.mint("chat", MARA, {"n": msgspec.Raw(b"1.50")}, APP)).token
    assert await refusal(there, token, "chat", "https://other.io") == (403, "ORIGIN_NOT_ALLOWED")
    assert await refusal(there, token, "chat", agent="zoe") == (403, "FORBIDDEN")
    grant = await there.consume("chat", token, APP, "mara")
    assert bytes(grant.metadata["n"]) == b"1.50"
    assert await refusal(here, token, "chat") == (401, "UNAUTHORIZED")
