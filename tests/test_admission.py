"""Who is let in: limits of organisations, keys that are revoked, and that those who are there do not notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from server.auth import Source, digest_of
from server.organisations.roll import KnownKey, Limits, Organisation, Roll
from tests.client_rig import KEY, OTHER_KEY, Client, Rig, goodbye, running
from tests.jumping_loop import jumping

FILE_KEYS = ("pk_live_of_the_file_one", "pk_live_of_the_file_two")


def limit(rig: Rig, **limits: int) -> None:
    """What `org_main` may have from now on."""
    one = Organisation("org_main", limits=Limits(**limits))
    rig.organisations.learn(Source.FILE, Roll({"org_main": one}))


def list_keys(rig: Rig, keys: Iterable[str], source: Source = Source.FILE) -> None:
    """These, and no others, are in that source from now on."""
    known = tuple(KnownKey(digest_of(key), "org_file", "pk_…") for key in keys)
    rig.organisations.learn(source, Roll(keys=known))


async def refused(rig: Rig, key: str = KEY) -> dict[str, object]:
    """A connection that is told why not, and then closed; answers the error."""
    client = Client(await rig.open())
    await client.send("connect", api_key=key)
    error = await client.receive()
    assert error["event"] == "error"
    assert await client.closed() == (1008, error["code"])
    return error


async def test_a_connection_too_many_is_told_so_and_the_others_do_not_notice() -> None:
    async with running() as rig:
        limit(rig, connections=2)
        first, second = await rig.connected(), await rig.connected()
        error = await refused(rig)
        assert (error["code"], error["used"], error["limit"]) == ("SERVER_AT_CAPACITY", 2, 2)
        await rig.connected(OTHER_KEY)
        await first.silence()
        await second.silence()
        await goodbye(second)
        await rig.until_offline(2)
        await rig.connected()


@jumping
async def test_a_connection_that_nobody_answers_on_makes_room_within_seconds() -> None:
    async with running() as rig:
        limit(rig, connections=1)
        dead = await rig.agent("mara")
        dead.socket.transport.pause_reading()
        since = rig.registry.clock.now()
        await rig.agent("mara")
        assert rig.registry.clock.now() - since < 4.5


async def test_of_two_that_ask_for_the_last_place_one_gets_it() -> None:
    async with running() as rig:
        limit(rig, connections=2)
        await rig.connected()
        clients = [Client(await rig.open()) for _ in range(5)]
        for client in clients:
            await client.send("connect", api_key=KEY)
        answers = [(await client.receive())["event"] for client in clients]
        assert sorted(answers) == ["connected", *["error"] * 4]


async def test_an_agent_too_many_is_refused_alone() -> None:
    async with running() as rig:
        limit(rig, agents=2)
        client, other = await rig.agent("mara"), await rig.agent("zoe")
        error = await client.ask("agent.create", agent_id="ana")
        assert (error["code"], error["agent_id"], error["command"]) == ("SERVER_AT_CAPACITY", "ana", "agent.create")
        assert (error["used"], error["limit"]) == (2, 2)
        assert (await client.ask("agent.create", agent_id="Mara"))["event"] == "agent.created"
        assert (await client.ask("agent.configure", agent_id="mara", language="es"))["event"] == "agent.configured"
        foreign = await rig.connected(OTHER_KEY)
        assert (await foreign.ask("agent.create", agent_id="ana"))["event"] == "agent.created"
        assert (await other.ask("agent.remove", agent_id="zoe"))["event"] == "agent.removed"
        assert (await client.ask("agent.create", agent_id="ana"))["event"] == "agent.created"


async def test_many_connections_at_once_make_no_more_agents_than_there_may_be() -> None:
    async with running() as rig:
        limit(rig, agents=5)
        clients = [await rig.connected() for _ in range(4)]

        async def create(number: int) -> str:
            return (await clients[number % 4].ask("agent.create", agent_id=f"agent-{number}"))["event"]

        for number in range(3):
            await create(number)
        made = await asyncio.gather(*(create(3 + number) for number in range(4)))
        assert sorted(made) == ["agent.created", "agent.created", "error", "error"]
        assert len(rig.registry.of_org("org_main")) == 5


async def test_an_agent_whose_connection_dropped_keeps_its_place() -> None:
    async with running() as rig:
        limit(rig, agents=1)
        client = await rig.agent("mara")
        client.socket.transport.abort()
        await rig.until_offline()
        back = await rig.connected()
        assert (await back.ask("agent.create", agent_id="zoe"))["code"] == "SERVER_AT_CAPACITY"
        assert (await back.ask("agent.create", agent_id="mara"))["event"] == "agent.created"


async def test_a_lower_limit_sends_nobody_away() -> None:
    async with running() as rig:
        clients = [await rig.agent(f"agent-{number}") for number in range(3)]
        limit(rig, connections=1, agents=1)
        for client in clients:
            await client.silence()
        assert (await refused(rig))["used"] == 3


@pytest.mark.parametrize("source", [Source.FILE, Source.REDIS])
async def test_a_revoked_key_closes_its_sockets_and_no_other(source: Source) -> None:
    async with running() as rig:
        list_keys(rig, FILE_KEYS, source)
        revoked, kept, env = await rig.connected(FILE_KEYS[0]), await rig.connected(FILE_KEYS[1]), await rig.connected()
        await revoked.ask("agent.create", agent_id="mara")
        list_keys(rig, FILE_KEYS[1:], source)
        error = await revoked.receive()
        assert (error["event"], error["code"]) == ("error", "INVALID_KEY")
        assert await revoked.closed() == (1008, "INVALID_KEY")
        await kept.silence()
        await env.silence()
        assert (await refused(rig, FILE_KEYS[0]))["code"] == "INVALID_KEY"


async def test_a_key_that_moves_to_another_organisation_takes_nobody_along() -> None:
    async with running() as rig:
        list_keys(rig, FILE_KEYS)
        client = await rig.connected(FILE_KEYS[0])
        moved = KnownKey(digest_of(FILE_KEYS[0]), "org_other", "pk_…")
        rig.organisations.learn(Source.FILE, Roll(keys=(moved,)))
        assert await client.closed() == (1008, "INVALID_KEY")
        await client.socket.wait_closed()
        again = Client(await rig.open())
        assert (await again.ask("connect", api_key=FILE_KEYS[0]))["org_id"] == "org_other"


async def test_a_key_that_is_in_two_places_is_revoked_when_it_is_in_neither() -> None:
    async with running() as rig:
        for source in (Source.FILE, Source.REDIS):
            list_keys(rig, FILE_KEYS, source)
        client = await rig.connected(FILE_KEYS[0])
        list_keys(rig, (), Source.FILE)
        await client.silence()
        list_keys(rig, (), Source.REDIS)
        assert await client.closed() == (1008, "INVALID_KEY")


async def test_a_key_that_cannot_be_looked_up_yet_is_not_called_invalid() -> None:
    async with running() as rig:
        rig.organisations.keys.awaited.add(Source.REDIS)
        client = Client(await rig.open())
        await client.send("connect", api_key=FILE_KEYS[0])
        assert await client.closed() == (1012, "service_restart")
        await rig.connected(KEY)
        assert (await refused(rig, "pk_publishable_00000000"))["code"] == "INVALID_KEY"
        list_keys(rig, (), Source.REDIS)
        assert (await refused(rig, FILE_KEYS[0]))["code"] == "INVALID_KEY"
