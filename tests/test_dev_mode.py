"""Development and staging agents on shared numbers (behaviour §4), with the frames that SDK 0.1.4 sends.

`PINECALL_MODE=dev` only changes the slug, and `dev.config` never names an agent; see tests/sdk for the SDK itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import httpx2
import pytest

from demo.dialling import Outcome
from server.agents.agent import RegistryTimes
from server.routing import Nobody, Routed
from tests.client_rig import Rig as AgentsRig
from tests.client_rig import running as agents_running
from tests.client_rig import vanish
from tests.phone_rig import KEY, NUMBER, Agent, Rig, running
from tests.virtual_time import event_loop_policy as event_loop_policy

ANA, BERNA, EVE = "+34600000001", "+34600000002", "+15550009999"
CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}


async def developer(rig: Rig, slug: str, *callers: str, number: str = NUMBER) -> Agent:
    """A developer's program starts: agent, number, and whose calls it wants."""
    agent = await rig.agent(slug, number)
    if callers:
        await agent.ask("dev.config", "dev.configured", callers=list(callers))
    return agent


async def answered_by(rig: Rig, agents: dict[str, Agent], caller: str, number: str = NUMBER) -> str:
    """Who gets a call, by name; "" when nobody does. The call ends again."""
    before = {name: agent.count("call.started") for name, agent in agents.items()}
    telephone = await rig.caller(number, caller)
    answer = await telephone.ring()
    if answer.outcome is not Outcome.CONNECTED:
        return ""
    async with asyncio.timeout(10):
        while not (got := [name for name, agent in agents.items() if agent.count("call.started") > before[name]]):  # noqa: ASYNC110 - any may be told
            await asyncio.sleep(0.01)
    await telephone.hang_up()
    return " and ".join(got)


@pytest.mark.proves("row-145", "row-147", "row-148", "row-149")
async def test_production_and_a_developer_share_a_number_and_each_gets_their_own_callers() -> None:
    async with running() as rig:
        agents = {"production": await rig.agent("florencia"), "dev": await developer(rig, "dev-ana-florencia")}
        assert all(agent.count("error") == 0 for agent in agents.values())
        assert await answered_by(rig, agents, ANA) == "production", "a developer who named nobody gets nobody"
        configured = await agents["dev"].ask("dev.config", "dev.configured", callers=["+34 600-000-001"])
        assert (configured["agent_id"], configured["callers"]) == ("dev-ana-florencia", [ANA])
        assert await answered_by(rig, agents, ANA) == "dev"
        assert await answered_by(rig, agents, EVE) == "production"
        await agents["dev"].ask("dev.config", "dev.configured", callers=[])
        assert await answered_by(rig, agents, ANA) == "production"


@pytest.mark.proves("row-146", "row-152")
async def test_staging_shares_a_number_just_as_development_does_and_gives_way_to_it() -> None:
    async with running() as rig:
        agents = {
            "production": await rig.agent("florencia"),
            "staging": await developer(rig, "staging-florencia", ANA, BERNA),
        }
        assert await answered_by(rig, agents, ANA) == "staging"
        assert await answered_by(rig, agents, EVE) == "production"
        agents["dev"] = await developer(rig, "dev-ana-florencia", ANA)
        await agents["staging"].ask("dev.config", "dev.configured", callers=[ANA, BERNA])
        assert await answered_by(rig, agents, ANA) == "dev", "also before a staging agent that said so later"
        assert await answered_by(rig, agents, BERNA) == "staging"
        agents["dev"].drop()
        await asyncio.sleep(0.1)
        assert await answered_by(rig, agents, ANA) == "staging"


@pytest.mark.proves("row-150")
async def test_three_developers_at_once_each_get_their_own_calls() -> None:
    async with running() as rig:
        agents = {"production": await rig.agent("florencia")}
        for name, caller in (("ana", ANA), ("berna", BERNA), ("eve", EVE)):
            agents[name] = await developer(rig, f"dev-{name}-florencia", caller)
        got = [await answered_by(rig, agents, caller) for caller in (EVE, ANA, BERNA, "+442071838750")]
        assert got == ["eve", "ana", "berna", "production"]
        agents["eve"].forget()
        await agents["eve"].ask("dev.config", "dev.configured", callers=[ANA, EVE])
        assert await answered_by(rig, agents, ANA) == "eve", "who said so last"


@pytest.mark.proves("row-151")
async def test_a_developer_alone_on_a_number_gets_every_call_of_it() -> None:
    async with running() as rig:
        agents = {
            "production": await rig.agent("florencia"),
            "dev": await developer(rig, "dev-ana-florencia", number="+12025550142"),
        }
        assert await answered_by(rig, agents, EVE, "+12025550142") == "dev"
        await agents["dev"].ask("dev.config", "dev.configured", callers=[ANA])
        assert await answered_by(rig, agents, EVE, "+12025550142") == "dev"
        assert await answered_by(rig, agents, EVE) == "production"
        agents["second"] = await developer(rig, "dev-berna-florencia", number="+12025550142")
        assert await answered_by(rig, agents, EVE, "+12025550142") == "", "of two, neither is meant"
        assert await answered_by(rig, agents, ANA, "+12025550142") == "dev"


@pytest.mark.proves("row-155")
async def test_a_developer_who_leaves_gives_the_calls_to_production_and_gets_them_back_on_return() -> None:
    async with running() as rig:
        agents = {"production": await rig.agent("florencia"), "dev": await developer(rig, "dev-ana-florencia", ANA)}
        assert await answered_by(rig, agents, ANA) == "dev"
        agents["dev"].drop()
        await asyncio.sleep(0.1)
        assert await answered_by(rig, agents, ANA) == "production"
        agents["dev"] = await developer(rig, "dev-ana-florencia")
        assert await answered_by(rig, agents, ANA) == "dev", "0.1.4 does not say it again"
        await agents["dev"].socket.close(1000, "client_disconnect")
        await asyncio.sleep(0.1)
        assert await answered_by(rig, agents, ANA) == "production"
        agents["dev"] = await developer(rig, "dev-ana-florencia")
        assert await answered_by(rig, agents, ANA) == "dev", "nor after a goodbye"


@pytest.mark.proves("row-155")
async def test_a_live_call_stays_with_the_developer_it_began_with() -> None:
    async with running() as rig:
        dev = await developer(rig, "dev-ana-florencia", ANA)
        await rig.agent("florencia")
        telephone = await rig.caller(NUMBER, ANA)
        await telephone.ring()
        call = (await dev.wait("call.started"))["call_id"]
        dev.drop()
        await asyncio.sleep(0.5)
        back = await developer(rig, "dev-ana-florencia")
        resumed = await back.told(call, "call.started")
        assert (resumed["resumed"], resumed["agent_id"]) == (True, "dev-ana-florencia")
        assert not telephone.is_over


@pytest.mark.proves("row-147")
async def test_overrides_stay_when_production_leaves_and_never_move_it() -> None:
    async with running() as rig:
        production = await rig.agent("florencia")
        agents = {"production": production, "dev": await developer(rig, "dev-ana-florencia", ANA)}
        production.drop()
        await asyncio.sleep(0.1)
        assert await answered_by(rig, agents, ANA) == "dev"
        back = agents["production"] = await rig.agent("florencia")
        assert back.count("error") == 0
        assert await answered_by(rig, agents, EVE) == "production"
        rival = await rig.connected()
        await rival.ask("agent.create", "agent.created", agent_id="zoe", **CONFIG)
        refused = await rival.ask("channel.add", "error", agent_id="zoe", type="phone", ref=NUMBER)
        assert (refused["code"], refused["owner"]) == ("PHONE_IN_USE", "florencia")


@pytest.mark.proves("row-149")
async def test_callers_without_an_agent_go_to_every_development_agent_of_the_connection_also_later_ones() -> None:
    async with running() as rig:
        agent = await rig.connected()
        await agent.ask("agent.create", "agent.created", agent_id="dev-ana-mara", **CONFIG)
        await agent.ask("dev.config", "dev.configured", callers=[ANA])
        await agent.ask("agent.create", "agent.created", agent_id="dev-ana-zoe", **CONFIG)
        await agent.ask("agent.create", "agent.created", agent_id="tool-desk", **CONFIG)
        registry = rig.gateway.registry
        callers = {one.key.slug: one.callers.numbers if one.callers else None for one in registry.of_org("org_main")}
        assert callers == {"dev-ana-mara": {ANA}, "dev-ana-zoe": {ANA}, "tool-desk": None}
        await agent.ask("dev.config", "dev.configured", callers=[BERNA])
        await agent.wait("dev.configured")
        callers = {one.key.slug: one.callers.numbers if one.callers else None for one in registry.of_org("org_main")}
        assert callers["dev-ana-zoe"] == {ANA, BERNA}, "two agents' lists cannot be told apart"
        await agent.ask("dev.config", "dev.configured", agent_id="dev-ana-zoe", callers=[EVE])
        callers = {one.key.slug: one.callers.numbers if one.callers else None for one in registry.of_org("org_main")}
        assert (callers["dev-ana-mara"], callers["dev-ana-zoe"]) == ({ANA, BERNA}, {EVE})


@pytest.mark.proves("row-148")
async def test_who_gets_which_calls_is_listed() -> None:
    async with running() as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        await rig.agent("florencia")
        await developer(rig, "dev-ana-florencia", ANA)
        listed = (await http.get("/api/sdk/agents", headers={"Authorization": f"Bearer {KEY}"})).json()
        assert listed["phone_map"] == {NUMBER: "florencia"}
        assert listed["dev_overrides"] == {NUMBER: "dev-ana-florencia"}
        assert listed["dev_callers"] == [ANA]


# --- WhatsApp: the same map and the same decision, for when its messages are served ---


@pytest.fixture
async def agents() -> AsyncGenerator[AgentsRig]:
    async with agents_running(agents=RegistryTimes(grace=1.0, remembered=1.0)) as rig:
        yield rig


def taken_by(rig: AgentsRig, to: str, sender: str) -> str:
    decision = rig.router.route(to, sender)
    return decision.agent.agent_id if isinstance(decision, Routed) else ""


async def test_a_whatsapp_number_is_shared_like_a_telephone_number_by_the_same_callers(agents: AgentsRig) -> None:
    production, dev = await agents.agent("mara", NUMBER), await agents.agent("dev-ana-mara", NUMBER)
    other = await agents.agent("zoe")
    whatsapp = {"type": "whatsapp", "ref": "106000123", "accessToken": "token"}
    for client, slug in ((production, "mara"), (dev, "dev-ana-mara")):
        added = await client.ask("channel.add", agent_id=slug, **whatsapp)
        assert added["event"] == "channel.added", added
    assert (await other.ask("channel.add", agent_id="zoe", **whatsapp))["code"] == "CHANNEL_IN_USE"
    await dev.ask("dev.config", callers=[ANA])
    assert taken_by(agents, "whatsapp:106000123", ANA.removeprefix("+")) == "dev-ana-mara", "Meta writes no +"
    assert taken_by(agents, "whatsapp:106000123", EVE.removeprefix("+")) == "mara"
    assert taken_by(agents, NUMBER, ANA) == "dev-ana-mara", "one list for both"
    vanish(dev)
    await agents.until_offline(2)
    assert taken_by(agents, "whatsapp:106000123", ANA.removeprefix("+")) == "mara"
    assert isinstance(agents.router.route("whatsapp:999", ANA), Nobody)


# --- what is forgotten (how long callers are remembered: tests/test_registry.py, on a clock that jumps days) ---


@pytest.mark.proves("row-155")
@pytest.mark.parametrize("forgotten", ["callers", "remove"])
async def test_callers_are_forgotten_when_the_developer_says_so(agents: AgentsRig, forgotten: str) -> None:
    await agents.agent("mara", NUMBER)
    dev = await agents.agent("dev-ana-mara", NUMBER)
    await dev.ask("dev.config", callers=[ANA])
    if forgotten == "callers":
        await dev.ask("dev.config", callers=[])
    else:
        await dev.ask("agent.remove", agent_id="dev-ana-mara")
    vanish(dev)
    await agents.until_offline(1)
    await agents.agent("dev-ana-mara", NUMBER)
    assert taken_by(agents, NUMBER, ANA) == "mara"
