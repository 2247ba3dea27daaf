"""Gateways that share a Redis: who has which agent and number, what a crash frees, and calls while Redis is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from pydantic import SecretStr

from pipelines.clock import LoopClock
from server.agents.admission import Admission
from server.agents.channels import Refusal
from server.agents.configuration import ConfigRules
from server.agents.link import AgentLink, LinkTimes
from server.agents.reach import Reach
from server.agents.registry import AgentRegistry
from server.app import create_server
from server.auth import Keys, Source
from server.engines import Engines
from server.keys import SettingsError
from server.organisations.directory import Organisations
from server.organisations.roll import Limits, Organisation, Roll
from server.settings import Settings
from server.store.base import AgentKey
from server.tokens import TokenRefused
from tests.call_facts import faultless as faultless
from tests.client_rig import RecordedCall, any_layers
from tests.phone_rig import KEY, NUMBER, Frame, Rig, running
from tests.redis_server import QUICK, Node, RedisServer, eventually, node
from tests.redis_server import redis_server as redis_server
from wire.commands import AgentCreate, ChannelAdd, DevConfig

CALLER = "+34600000001"


@asynccontextmanager
async def sharing(server: RedisServer) -> AsyncGenerator[Rig]:
    """A whole gateway on that Redis."""
    async with running(redis_url=SecretStr(server.url)) as rig:
        await eventually(lambda: rig.gateway.ready)
        yield rig


class Desk:
    """A registry whose store is a node, and connections without sockets."""

    def __init__(self, store: Node) -> None:
        self.store = store
        self.registry = AgentRegistry(store, LoopClock(), ConfigRules(any_layers))
        self.reach = Reach(self.registry)
        self._count = 0

    def link(self) -> AgentLink:
        self._count += 1
        link = AgentLink(f"conn_{id(self)}_{self._count}", "127.0.0.1", LoopClock(), LinkTimes())
        link.accept("org_main")
        self.registry.join(link)
        return link

    async def create(self, link: AgentLink, agent_id: str, number: str = NUMBER) -> None:
        await self.registry.create(link, AgentCreate(agent_id=agent_id))
        await self.reach.inherit_callers(link, agent_id)
        await self.reach.add(link, ChannelAdd(agent_id=agent_id, type="phone", ref=number))

    async def drop(self, link: AgentLink) -> None:
        link.gone(1006, "")
        await self.registry.leave(link)


async def events(link: AgentLink) -> list[Frame]:
    """What waits for this link."""
    frames: list[Frame] = []
    while len(link.outbox):
        frame = await link.outbox.next()
        assert isinstance(frame, bytes)
        frames.append(json.loads(frame))
    return frames


# --- two of them ---


@pytest.mark.proves("row-189")
async def test_two_gateways_agree_on_who_has_an_agent_and_a_number(
    redis_server: RedisServer, faultless: list[dict[str, object]]
) -> None:
    async with sharing(redis_server) as one, sharing(redis_server) as other:
        holder = await one.agent("Mara_1")
        rival = await other.connected()
        refused = await rival.ask("agent.create", "error", agent_id="mara-1")
        assert (refused["code"], refused["agent_id"]) == ("AGENT_IN_USE", "mara-1")
        assert refused["holder_alive"] is True
        await rival.ask("agent.create", "agent.created", agent_id="zoe")
        refused = await rival.ask("channel.add", "error", agent_id="zoe", type="phone", ref="+1 (318) 633-0963")
        assert (refused["code"], refused["phone"], refused["owner"]) == ("PHONE_IN_USE", "+1 (318) 633-0963", "mara-1")
        await holder.ask("channel.remove", "channel.removed", agent_id="Mara_1", ref=NUMBER)
        await rival.ask("channel.add", "channel.added", agent_id="zoe", type="phone", ref=NUMBER)
        await holder.socket.close(1000, "client_disconnect")
        await eventually(lambda: redis_server.ask("GET", "vg:org_main:agent:mara-1") == "")
        await rival.ask("agent.create", "agent.created", agent_id="mara-1")


async def test_a_gateway_that_stops_leaves_its_agents_to_the_others_at_once(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as other:
        async with sharing(redis_server) as one:
            await one.agent("mara")
        async with asyncio.timeout(5):
            await other.agent("mara")


async def test_a_token_made_by_one_gateway_is_good_for_one_use_at_any(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as one, sharing(redis_server) as other:
        await one.gateway.store.put_token("t", b"mara", 60.0)
        stores = (one.gateway.store, other.gateway.store)
        taken = await asyncio.gather(*(store.take_token("t") for store in stores * 4))
        assert [value for value in taken if value is not None] == [b"mara"]


async def test_a_token_minted_at_one_gateway_opens_one_session_at_another(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as one, sharing(redis_server) as other:
        await one.agent("mara")
        async with httpx2.AsyncClient(base_url=one.http) as http:
            headers = {"Authorization": f"Bearer {KEY}"}
            minted = await http.get("/chat/token", params={"agent_id": "mara"}, headers=headers)
        token = minted.json()["token"]
        desks = (one.gateway.tokens, other.gateway.tokens)
        tried = await asyncio.gather(
            *(desk.consume("chat", token, None, None) for desk in desks[::-1] * 4), return_exceptions=True
        )
        granted = [grant.agent for grant in tried if not isinstance(grant, BaseException)]
        assert granted == [AgentKey("org_main", "mara")]
        assert all(isinstance(grant, TokenRefused) for grant in tried if isinstance(grant, BaseException))


async def test_agents_of_a_crashed_gateway_come_back_on_another_without_being_refused(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server, QUICK) as first, node(redis_server, QUICK) as second:
        one, other = Desk(first), Desk(second)
        link = one.link()
        await one.create(link, "dev-ana-mara")
        await one.create(link, "mara")
        await one.reach.dev_config(link, DevConfig(callers=[CALLER]))
        first.crash()
        back = other.link()
        await other.create(back, "mara")
        await other.create(back, "dev-ana-mara")
        assert "error" not in [frame["event"] for frame in await events(back)]
        dev = other.registry.find(AgentKey("org_main", "dev-ana-mara"))
        assert dev is not None
        assert dev.callers is not None
        assert dev.callers.numbers == {CALLER}


async def test_an_agent_that_moves_takes_its_number_along(redis_server: RedisServer) -> None:
    async with node(redis_server, QUICK) as first, node(redis_server, QUICK) as second:
        one, other = Desk(first), Desk(second)
        link = one.link()
        await one.create(link, "mara")
        await one.drop(link)
        moved = other.link()
        await other.create(moved, "mara")
        # The first gateway forgets the agent in the end; the number is not its to give back any more.
        assert await one.registry.kick(AgentKey("org_main", "mara"))
        assert await first.claim_number(NUMBER, AgentKey("org_main", "zoe")) == AgentKey("org_main", "mara")


async def test_connections_that_create_at_once_make_no_more_agents_than_their_organisation_may_have(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server, QUICK) as store:
        desk, organisations = Desk(store), Organisations(Keys([]))
        organisations.learn(Source.FILE, Roll({"org_main": Organisation("org_main", limits=Limits(agents=3))}))
        admission = Admission(organisations, desk.registry, LoopClock(), ())
        links = [desk.link() for _ in range(6)]
        tried = await asyncio.gather(
            *(admission.create(link, AgentCreate(agent_id=f"agent-{at}")) for at, link in enumerate(links)),
            return_exceptions=True,
        )
        refused = [one for one in tried if isinstance(one, Refusal)]
        assert [one.code for one in refused] == ["SERVER_AT_CAPACITY"] * 3
        assert len(desk.registry.of_org("org_main")) == 3
        made = next(one for one in tried if isinstance(one, str))
        at = tried.index(made)
        assert await admission.create(links[at], AgentCreate(agent_id=made)) == made


# --- without Redis ---


async def test_an_agent_takes_its_live_call_back_while_redis_is_away(redis_server: RedisServer) -> None:
    async with node(redis_server, QUICK) as store:
        desk = Desk(store)
        link = desk.link()
        await desk.create(link, "dev-ana-mara")
        await desk.reach.dev_config(link, DevConfig(callers=[CALLER]))
        call = RecordedCall("dev-ana-mara")
        desk.registry.admit(call)
        call.attach(link, "dev-ana-mara")
        redis_server.kill()
        await desk.drop(link)
        back = desk.link()
        await desk.create(back, "dev-ana-mara")
        told = [frame["event"] for frame in await events(back)]
        assert told == ["connected", "agent.created", "call.started", "channel.added"]
        assert call.sink is back
        assert not call.ended


async def test_a_call_does_not_notice_that_redis_dies_and_registrations_work_again_later(
    redis_server: RedisServer, faultless: list[dict[str, object]]
) -> None:
    async with sharing(redis_server) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        agent = await rig.agent("mara")
        _, call = await rig.call(agent)
        assert (await http.get("/ready")).status_code == 200
        redis_server.kill()
        await agent.say(call, "Redis is gone, and you hear me all the same.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        await eventually(lambda: not rig.gateway.ready)
        assert (await http.get("/ready")).status_code == 503
        assert "gateway_store_reachable 0.0" in (await http.get("/metrics")).text
        await agent.ask("agent.create", "agent.created", agent_id="mara")
        refused = await agent.ask("agent.create", "error", agent_id="zoe")
        assert (refused["code"], refused["agent_id"]) == ("REGISTRATION_ERROR", "zoe")
        assert refused["retry_after_s"] > 0
        await agent.say(call, "Still here.", "m2")
        await agent.wait("bot.finished", message_id="m2")
        redis_server.start()
        await eventually(lambda: rig.gateway.ready)
        await agent.ask("agent.create", "agent.created", agent_id="zoe")
        assert (await http.get("/ready")).status_code == 200
        await agent.say(call, "And it is back.", "m3")
        await agent.wait("bot.finished", message_id="m3")
        assert redis_server.ask("GET", "vg:org_main:agent:mara")
        assert redis_server.ask("HKEYS", f"vg:number:{NUMBER}").split("\n") == ["org", "p mara"]


async def test_a_gateway_starts_without_its_redis_and_says_that_it_is_not_ready(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with running(redis_url=SecretStr(redis_server.url)) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/ready")).status_code == 503
        redis_server.start()
        await eventually(lambda: rig.gateway.ready)
        await rig.agent("mara")


@pytest.mark.parametrize("url", ["redis://h:secret-port/0", "redis://h?socket_timeout=secret"])
def test_an_address_that_makes_no_sense_stops_the_start_without_being_shown(url: str) -> None:
    settings = Settings(_env_file=None, redis_url=SecretStr(url))  # pyright: ignore[reportCallIssue]
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as refused:
        create_server(settings, Keys([]), Engines(settings))
    assert "secret" not in str(refused.value)
