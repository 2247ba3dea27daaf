"""What a store promises, whichever it is: each test runs on the one in memory and on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pipelines.clock import LoopClock
from server.store.base import AgentKey, Callers, Store
from server.store.memory import MemoryStore
from tests.redis_server import RedisServer, node
from tests.redis_server import redis_server as redis_server

NUMBER = "+13186330963"
MARA = AgentKey("org_main", "mara")
ZOE = AgentKey("org_main", "zoe")
DEV = AgentKey("org_main", "dev-ana-mara")
STAGING = AgentKey("org_main", "staging-mara")
STRANGER = AgentKey("org_two", "mara")
CALLERS = Callers(frozenset({"+34600000001", "+34600000002"}), 1_700_000_000.5)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[Store]:
    if request.param == "memory":
        yield MemoryStore(LoopClock().now)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with node(server) as redis:
        yield redis


async def test_an_agent_has_one_holder_until_it_is_released(store: Store) -> None:
    assert await store.claim_agent(MARA, "conn_1") == "conn_1"
    assert await store.claim_agent(MARA, "conn_1") == "conn_1"
    assert await store.claim_agent(MARA, "conn_2") == "conn_1"
    await store.release_agent(MARA, "conn_2")
    assert await store.claim_agent(MARA, "conn_2") == "conn_1"
    await store.release_agent(MARA, "conn_1")
    assert await store.claim_agent(MARA, "conn_2") == "conn_2"


async def test_who_holds_an_agent_can_be_asked(store: Store) -> None:
    assert await store.holder_of(MARA) == ""
    await store.claim_agent(MARA, "conn_1")
    assert await store.holder_of(MARA) == "conn_1"
    assert await store.holder_of(STRANGER) == ""
    await store.release_agent(MARA, "conn_1")
    assert await store.holder_of(MARA) == ""


async def test_only_the_holder_that_was_meant_is_replaced(store: Store) -> None:
    await store.claim_agent(MARA, "conn_1")
    assert await store.claim_agent(MARA, "conn_3", replacing="conn_2") == "conn_1"
    assert await store.claim_agent(MARA, "conn_3", replacing="conn_1") == "conn_3"
    await store.release_agent(MARA, "conn_1")
    assert await store.claim_agent(MARA, "conn_1") == "conn_3"


async def test_of_many_that_claim_at_once_one_gets_the_agent(store: Store) -> None:
    names = [f"conn_{count}" for count in range(50)]
    answers = await asyncio.gather(*(store.claim_agent(MARA, name) for name in names))
    assert len(set(answers)) == 1


@pytest.mark.proves("row-188")
async def test_organisations_do_not_see_each_others_agents(store: Store) -> None:
    assert await store.claim_agent(MARA, "conn_1") == "conn_1"
    assert await store.claim_agent(STRANGER, "conn_2") == "conn_2"


async def test_a_number_has_one_production_agent_and_any_number_of_others(store: Store) -> None:
    assert await store.claim_number(NUMBER, DEV) == DEV
    assert await store.claim_number(NUMBER, MARA) == MARA
    assert await store.claim_number(NUMBER, MARA) == MARA
    assert await store.claim_number(NUMBER, STAGING) == STAGING
    assert await store.claim_number(NUMBER, ZOE) == MARA
    await store.release_number(NUMBER, DEV)
    assert await store.claim_number(NUMBER, ZOE) == MARA
    await store.release_number(NUMBER, MARA)
    assert await store.claim_number(NUMBER, ZOE) == ZOE


async def test_a_production_agent_can_be_pushed_off_its_number(store: Store) -> None:
    await store.claim_number(NUMBER, MARA)
    assert await store.claim_number(NUMBER, ZOE, replacing=STAGING) == MARA
    assert await store.claim_number(NUMBER, ZOE, replacing=MARA) == ZOE
    await store.release_number(NUMBER, MARA)
    assert await store.claim_number(NUMBER, MARA) == ZOE


@pytest.mark.parametrize("first", [MARA, DEV], ids=["production", "development"])
async def test_a_number_belongs_to_one_organisation(store: Store, first: AgentKey) -> None:
    await store.claim_number(NUMBER, first)
    assert (await store.claim_number(NUMBER, STRANGER)).org_id == "org_main"
    assert (await store.claim_number(NUMBER, AgentKey("org_two", "dev-mara"), replacing=first)).org_id == "org_main"
    await store.release_number(NUMBER, STRANGER)
    await store.release_number(NUMBER, first)
    assert await store.claim_number(NUMBER, STRANGER) == STRANGER
    assert (await store.claim_number(NUMBER, first)).org_id == "org_two"


async def test_letting_go_of_what_one_never_had_is_fine(store: Store) -> None:
    await store.release_agent(MARA, "conn_1")
    await store.release_number(NUMBER, MARA)
    await store.keep_callers(MARA, None)
    assert await store.callers(MARA) is None
    assert await store.take_token("never seen") is None


async def test_callers_are_kept_as_they_were_told_until_told_otherwise(store: Store) -> None:
    await store.keep_callers(DEV, CALLERS)
    assert await store.callers(DEV) == CALLERS
    assert await store.callers(AgentKey("org_two", DEV.slug)) is None
    later = Callers(frozenset(), 1_700_000_001.0)
    await store.keep_callers(DEV, later)
    assert await store.callers(DEV) == later
    await store.keep_callers(DEV, None)
    assert await store.callers(DEV) is None


async def test_callers_are_forgotten_when_their_time_is_over(store: Store) -> None:
    await store.keep_callers(DEV, CALLERS, ttl=0.05)
    await store.keep_callers(STAGING, CALLERS, ttl=60.0)
    await asyncio.sleep(0.1)
    assert await store.callers(DEV) is None
    assert await store.callers(STAGING) == CALLERS


async def test_of_many_that_take_a_token_one_gets_it(store: Store) -> None:
    value = bytes(range(256))
    await store.put_token("t", value, 60.0)
    taken = await asyncio.gather(*(store.take_token("t") for _ in range(20)))
    assert [one for one in taken if one is not None] == [value]
    assert await store.take_token("t") is None


async def test_a_token_that_was_seen_can_still_be_taken(store: Store) -> None:
    assert await store.see_token("t") is None
    await store.put_token("t", b"1", 60.0)
    assert await store.see_token("t") == await store.see_token("t") == b"1"
    assert await store.take_token("t") == b"1"
    assert await store.see_token("t") is None
    await store.put_token("short", b"1", 0.05)
    await asyncio.sleep(0.06)
    assert await store.see_token("short") is None


async def test_a_token_is_worth_nothing_when_its_time_is_over(store: Store) -> None:
    await store.put_token("short", b"1", 0.05)
    await store.put_token("long", b"2", 60.0)
    await asyncio.sleep(0.1)
    assert await store.take_token("short") is None
    assert await store.take_token("long") == b"2"


async def test_whether_a_number_is_in_production_can_be_asked(store: Store) -> None:
    assert not await store.in_production(NUMBER)
    await store.claim_number(NUMBER, DEV)
    assert not await store.in_production(NUMBER)
    await store.claim_number(NUMBER, MARA)
    assert await store.in_production(NUMBER)
    await store.release_number(NUMBER, MARA)
    assert not await store.in_production(NUMBER)
