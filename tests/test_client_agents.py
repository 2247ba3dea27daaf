"""Agents, channels, ownership and live calls over `/client`, as an SDK sees them."""

from __future__ import annotations

import asyncio

import pytest

from server.agents.agent import RegistryTimes
from server.agents.link import LinkTimes
from server.routing import Nobody, Routed
from tests.client_rig import OTHER_KEY, Client, RecordedCall, Rig, goodbye, running, vanish
from tests.jumping_loop import jumping
from wire.commands import BotReply, BotReplyStream, SessionConfigure

NUMBER = "+13186330963"
CALLER = "+15550001111"


def routed(rig: Rig, to: str = NUMBER, caller: str = CALLER) -> str:
    decision = rig.router.route(to, caller)
    return decision.agent.agent_id if isinstance(decision, Routed) else type(decision).__name__


def call_of(rig: Rig, slug: str) -> RecordedCall:
    """A live call of that agent, as the media side would register it."""
    call = RecordedCall(slug)
    agent = rig.registry.admit(call)
    call.sink, call.agent_id = agent.link, agent.agent_id
    return call


@pytest.mark.proves("ws-6")
async def test_ids_are_echoed_exactly_and_compared_by_slug() -> None:
    async with running() as rig:
        holder, second = await rig.connected(), await rig.connected()
        created = await holder.ask("agent.create", agent_id="Front_Desk 2")
        assert created == {"event": "agent.created", "agent_id": "Front_Desk 2"}
        asking = asyncio.create_task(second.ask("agent.create", agent_id="front-desk-2"))
        await _answer_pings(holder)
        refused = await asking
        assert refused["code"] == "AGENT_IN_USE"
        assert (refused["agent_id"], refused["holder_alive"]) == ("front-desk-2", True)
        assert refused["retry_after_s"] > 0
        for code in ("PHONE_IN_USE", "AGENT_IN_USE"):
            assert code not in refused["error"]
        configured = await holder.ask("agent.configure", agent_id="org_main:front-desk-2", language="es")
        assert configured == {"event": "agent.configured", "agent_id": "Front_Desk 2"}


@jumping
@pytest.mark.proves("ws-7")
async def test_an_agent_whose_holder_is_cut_off_is_free_within_seconds() -> None:
    async with running() as rig:
        dead = await rig.agent("mara", NUMBER)
        dead.socket.transport.pause_reading()
        newcomer = await rig.connected()
        since = rig.registry.clock.now()
        assert (await newcomer.ask("agent.create", agent_id="mara"))["event"] == "agent.created"
        assert rig.registry.clock.now() - since < 4.5


@pytest.mark.proves("ws-8", "row-9")
async def test_a_refused_agent_leaves_the_others_of_its_connection_alone() -> None:
    async with running() as rig:
        holder, client = await rig.agent("zoe"), await rig.connected()
        await client.send("agent.create", agent_id="mara")
        await client.send("agent.create", agent_id="zoe")
        await client.send("agent.create", agent_id="tom", stt={"provider": "no-such-provider"})
        await client.send("agent.create", agent_id="!!!")
        await client.send("channel.add", agent_id="mara", type="phone", ref=NUMBER)
        await _answer_pings(holder)
        answers = [await client.receive() for _ in range(5)]
        assert [(one["event"], one.get("code"), one["agent_id"]) for one in answers] == [
            ("agent.created", None, "mara"),
            ("error", "AGENT_IN_USE", "zoe"),
            ("error", "REGISTRATION_ERROR", "tom"),
            ("error", "BAD_REQUEST", "!!!"),
            ("channel.added", None, "mara"),
        ]
        assert routed(rig) == "mara"


@pytest.mark.proves("ws-10", "row-17", "row-19")
@pytest.mark.parametrize(
    ("ref", "called"),
    [
        ("+1 (318) 633-0963", NUMBER),
        ("1318-633-0963", NUMBER),
        ("phone:+13186330963", NUMBER),
        ("(202) 555-0142", "+12025550142"),
        ("sip:Desk@acme.sip.us1.twilio.com", "sip:desk@acme.sip.twilio.com"),
    ],
)
async def test_a_number_is_echoed_as_written_and_routed_as_dialled(ref: str, called: str) -> None:
    async with running() as rig:
        client = await rig.agent("mara")
        added = await client.ask("channel.add", agent_id="mara", type="phone", ref=ref)
        assert added == {"event": "channel.added", "agent_id": "mara", "type": "phone", "ref": ref}
        assert routed(rig, called) == "mara"


@pytest.mark.proves("row-15", "row-16", "ws-53")
async def test_every_type_of_channel_is_added_and_bad_ones_are_refused_alone() -> None:
    async with running() as rig:
        client = await rig.agent("mara")
        for type_ in ("webrtc", "mic", "chat"):
            added = await client.ask("channel.add", agent_id="mara", type=type_)
            assert (added["event"], added["ref"]) == ("channel.added", type_)
        whatsapp = await client.ask("channel.add", agent_id="mara", type="whatsapp", ref="1234", accessToken="t")
        assert (whatsapp["event"], whatsapp["ref"]) == ("channel.added", "1234")
        for fields in ({"type": "whatsapp"}, {"type": "phone"}, {"type": "phone", "ref": "call me"}, {"type": "fax"}):
            refused = await client.ask("channel.add", agent_id="mara", **fields)
            assert (refused["code"], refused["agent_id"]) == ("BAD_REQUEST", "mara")


@pytest.mark.proves("ws-11", "row-113")
async def test_a_number_belongs_to_one_agent_and_the_second_claimant_is_told() -> None:
    async with running() as rig:
        first, second = await rig.agent("mara", NUMBER), await rig.agent("zoe")
        asking = asyncio.create_task(second.ask("channel.add", agent_id="zoe", type="phone", ref="1 318 633 0963"))
        await _answer_pings(first)
        refused = await asking
        assert (refused["code"], refused["phone"]) == ("PHONE_IN_USE", "1 318 633 0963")
        assert (refused["owner"], refused["agent_id"]) == ("mara", "zoe")
        stranger = await rig.agent("mara", key=OTHER_KEY)
        refused = await stranger.ask("channel.add", agent_id="mara", type="phone", ref=NUMBER)
        assert refused["code"] == "PHONE_IN_USE"
        assert "owner" not in refused
        assert routed(rig) == "mara"


@pytest.mark.proves("ws-12", "ws-13", "row-4")
async def test_development_callers_hold_over_a_reconnect_without_being_sent_again() -> None:
    async with running() as rig:
        await rig.agent("mara", NUMBER)
        dev = await rig.agent("dev-ana-mara", NUMBER)
        configured = await dev.ask("dev.config", callers=["+34 600 000 001"])
        assert configured["callers"] == ["+34600000001"]
        assert (routed(rig, caller="+34600000001"), routed(rig)) == ("dev-ana-mara", "mara")
        vanish(dev)
        await rig.until_offline(links=1)
        assert routed(rig, caller="+34600000001") == "mara"
        await rig.agent("dev-ana-mara", NUMBER)
        assert routed(rig, caller="+34600000001") == "dev-ana-mara"


@pytest.mark.proves("row-12", "row-23")
async def test_removed_channels_and_agents_get_no_more_calls() -> None:
    async with running() as rig:
        client = await rig.agent("mara", "+1 318 633 0963", "+13180000000")
        removed = await client.ask("channel.remove", agent_id="mara", ref="+1 318 633 0963", type="phone")
        assert removed == {"event": "channel.removed", "agent_id": "mara", "ref": "+1 318 633 0963"}
        assert rig.router.route(NUMBER, CALLER) == Nobody("unknown_number")
        unknown = await client.ask("channel.configure", agent_id="mara", ref=NUMBER, language="es")
        assert unknown["code"] == "CHANNEL_NOT_FOUND"
        call = call_of(rig, "mara")
        await client.send("agent.remove", agent_id="mara")
        assert [(await client.receive())["event"] for _ in range(2)] == ["call.ended", "agent.removed"]
        assert call.ended == "agent_removed"
        assert routed(rig, "+13180000000") == "Nobody"
        assert (await client.ask("agent.configure", agent_id="mara"))["code"] == "AGENT_NOT_FOUND"


@pytest.mark.proves("row-11", "row-22")
async def test_configuration_is_kept_for_agent_and_channel_apart() -> None:
    async with running() as rig:
        client = await rig.agent("mara")
        await client.ask("agent.configure", agent_id="mara", language="es", prompt="Hola")
        await client.ask("channel.add", agent_id="mara", type="phone", ref=NUMBER, language="fr")
        configured = await client.ask("channel.configure", agent_id="mara", ref=NUMBER, prompt="Salut")
        assert configured == {"event": "channel.configured", "agent_id": "mara", "ref": NUMBER}
        decision = rig.router.route(NUMBER, CALLER)
        assert isinstance(decision, Routed)
        assert decision.agent.layer.values == {"language": "es", "prompt": "Hola"}
        assert decision.channel.layer.values == {"language": "fr", "prompt": "Salut"}
        refused = await client.ask("agent.configure", agent_id="mara", language=7)
        assert refused["code"] == "REGISTRATION_ERROR"
        assert decision.agent.layer.values["language"] == "es"
        again = await client.ask("agent.create", agent_id="mara", language="de")
        assert again["event"] == "agent.created"
        assert rig.registry.of_org("org_main")[0].layer.values == {"language": "de"}


@pytest.mark.proves("row-10")
async def test_three_hundred_agents_fit_on_one_socket() -> None:
    async with running() as rig:
        client = await rig.connected()
        for number in range(300):
            await client.send("agent.create", agent_id=f"agent-{number}", prompt="You are number {number}. " * 50)
            await client.send("channel.add", agent_id=f"agent-{number}", type="phone", ref=f"+1318000{number:04}")
        answers = [await client.receive() for _ in range(600)]
        assert {one["agent_id"] for one in answers if one["event"] == "agent.created"} == {
            f"agent-{number}" for number in range(300)
        }
        assert sum(one["event"] == "channel.added" for one in answers) == 300
        assert routed(rig, "+13180000299") == "agent-299"


@pytest.mark.proves("row-189", "row-9")
async def test_events_reach_the_connection_that_owns_the_agent() -> None:
    async with running() as rig:
        east, west = await rig.agent("mara"), await rig.agent("zoe")
        call_of(rig, "mara").end("hangup")
        assert (await east.receive())["event"] == "call.ended"
        await west.silence()


@pytest.mark.proves("ws-47")
async def test_commands_for_ended_unknown_and_foreign_calls_are_met_with_silence() -> None:
    async with running() as rig:
        owner, stranger = await rig.agent("mara"), await rig.agent("zoe")
        call = call_of(rig, "mara")
        await stranger.send("bot.reply", call_id=call.call_id, text="Boo", in_reply_to="")
        await stranger.send("call.hangup", call_id="CAunknown")
        await stranger.silence()
        await owner.send("bot.reply", call_id=call.call_id, message_id="msg_1", text="Hello")
        await owner.send("bot.reply.stream", call_id=call.call_id, message_id="msg_2", action="start")
        await owner.send("session.configure", session_id=call.call_id, language="es")
        await owner.silence()
        assert [type(one) for one in call.commands] == [BotReply, BotReplyStream, SessionConfigure]
        rig.registry.calls.remove(call.org_id, call.call_id)
        await owner.send("history.get", call_id=call.call_id)
        await owner.silence()
        assert len(call.commands) == 3


@pytest.mark.proves("ws-48", "row-4")
async def test_a_live_call_is_attached_again_before_any_other_event_of_it() -> None:
    async with running() as rig:
        client = await rig.agent("mara", NUMBER)
        call = call_of(rig, "mara")
        vanish(client)
        await rig.until_offline()
        assert call.sink is None
        back = await rig.connected()
        await back.send("agent.create", agent_id="Mara")
        assert (await back.receive())["event"] == "agent.created"
        started = await back.receive()
        assert (started["event"], started["resumed"], started["agent_id"]) == ("call.started", True, "Mara")
        await back.send("bot.reply", call_id=call.call_id, text="Where were we?")
        await back.silence()
        assert len(call.commands) == 1
        assert call.ended == ""
        assert routed(rig) == "Mara"


@pytest.mark.proves("ws-48")
async def test_a_call_whose_agent_stays_away_is_hung_up() -> None:
    async with running(agents=RegistryTimes(grace=0.05, remembered=0.1)) as rig:
        client = await rig.agent("mara", NUMBER)
        call = call_of(rig, "mara")
        vanish(client)
        await rig.until_offline()
        for _ in range(100):
            if not rig.registry.of_org("org_main"):
                break
            await asyncio.sleep(0.01)
        assert call.ended == "agent_disconnected"
        assert routed(rig) == "Nobody"


@pytest.mark.proves("row-7")
async def test_a_goodbye_ends_the_calls_and_frees_the_number_at_once() -> None:
    async with running() as rig:
        client = await rig.agent("mara", NUMBER)
        call = call_of(rig, "mara")
        await goodbye(client)
        await rig.until_offline()
        assert call.ended == "agent_disconnected"
        await rig.agent("zoe", NUMBER)


@pytest.mark.proves("ws-51")
async def test_ringing_is_remembered_only_where_it_was_asked_for() -> None:
    async with running() as rig:
        client = await rig.agent("mara", NUMBER)
        await client.ask("channel.add", agent_id="mara", type="phone", ref="+13180000000", ringing=True)
        channels = rig.registry.of_org("org_main")[0].channels
        assert {ref: channel.ringing for ref, channel in channels.items()} == {NUMBER: False, "+13180000000": True}


async def test_a_kicked_agent_is_displaced_and_a_connection_left_empty_closed_4001() -> None:
    async with running() as rig:
        client = await rig.agent("mara", NUMBER)
        await rig.registry.kick(rig.registry.of_org("org_main")[0].key)
        assert await client.receive() == {"event": "agent.displaced", "agent_id": "mara", "reason": "kicked"}
        assert await client.closed() == (4001, "displaced")


async def test_a_conflict_does_not_hold_up_the_calls_of_the_connection_that_waits() -> None:
    async with running(LinkTimes(probe=0.2)) as rig:
        dead, client = await rig.agent("zoe"), await rig.agent("mara")
        call = call_of(rig, "mara")
        dead.socket.transport.pause_reading()
        await client.send("agent.create", agent_id="zoe")
        await client.send("bot.reply", call_id=call.call_id, text="Still here")
        await client.silence()
        assert len(call.commands) == 1
        assert (await client.receive())["event"] == "agent.created"


async def _answer_pings(client: Client) -> None:
    """Answer the gateway's next question whether anybody is there."""
    while (await client.receive_any())["event"] != "ping":
        pass
    await client.send("pong")
