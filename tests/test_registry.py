"""Who owns agents and numbers, without a socket: links are fed by hand, the clock jumps."""

from __future__ import annotations

import asyncio
import json

import pytest

from pipelines.clock import LoopClock
from server.agents.agent import RegistryTimes, slugify
from server.agents.channels import Channel, Refusal
from server.agents.link import AgentLink, LinkTimes
from server.agents.reach import Reach
from server.agents.registry import AgentRegistry
from server.routing import Nobody, Routed, Router, Wait
from server.store.base import AgentKey, Callers
from server.store.memory import MemoryStore
from tests.client_rig import RecordedCall, new_registry
from tests.jumping_loop import jumping
from wire.commands import AgentCreate, ChannelAdd, ChannelRemove, DevConfig

NUMBER = "+13186330963"
CALLER = "+34600000001"
MARA = AgentKey("org_main", "mara")


class Desk:
    """A registry and the connections to it."""

    def __init__(self, times: RegistryTimes | None = None) -> None:
        self.registry: AgentRegistry = new_registry(times)
        self.reach = Reach(self.registry)
        self.router = Router(self.registry)
        self._count = 0

    def link(self, org_id: str = "org_main") -> AgentLink:
        self._count += 1
        link = AgentLink(f"conn_{self._count}", "127.0.0.1", LoopClock(), LinkTimes())
        link.accept(org_id)
        self.registry.join(link)
        return link

    async def create(self, link: AgentLink, agent_id: str, *numbers: str) -> None:
        await self.registry.create(link, AgentCreate(agent_id=agent_id))
        await self.reach.inherit_callers(link, agent_id)
        for number in numbers:
            await self.reach.add(link, ChannelAdd(agent_id=agent_id, type="phone", ref=number))

    async def callers(self, link: AgentLink, *callers: str, agent_id: str = "") -> None:
        await self.reach.dev_config(link, DevConfig(callers=list(callers), agent_id=agent_id))

    def routed(self, caller: str = CALLER, to: str = NUMBER) -> str:
        decision = self.router.route(to, caller)
        return decision.agent.agent_id if isinstance(decision, Routed) else type(decision).__name__

    async def drop(self, link: AgentLink, code: int = 1006, reason: str = "") -> None:
        link.gone(code, reason)
        await self.registry.leave(link)


async def sent(link: AgentLink) -> list[str]:
    """The events that wait for this link, by name."""
    names: list[str] = []
    while len(link.outbox):
        frame = await link.outbox.next()
        assert isinstance(frame, bytes)
        names.append(json.loads(frame)["event"])
    return names


async def answering(link: AgentLink) -> None:
    """A client that answers every ping."""
    while isinstance(frame := await link.outbox.next(), bytes):
        if json.loads(frame)["event"] == "ping":
            link.receive('{"event":"pong"}')


@pytest.mark.parametrize(
    ("sent_id", "slug"),
    [
        ("mara", "mara"),
        ("Front_Desk 2", "front-desk-2"),
        ("org_main:mara", "mara"),
        ("  Über--Agent! ", "ber-agent"),
        ("dev-berna-mara", "dev-berna-mara"),
        ("!!!", ""),
    ],
)
def test_every_spelling_of_an_agent_has_one_slug(sent_id: str, slug: str) -> None:
    assert slugify(sent_id) == slug


async def test_creating_again_on_the_same_connection_replaces_and_keeps_the_channels() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "Mara", NUMBER)
    await desk.create(link, "mara")
    assert await sent(link) == ["connected", "agent.created", "channel.added", "agent.created"]
    assert desk.routed() == "mara"


@pytest.mark.proves("row-188")
async def test_two_organisations_have_the_same_slug_without_seeing_each_other() -> None:
    desk = Desk()
    one, two = desk.link("org_main"), desk.link("org_two")
    await desk.create(one, "mara", NUMBER)
    await desk.create(two, "mara")
    assert len(desk.registry.of_org("org_main")) == len(desk.registry.of_org("org_two")) == 1
    with pytest.raises(Refusal) as refused:
        await desk.reach.add(two, ChannelAdd(agent_id="mara", type="phone", ref=NUMBER))
    assert refused.value.code == "PHONE_IN_USE"
    assert refused.value.fields == {"phone": NUMBER}
    with pytest.raises(Refusal):
        desk.registry.owned(two, "zoe")


@jumping
async def test_a_holder_that_does_not_answer_loses_agent_and_number_silently() -> None:
    desk = Desk()
    silent = desk.link()
    await desk.create(silent, "mara", NUMBER)
    call = RecordedCall("mara")
    desk.registry.admit(call)
    newcomer = desk.link()
    await desk.create(newcomer, "mara")
    assert silent.closure is not None
    assert (silent.closure.code, silent.closure.reason) == (1001, "ping_timeout")
    assert await sent(newcomer) == ["connected", "agent.created", "call.started"]
    other = desk.link()
    await desk.create(other, "zoe", NUMBER)
    assert desk.routed() == "zoe"


@jumping
async def test_of_two_newcomers_one_gets_a_dead_agent_and_the_other_is_refused() -> None:
    desk = Desk()
    await desk.create(desk.link(), "mara")
    links = [desk.link(), desk.link()]
    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(answering(link)) for link in links]
        outcomes = await asyncio.gather(*(desk.create(link, "mara") for link in links), return_exceptions=True)
        for client in clients:
            client.cancel()
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert [(one.code, one.fields["holder_alive"]) for one in refused] == [("AGENT_IN_USE", True)]
    assert [outcome for outcome in outcomes if outcome is None] == [None]


@jumping
async def test_three_hundred_refusals_cost_one_probe() -> None:
    desk = Desk()
    holder, newcomer = desk.link(), desk.link()
    for number in range(300):
        await desk.create(holder, f"agent-{number}")
    await sent(holder)
    pings = 0

    async def count() -> None:
        nonlocal pings
        while isinstance(frame := await holder.outbox.next(), bytes):
            pings += 1
            assert json.loads(frame)["event"] == "ping"
            holder.receive('{"event":"pong"}')

    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count())
        for number in range(300):
            with pytest.raises(Refusal):
                await desk.create(newcomer, f"agent-{number}")
        counting.cancel()
    assert pings == 1


@pytest.mark.proves("ws-12")
async def test_a_callers_own_development_agent_gets_the_call_anyone_else_production() -> None:
    desk = Desk()
    production, dev = desk.link(), desk.link()
    await desk.create(production, "mara", NUMBER)
    await desk.create(dev, "dev-ana-mara", NUMBER)
    assert desk.routed() == "mara"
    await desk.callers(dev, "+34 600 000 001")
    assert desk.routed() == "dev-ana-mara"
    assert desk.routed("+15550009999") == "mara"
    await desk.drop(dev)
    assert desk.routed() == "mara"


@jumping
@pytest.mark.proves("ws-13", "row-155")
async def test_dev_callers_survive_reconnects_for_a_day_and_no_removal() -> None:
    desk = Desk()
    await desk.create(desk.link(), "mara", NUMBER)
    dev = desk.link()
    await desk.create(dev, "dev-ana-mara", NUMBER)
    await desk.callers(dev, CALLER)
    for hours_away, expected in ((23.9, "dev-ana-mara"), (24.1, "mara")):
        await desk.drop(dev)
        await asyncio.sleep(30.0)
        await desk.registry.expire()
        await asyncio.sleep(hours_away * 3600)
        dev = desk.link()
        await desk.create(dev, "dev-ana-mara", NUMBER)
        assert desk.routed() == expected
    await desk.callers(dev, CALLER)
    await desk.registry.remove(dev, "dev-ana-mara")
    dev = desk.link()
    await desk.create(dev, "dev-ana-mara", NUMBER)
    assert desk.routed() == "mara"


async def test_dev_callers_replace_clear_and_unite_as_they_must() -> None:
    desk = Desk()
    await desk.create(desk.link(), "mara", NUMBER)
    dev = desk.link()
    await desk.create(dev, "dev-ana-mara", NUMBER)
    await desk.callers(dev, CALLER)
    await desk.callers(dev, "+34600000002")
    assert (desk.routed(), desk.routed("+34600000002")) == ("mara", "dev-ana-mara")
    await desk.create(dev, "staging-mara", "+13180000000")
    assert desk.routed("+34600000002", "+13180000000") == "staging-mara"
    await desk.callers(dev, CALLER)
    assert (desk.routed(), desk.routed("+34600000002")) == ("dev-ana-mara", "dev-ana-mara")
    await desk.callers(dev)
    assert desk.routed() == "mara"
    await desk.callers(dev, CALLER, agent_id="dev-ana-mara")
    assert desk.routed() == "dev-ana-mara"


@jumping
async def test_calls_wait_for_their_agent_as_long_as_the_grace_and_no_longer() -> None:
    desk = Desk(RegistryTimes(grace=20.0))
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    call = RecordedCall("mara", sink=link)
    desk.registry.admit(call)
    await desk.drop(link)
    assert call.sink is None
    async with asyncio.TaskGroup() as tasks:
        clockwork = tasks.create_task(desk.registry.run())
        await asyncio.sleep(19.0)
        assert call.ended == ""
        await asyncio.sleep(2.0)
        assert call.ended == "agent_disconnected"
        clockwork.cancel()
    assert desk.registry.find(MARA) is None
    with pytest.raises(LookupError):
        desk.registry.admit(RecordedCall("mara"))


@jumping
async def test_without_grace_calls_end_at_once_but_a_webhook_may_still_wait() -> None:
    desk = Desk(RegistryTimes(grace=0.0))
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    call = RecordedCall("mara", sink=link)
    desk.registry.admit(call)
    await desk.drop(link)
    await desk.registry.expire()
    assert call.ended == "agent_disconnected"
    assert isinstance(desk.router.route(NUMBER, CALLER), Wait)
    await asyncio.sleep(10.5)
    await desk.registry.expire()
    assert desk.router.route(NUMBER, CALLER) == Nobody("unknown_number")


@jumping
@pytest.mark.proves("row-4")
async def test_a_call_waits_for_an_owner_that_dropped_a_moment_ago() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    await desk.drop(link)
    assert await desk.router.route_soon(NUMBER, CALLER, 0.5) == Nobody("agent_offline")

    async def come_back() -> None:
        await asyncio.sleep(2.0)
        await desk.create(desk.link(), "mara")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(come_back())
        decision = await desk.router.route_soon(NUMBER, CALLER, 5.0)
    assert isinstance(decision, Routed)
    assert decision.channel.ref == NUMBER


@jumping
async def test_channels_that_a_returned_program_does_not_add_again_go_away() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", NUMBER, "+13180000000")
    await desk.drop(link)
    await desk.create(desk.link(), "mara", NUMBER)
    assert desk.routed(to="+13180000000") == "mara"
    await asyncio.sleep(11.0)
    await desk.registry.expire()
    assert desk.routed(to="+13180000000") == "Nobody"
    assert desk.routed() == "mara"


@pytest.mark.proves("row-5", "row-7")
async def test_a_goodbye_frees_everything_at_once() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    call = RecordedCall("mara", sink=link)
    desk.registry.admit(call)
    await desk.drop(link, 1000, "client_disconnect")
    assert call.ended == "agent_disconnected"
    assert desk.registry.find(MARA) is None
    await desk.create(desk.link("org_two"), "mara", NUMBER)
    assert desk.routed() == "mara"


async def test_a_kick_displaces_and_closes_only_a_connection_left_without_agents() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    await desk.create(link, "zoe")
    call = RecordedCall("mara", sink=link)
    desk.registry.admit(call)
    await sent(link)
    assert await desk.registry.kick(MARA)
    assert call.ended == "agent_removed"
    assert await sent(link) == ["call.ended", "agent.displaced"]
    assert link.connected
    assert desk.routed() == "Nobody"
    assert await desk.registry.kick(AgentKey("org_main", "zoe"))
    assert link.closure is not None
    assert (link.closure.code, link.closure.reason) == (4001, "displaced")
    assert not await desk.registry.kick(MARA)


async def test_an_agent_nobody_holds_is_resumed_with_its_configuration() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", NUMBER)
    other = desk.link()
    with pytest.raises(Refusal, match="no such agent"):
        await desk.registry.resume(other, "mara")
    await desk.drop(link)
    await desk.registry.resume(other, "Mara")
    assert await sent(other) == ["connected", "agent.resumed"]
    assert desk.routed() == "Mara"


@pytest.mark.proves("row-21")
async def test_a_whatsapp_number_keeps_its_display_number_and_needs_credentials() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara")
    added = ChannelAdd(agent_id="mara", type="whatsapp", ref="wa9", access_token="t", phone="+1555")
    await desk.reach.add(link, added)
    await desk.drop(link)
    back = desk.link()
    await desk.create(back, "mara")
    await desk.reach.add(back, ChannelAdd(agent_id="mara", type="whatsapp", ref="wa9", access_token="t"))
    agent = desk.registry.owned(back, "mara")
    channel: Channel = agent.channels["whatsapp:wa9"]
    assert channel.whatsapp is not None
    assert (channel.whatsapp.phone, channel.whatsapp.verify_token) == ("+1555", "pinecall-wa-verify")
    assert "'t'" not in repr(channel)
    for bad in (ChannelAdd(agent_id="mara", type="whatsapp"), ChannelAdd(agent_id="mara", type="whatsapp", ref="x")):
        with pytest.raises(Refusal) as refused:
            await desk.reach.add(back, bad)
        assert refused.value.code == "BAD_REQUEST"


async def test_a_number_taken_off_can_be_taken_by_another_agent() -> None:
    desk = Desk()
    link = desk.link()
    await desk.create(link, "mara", "+1 (318) 633-0963")
    await desk.create(link, "zoe")
    with pytest.raises(Refusal) as refused:
        await desk.reach.add(link, ChannelAdd(agent_id="zoe", type="phone", ref=NUMBER))
    assert refused.value.fields == {"phone": NUMBER, "owner": "mara"}
    await desk.reach.remove(link, ChannelRemove(agent_id="mara", ref=NUMBER))
    await desk.reach.add(link, ChannelAdd(agent_id="zoe", type="phone", ref=NUMBER))
    assert desk.routed() == "zoe"


@jumping
async def test_a_token_can_be_taken_once_and_in_time_only() -> None:
    store = MemoryStore(LoopClock().now)
    await store.put_token("a", b"1", 60.0)
    await store.put_token("b", b"2", 60.0)
    taken = await asyncio.gather(store.take_token("a"), store.take_token("a"))
    assert sorted(taken, key=str) == [None, b"1"] or sorted(taken, key=str) == [b"1", None]
    await asyncio.sleep(61.0)
    assert await store.take_token("b") is None
    await store.keep_callers(MARA, Callers(frozenset({CALLER}), 1.0), 10.0)
    await asyncio.sleep(11.0)
    assert await store.callers(MARA) is None
