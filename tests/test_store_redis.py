"""The Redis form where it is more than the one in memory: several nodes, crashes, and a Redis that goes away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from pipelines.clock import LoopClock
from server.store.base import AgentKey, Callers, StoreUnavailable
from server.store.redis import RedisStore
from tests.redis_server import QUICK, Node, RedisServer, eventually, node
from tests.redis_server import redis_server as redis_server

NUMBER = "+13186330963"
MARA = AgentKey("org_main", "mara")
ZOE = AgentKey("org_main", "zoe")
DEV = AgentKey("org_main", "dev-ana-mara")
STRANGER = AgentKey("org_two", "mara")
CALLERS = Callers(frozenset({"+34600000001"}), 1_700_000_000.0)
OTHERS = Callers(frozenset({"+34600000002"}), 1_700_000_001.0)


@pytest.fixture
async def nodes(redis_server: RedisServer) -> AsyncGenerator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(node(redis_server, QUICK))
        other = await stack.enter_async_context(node(redis_server, QUICK))
        yield one, other


# --- several nodes ---


async def test_a_holder_on_another_living_node_cannot_be_replaced(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    assert await one.claim_agent(MARA, "conn_1") == "conn_1"
    assert await other.claim_agent(MARA, "conn_2") == "conn_1"
    assert await other.claim_agent(MARA, "conn_2", replacing="conn_1") == "conn_1"
    await other.release_agent(MARA, "conn_1")
    assert await other.claim_agent(MARA, "conn_2") == "conn_1"
    await one.release_agent(MARA, "conn_1")
    assert await other.claim_agent(MARA, "conn_2") == "conn_2"


async def test_who_holds_an_agent_is_known_everywhere_until_its_node_is_gone(redis_server: RedisServer) -> None:
    times = replace(QUICK, lease=0.3, renew=0.05)
    async with node(redis_server, QUICK) as other, node(redis_server, times) as one:
        await one.claim_agent(MARA, "conn with a space")
        assert await other.holder_of(MARA) == "conn with a space"
        one.crash()
        await eventually(lambda: len(redis_server.ask("KEYS", "vg:node:*").split()) == 1)
        assert await other.holder_of(MARA) == ""


async def test_an_agent_on_another_living_node_is_not_pushed_off_its_number(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    assert await one.claim_number(NUMBER, MARA) == MARA
    assert await other.claim_number(NUMBER, ZOE, replacing=MARA) == MARA
    assert await other.claim_number(NUMBER, DEV) == DEV
    assert (await other.claim_number(NUMBER, STRANGER)).org_id == "org_main"
    await one.release_number(NUMBER, MARA)
    assert await other.claim_number(NUMBER, ZOE) == ZOE


async def test_who_asks_for_what_a_crashed_node_had_gets_it_without_being_refused(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.claim_agent(MARA, "conn_1")
    await one.claim_number(NUMBER, MARA)
    one.crash()
    claims = (other.claim_agent(MARA, "conn_2"), other.claim_number(NUMBER, STRANGER))
    assert await asyncio.gather(*claims) == ["conn_2", STRANGER]


async def test_a_node_that_stops_in_order_frees_everything_at_once(redis_server: RedisServer) -> None:
    async with node(redis_server) as other:
        async with node(redis_server) as one:
            await one.claim_agent(MARA, "conn_1")
            await one.claim_number(NUMBER, MARA)
        async with asyncio.timeout(2):
            assert await other.claim_agent(MARA, "conn_2") == "conn_2"
            assert await other.claim_number(NUMBER, ZOE) == ZOE


async def test_an_agent_that_moved_to_another_node_keeps_its_number_when_the_first_forgets_it(
    nodes: tuple[Node, Node],
) -> None:
    one, other = nodes
    await one.claim_number(NUMBER, MARA)
    assert await other.claim_number(NUMBER, MARA) == MARA
    await one.release_number(NUMBER, MARA)
    assert await one.claim_number(NUMBER, ZOE) == MARA


@pytest.mark.proves("row-188")
async def test_a_token_made_on_one_node_is_taken_on_any_but_once(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.put_token("t", b"agent", 60.0)
    taken = await asyncio.gather(*(store.take_token("t") for store in (one, other) * 5))
    assert [value for value in taken if value is not None] == [b"agent"]


async def test_redis_does_not_know_the_tokens_themselves(redis_server: RedisServer) -> None:
    async with node(redis_server) as store:
        await store.put_token("secret-token", b"x", 60.0)
        assert "secret" not in redis_server.ask("KEYS", "*")


async def test_callers_told_on_one_node_are_known_on_the_other(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.keep_callers(DEV, CALLERS)
    assert await other.callers(DEV) == CALLERS


async def test_a_node_does_not_speak_for_an_agent_that_another_has_by_now(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.keep_callers(DEV, CALLERS)
    await other.claim_agent(DEV, "conn_2")
    await other.keep_callers(DEV, OTHERS)
    await one.keep_callers(DEV, CALLERS, ttl=60.0)
    assert await one.callers(DEV) == OTHERS


async def test_never_two_holders_and_nothing_left_behind(redis_server: RedisServer) -> None:
    """Connections of two nodes claim, release and give up at random, while everything is put back all the time."""
    times = replace(QUICK, renew=0.002, sweep=0.0)
    async with node(redis_server, times) as one, node(redis_server, times) as other:
        await _quarrel((one, other))
        await eventually(lambda: redis_server.ask("KEYS", "*:agent:*") == "")


async def _quarrel(nodes: tuple[Node, Node]) -> None:
    chance = random.Random(5)
    agents = [AgentKey("org_main", f"agent-{count}") for count in range(3)]
    believed: dict[AgentKey, str] = {}

    async def connection(store: Node, name: str) -> None:
        for _ in range(40):
            agent = chance.choice(agents)
            try:
                async with asyncio.timeout(chance.choice([0.0005, 0.002, 0.02])):
                    if await store.claim_agent(agent, name) != name:
                        continue
            except TimeoutError:
                continue
            assert agent not in believed, f"{name} and {believed[agent]}"
            believed[agent] = name
            await asyncio.sleep(chance.choice([0.0, 0.001]))
            del believed[agent]
            await store.release_agent(agent, name)

    async with asyncio.TaskGroup() as tasks:
        for count in range(6):
            tasks.create_task(connection(nodes[count % 2], f"conn_{count}"))


async def test_a_claim_that_nobody_waited_for_is_given_back(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    one, other = nodes
    await one.claim_agent(ZOE, "conn_1")
    redis_server.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await one.claim_agent(MARA, "conn_1")
    redis_server.thaw()
    await eventually(lambda: one.reachable and other.reachable)
    assert await other.claim_agent(MARA, "conn_2") == "conn_2"


async def test_who_was_pushed_off_a_number_is_not_put_back(redis_server: RedisServer, nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    numbers = [f"+1555010{count:04}" for count in range(10)]
    for number in numbers:
        await one.claim_number(number, MARA)
        await one.claim_number(number, ZOE, replacing=MARA)
    redis_server.ask("FLUSHALL")
    await eventually(lambda: redis_server.ask("KEYS", "vg:number:*").count("vg:number") == len(numbers))
    assert [await other.claim_number(number, MARA) for number in numbers] == [ZOE] * len(numbers)


async def test_what_is_released_while_it_is_being_put_back_is_free(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    agents = [AgentKey("org_main", f"agent-{count}") for count in range(300)]
    for agent in agents:
        await nodes[0].claim_agent(agent, "conn_1")
    redis_server.ask("FLUSHALL")
    await eventually(lambda: redis_server.ask("KEYS", "*:agent:*") != "")
    await asyncio.gather(*(nodes[0].release_agent(agent, "conn_1") for agent in agents))
    await asyncio.sleep(QUICK.renew)
    assert redis_server.ask("KEYS", "*:agent:*") == ""


# --- Redis goes away ---


async def test_while_redis_is_away_a_node_answers_for_what_it_has_and_for_nothing_else(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    store = nodes[0]
    await store.claim_agent(MARA, "conn_1")
    await store.claim_number(NUMBER, MARA)
    redis_server.kill()
    assert await store.claim_agent(MARA, "conn_1") == "conn_1"
    assert await store.claim_agent(MARA, "conn_2") == "conn_1"
    assert await store.claim_agent(MARA, "conn_2", replacing="conn_1") == "conn_2"
    assert await store.claim_number(NUMBER, MARA) == MARA
    for refused in (store.claim_agent(ZOE, "conn_1"), store.claim_number(NUMBER, ZOE), store.take_token("t")):
        with pytest.raises(StoreUnavailable):
            await refused
    assert not store.reachable


async def test_what_is_given_back_or_kept_meanwhile_is_said_again_later(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    one, other = nodes
    await one.claim_agent(MARA, "conn_1")
    await one.claim_agent(ZOE, "conn_1")
    await one.claim_number(NUMBER, MARA)
    await one.keep_callers(DEV, CALLERS)
    redis_server.kill()
    await one.release_agent(MARA, "conn_1")
    await one.release_number(NUMBER, MARA)
    await one.keep_callers(DEV, OTHERS)
    assert await one.callers(DEV) == OTHERS
    redis_server.start()
    await eventually(lambda: one.reachable and other.reachable)
    claims = [other.claim_agent(MARA, "conn_2"), other.claim_agent(ZOE, "conn_2")]
    assert await asyncio.gather(*claims) == ["conn_2", "conn_1"]
    assert await other.claim_number(NUMBER, ZOE) == ZOE
    assert await other.callers(DEV) == OTHERS


async def test_an_empty_redis_is_told_everything_before_anybody_else_can_claim_it(redis_server: RedisServer) -> None:
    slow = replace(QUICK, renew=1.0, lease=4.0, patience=3.0)
    async with node(redis_server, slow) as one, node(redis_server, slow) as other:
        await one.claim_agent(MARA, "conn_1")
        await one.claim_number(NUMBER, MARA)
        await one.keep_callers(DEV, CALLERS)
        redis_server.kill()
        redis_server.start()
        # The other node sees it first, and may not make use of it.
        claims = (other.claim_agent(MARA, "conn_2"), other.claim_number(NUMBER, ZOE))
        assert await asyncio.gather(*claims) == ["conn_1", MARA]
        assert await one.claim_agent(MARA, "conn_1") == "conn_1"
        assert await other.callers(DEV) == CALLERS


async def test_claims_that_somebody_deleted_are_put_back(redis_server: RedisServer, nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    await one.claim_agent(MARA, "conn_1")
    redis_server.ask("FLUSHALL")
    await eventually(lambda: "vg:org_main:agent:mara" in redis_server.ask("KEYS", "*"))
    assert await other.claim_agent(MARA, "conn_2") == "conn_1"


async def test_a_claim_that_another_node_got_meanwhile_is_not_taken_back(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    one, other = nodes
    await one.claim_agent(MARA, "conn_1")
    one.crash()
    await other.claim_agent(MARA, "conn_2")
    with capture_logs() as logs:
        waking = asyncio.create_task(one.run())
        await eventually(lambda: any(entry["event"] == "claim_lost" for entry in logs))
    assert await one.claim_agent(MARA, "conn_1") == "conn_2"
    await other.release_agent(MARA, "conn_2")
    await eventually(lambda: redis_server.ask("GET", "vg:org_main:agent:mara").endswith("conn_1"))
    waking.cancel()
    await asyncio.gather(waking, return_exceptions=True)


async def test_a_redis_that_takes_questions_and_never_answers_holds_nobody_for_long(
    redis_server: RedisServer, nodes: tuple[Node, Node]
) -> None:
    store = nodes[0]
    await store.claim_agent(MARA, "conn_1")
    await store.put_token("t", b"1", 60.0)
    redis_server.freeze()
    started = time.monotonic()
    await store.release_agent(ZOE, "conn_1")
    await store.keep_callers(DEV, CALLERS)
    with pytest.raises(StoreUnavailable):
        await store.claim_agent(ZOE, "conn_1")
    assert await store.claim_agent(MARA, "conn_1") == "conn_1"
    assert time.monotonic() - started < 8
    redis_server.thaw()
    await eventually(lambda: store.reachable)
    # Answers that came too late are not taken for those to later questions.
    assert await store.take_token("t") == b"1"
    assert await store.callers(DEV) == CALLERS
    assert await store.claim_agent(ZOE, "conn_1") == "conn_1"


async def test_a_gateway_may_be_there_before_its_redis(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with node(redis_server, QUICK) as store:
        with pytest.raises(StoreUnavailable):
            await store.put_token("t", b"1", 60.0)
        claim = asyncio.create_task(store.claim_agent(MARA, "conn_1"))
        redis_server.start()
        await eventually(lambda: store.reachable)
        assert await claim == "conn_1"
        assert await store.take_token("t") is None


async def test_an_outage_is_told_once_and_without_the_password(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("//", "//:pass-word@")
    with capture_logs() as logs:
        store = RedisStore(url, LoopClock(), QUICK)
        upkeep = asyncio.create_task(store.run())
        await asyncio.sleep(0.2)
        await eventually(lambda: len(logs) > 0)
        assert not store.reachable
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        await store.close()
    assert [entry["event"] for entry in logs] == ["store_unreachable"]
    assert "pass-word" not in str(logs)
