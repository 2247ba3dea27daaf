"""Calls that agents make and nobody picks up: each ends in one frame that says why, whatever the carrier does."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from demo.caller import CallOver, SoftwareCaller
from demo.dialling import Dial, read_twiml
from tests.dial_rig import GREETING, PUBLIC, THEIRS, DialRig, dialling
from tests.phone_rig import NUMBER, Frame, names, running
from tests.simulators.twilio_callee import Callee, Exchange, Order
from tests.virtual_time import event_loop_policy as event_loop_policy

METADATA: dict[str, Any] = {"order": 17, "nested": {"a": [1, None]}}


def now() -> float:
    return asyncio.get_running_loop().time()


async def one_end(it: DialRig, patience: float = 40.0) -> Frame:
    """The end of the only dial: it comes alone, and stays the only one however long one waits."""
    ended = await it.ended(patience)
    await asyncio.sleep(90)
    assert len(it.about("call.ended")) == 1
    assert it.about("call.started") == []
    assert it.about("error") == []
    assert (ended["direction"], ended["to"], ended["duration_seconds"], ended["messages"]) == (
        "outbound",
        THEIRS,
        0,
        [],
    )
    return ended


# --- what the carrier says ---


@pytest.mark.proves("row-121", "ws-38")
@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("what", ["busy", "no-answer", "failed"])
async def test_whoever_is_not_reached_is_told_of_with_the_reason(what: str, order: Order) -> None:
    async with dialling(Callee(what, rings_s=2, order=order)) as it:
        began = now()
        call = await it.dialled(greeting=GREETING, metadata=METADATA)
        ended = await it.ended(40)
        assert now() - began < 30
        await asyncio.sleep(90)
        assert names(it.agent.of_call(call.sid)) == ["call.dialing", "call.ended"]
        reason = "no-answer" if order is Order.NEVER else what
        assert (ended["reason"], ended["metadata"], ended["agent_id"]) == (reason, METADATA, "mara")
        assert ("error" in ended) == (reason == "failed")
        assert (ended["started_at"] - ended["ended_at"], ended["duration_seconds"], ended["messages"]) == (0, 0, [])


async def test_a_status_is_acted_on_at_once() -> None:
    async with dialling(Callee("busy", rings_s=2)) as it:
        began = now()
        await it.dial()
        assert (await it.ended())["reason"] == "busy"
        assert now() - began < 2.5


async def test_a_late_status_says_nothing_new() -> None:
    async with dialling(Callee("busy", rings_s=2, late_s=40)) as it:
        began = now()
        await it.dial()
        assert (await one_end(it))["reason"] == "no-answer"
        assert it.twilio.dials[0].answers[-1] == ("busy", 204)
        assert now() - began > 40


async def test_somebody_rings_no_longer_than_the_app_waits_and_is_called_off() -> None:
    """The carrier rings on beyond its own limit and says nothing."""
    async with dialling(Callee("no-answer", overtime_s=35, order=Order.NEVER)) as it:
        began = now()
        call = await it.dialled()
        assert (await it.ended(40))["reason"] == "no-answer"
        assert 27 < now() - began < 30
        await asyncio.sleep(1)
        assert it.twilio.calls[call.sid] == "canceled"


async def test_an_unsigned_status_changes_nothing() -> None:
    async with dialling(Callee(rings_s=5)) as it:
        call = await it.dialled()
        path = call.form.get("StatusCallback").removeprefix(PUBLIC)
        form = {"CallSid": call.sid, "AccountSid": it.twilio.account_sid, "CallStatus": "busy"}
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.post(it.rig.http + path, data=form)).status_code == 403
        await call.picked_up()
        await it.agent.told(call.sid, "call.started")


async def test_a_call_that_was_over_before_its_audio_came_has_failed() -> None:
    async with dialling(Callee(rings_s=2)) as it:
        it.twilio.gateway = "http://127.0.0.1:9"
        call = await it.dialled()
        call.exchange = Exchange(it.twilio.account_sid, it.twilio.auth_token, it.rig.http)
        call.form.fields = [field for field in call.form.fields if field[0] != "Twiml"] + [
            ("Twiml", "<Response><Hangup/></Response>")
        ]
        ended = await one_end(it)
        assert (ended["reason"], ended["code"]) == ("failed", "CARRIER_ERROR")
        assert call.status == "completed"


async def test_an_answer_without_a_stream_is_given_up_and_hung_up() -> None:
    async with dialling(Callee(rings_s=24)) as it:
        call = await it.dialled()
        answered = {"CallSid": call.sid, "AccountSid": it.twilio.account_sid, "CallStatus": "in-progress"}
        assert (await call.exchange.post(call.form.get("StatusCallback"), answered)).status_code == 204
        began = now()
        ended = await it.ended()
        assert 9 < now() - began < 11
        assert (ended["reason"], ended["code"]) == ("failed", "CARRIER_ERROR")
        await call.over.wait()
        assert call.status == "canceled"


# --- what the carrier's API says ---


@pytest.mark.parametrize(
    ("outage", "words"), [(429, "429"), (500, "500"), (503, "503"), (400, "Simulated outage"), (401, "401")]
)
async def test_a_request_that_fails_is_told_of_in_the_carriers_words(outage: int, words: str) -> None:
    async with dialling() as it:
        it.twilio.outages = [outage]
        began = now()
        await it.dial(metadata=METADATA)
        ended = await one_end(it)
        assert now() - began < 100
    assert (ended["reason"], ended["code"], ended["metadata"]) == ("failed", "CARRIER_ERROR", METADATA)
    assert words in ended["error"]
    assert ended["call_id"].startswith("dial_")
    assert it.about("call.dialing") == []
    assert it.twilio.dials == []


async def test_a_number_that_is_not_the_accounts_is_refused_in_the_carriers_words() -> None:
    async with dialling() as it:
        it.twilio.numbers.clear()
        await it.dial()
        ended = await one_end(it)
    assert (ended["reason"], ended["code"]) == ("failed", "CARRIER_ERROR")
    assert "400" in ended["error"]


async def test_a_carrier_that_never_answers_is_waited_for_5_s() -> None:
    async with dialling() as it:
        it.twilio.stalled = True
        began = now()
        await it.dial()
        ended = await it.ended()
        assert 4.5 < now() - began < 6
        assert (ended["reason"], ended["code"]) == ("failed", "CARRIER_ERROR")
        it.twilio.stalled = False


async def test_a_call_placed_without_our_ever_hearing_so_is_called_off_and_never_let_in() -> None:
    """No callback in time either: the agent was told that it failed, so nobody may talk to an answerer."""
    async with dialling(Callee(rings_s=20, late_s=8)) as it:
        it.twilio.placing_s = 30
        call = await it.dialled(greeting=GREETING)
        ended = await it.ended()
        assert (ended["reason"], ended["call_id"][:5]) == ("failed", "dial_")
        await call.over.wait()
        assert call.status == "canceled"
        await asyncio.sleep(60)
        assert len(it.about("call.ended")) == 1
        assert it.agent.of_call(call.sid) == []


@pytest.mark.parametrize("what", ["busy", "no-answer", "failed"])
async def test_a_status_may_come_before_the_answer_to_the_request(what: str) -> None:
    async with dialling(Callee(what, rings_s=0.5)) as it:
        it.twilio.placing_s = 3
        call = await it.dialled()
        ended = await it.ended()
        await asyncio.sleep(60)
        assert names(it.agent.of_call(call.sid)) == ["call.dialing", "call.ended"]
        assert ended["reason"] == what
        assert len(it.about("call.ended")) == 1


@pytest.mark.parametrize("placing", [3, 20])
async def test_somebody_may_pick_up_before_the_answer_to_the_request(placing: float) -> None:
    """And even if that answer never comes: the call is there, its stream says so."""
    async with dialling(Callee(rings_s=0.5, order=Order.NEVER)) as it:
        it.twilio.placing_s = placing
        telephone, sid = await it.talking(greeting=GREETING)
        await it.agent.told(sid, "bot.finished")
        await asyncio.sleep(20)
        assert not telephone.is_over
        await telephone.hang_up()
        assert (await it.ended())["reason"] == "hangup"
        assert names(it.agent.of_call(sid))[:2] == ["call.dialing", "call.started"]
        assert len(it.about("call.ended")) == 1


# --- what the agent does ---


@pytest.mark.proves("row-121")
async def test_hanging_up_while_it_rings_calls_it_off() -> None:
    async with dialling(Callee(rings_s=20)) as it:
        call = await it.dialled(metadata=METADATA)
        await it.agent.told(call.sid, "call.dialing")
        await it.agent.send("call.hangup", call_id=call.sid)
        await it.agent.send("call.hangup", call_id=call.sid)
        ended = await it.ended(1)
        assert (ended["reason"], ended["metadata"]) == ("canceled", METADATA)
        await call.over.wait()
        assert call.status == "canceled"
        await asyncio.sleep(60)
        assert names(it.agent.of_call(call.sid)) == ["call.dialing", "call.ended"]


async def test_hanging_up_on_somebody_who_picks_up_that_very_moment_ends_the_call() -> None:
    async with dialling(Callee(rings_s=2, late_s=5)) as it:
        call = await it.dialled()
        await it.agent.told(call.sid, "call.dialing")
        await asyncio.sleep(1.99)
        while it.twilio.calls[call.sid] != "in-progress":  # noqa: ASYNC110 - the very moment
            await asyncio.sleep(0.001)
        await it.agent.send("call.hangup", call_id=call.sid)
        ended = await it.ended()
        assert ended["reason"] in ("canceled", "client_hangup")
        await call.over.wait()
        assert call.status == "completed"
        await asyncio.sleep(60)
        assert len(it.about("call.ended")) == 1


async def test_other_commands_for_a_ringing_telephone_are_overlooked() -> None:
    async with dialling(Callee(rings_s=2)) as it:
        call = await it.dialled()
        await it.agent.told(call.sid, "call.dialing")
        await it.agent.say(call.sid, "Too early.", "msg_early")
        await it.agent.send("call.mute", call_id=call.sid)
        await call.picked_up()
        await it.agent.told(call.sid, "call.started")
        await asyncio.sleep(2)
        assert names(it.agent.of_call(call.sid)) == ["call.dialing", "call.started"]


async def test_an_agent_that_stays_away_has_its_telephones_stop_ringing() -> None:
    async with dialling(Callee(rings_s=24), agent_grace_seconds=5) as it:
        call = await it.dialled()
        await it.agent.told(call.sid, "call.dialing")
        it.agent.drop()
        await asyncio.sleep(4)
        assert it.twilio.calls[call.sid] == "ringing"
        await call.over.wait()
        assert call.status == "canceled"


async def test_an_agent_that_comes_back_is_told_again_and_gets_its_call() -> None:
    async with dialling(Callee(rings_s=8)) as it:
        call = await it.dialled(greeting=GREETING)
        await it.agent.told(call.sid, "call.dialing")
        it.agent.drop()
        await asyncio.sleep(1)
        again = await it.rig.agent()
        await again.told(call.sid, "call.dialing")
        await call.picked_up()
        await again.told(call.sid, "bot.finished")
        assert names(again.of_call(call.sid))[:3] == ["call.dialing", "call.started", "bot.speaking"]
        assert "resumed" not in again.of_call(call.sid)[1]


async def test_an_agent_that_is_removed_takes_its_dials_along() -> None:
    async with dialling(Callee(rings_s=20)) as it:
        call = await it.dialled()
        await it.agent.told(call.sid, "call.dialing")
        await it.agent.send("agent.remove", agent_id="mara")
        assert (await it.ended())["reason"] == "canceled"
        await call.over.wait()
        assert call.status == "canceled"


async def test_an_agent_that_goes_before_the_carrier_answered_has_nobody_called() -> None:
    async with dialling(Callee(rings_s=20, late_s=30)) as it:
        it.twilio.placing_s = 2
        call = await it.dialled()
        await it.agent.send("agent.remove", agent_id="mara")
        assert (await it.ended(1))["reason"] == "canceled"
        await call.over.wait()
        assert call.status == "canceled"


async def test_a_request_that_fails_after_its_agent_has_gone_ends_nothing_twice() -> None:
    async with dialling(Callee(rings_s=20, late_s=30)) as it:
        it.twilio.placing_s = 8
        await it.dial()
        await asyncio.sleep(1)
        await it.agent.send("agent.remove", agent_id="mara")
        assert (await it.ended(1))["reason"] == "canceled"
        await asyncio.sleep(10)
        assert len(it.about("call.ended")) == 1


@pytest.mark.parametrize("placing", [0, 2])
async def test_a_gateway_that_goes_down_lets_no_telephone_ring_on(placing: float) -> None:
    async with dialling(Callee(rings_s=20, late_s=30)) as it:
        it.twilio.placing_s = placing
        call = await it.dialled()
        await asyncio.sleep(1)
        await it.rig.gateway.stop()
        assert (await it.ended(1))["reason"] == "canceled"
        await call.over.wait()
        assert call.status == "canceled"


# --- what is not even tried ---


@pytest.mark.parametrize(
    "to", ["", "  ", "abc", "12", "+1", "+0123456789", "sip:", "sip:bob", "bob@host", "client:bob", "+1" * 400]
)
async def test_whom_nobody_can_call_is_said_at_once(to: str) -> None:
    async with dialling() as it:
        await it.dial(to, metadata=METADATA)
        ended = await it.ended(1)
        assert (ended["reason"], ended["code"], ended["to"]) == ("failed", "BAD_REQUEST", to)
        assert ended["error"].startswith("to: ")
        assert (ended["metadata"], ended["agent_id"]) == (METADATA, "mara")
        assert it.twilio.requests == []


OTHER = "+13186330964"


@pytest.mark.proves("row-119")
@pytest.mark.parametrize(
    ("numbers", "sender", "works"),
    [
        ((NUMBER,), {}, True),
        ((NUMBER,), {"from": ""}, True),
        ((NUMBER,), {"from": "+1 (318) 633-0963"}, True),
        ((), {}, False),
        ((NUMBER, OTHER), {}, False),
        ((NUMBER, OTHER), {"from": OTHER}, True),
        ((NUMBER,), {"from": OTHER}, False),
        ((NUMBER,), {"from": "x" * 300}, False),
        (("sip:mara@acme.sip.twilio.com",), {}, False),
        (("sip:mara@acme.sip.twilio.com",), {"from": "sip:mara@acme.sip.twilio.com"}, False),
    ],
)
async def test_who_calls_must_be_one_of_the_agents_numbers(
    numbers: tuple[str, ...], sender: dict[str, str], works: bool
) -> None:
    async with dialling(numbers=numbers) as it:
        await it.dial(**sender)
        if works:
            dialing = await it.agent.wait("call.dialing")
            assert dialing["from"] == it.twilio.dials[0].form.get("From") in numbers
            return
        ended = await it.ended(1)
        assert (ended["reason"], ended["code"]) == ("failed", "BAD_REQUEST")
        assert ended["error"].startswith("from: ")
        assert it.twilio.requests == []


@pytest.mark.parametrize(
    ("config", "code", "key"),
    [
        ({"stt": "nobody"}, "CONFIG_ERROR", "stt"),
        ({"voice": 7}, "CONFIG_ERROR", "voice"),
        ({"llm": {"model": "gpt-4.1-mini", "temperature": "hot"}}, "CONFIG_ERROR", "llm"),
        ({"voice": "cartesia/x"}, "PROVIDER_KEY_REQUIRED", "voice"),
        ({"session_limits": {"idle_timeout_seconds": "soon"}}, "CONFIG_ERROR", "session_limits"),
    ],
)
async def test_a_configuration_that_cannot_serve_dials_nobody(config: dict[str, object], code: str, key: str) -> None:
    async with dialling() as it:
        await it.dial(config=config)
        ended = await it.ended(1)
        assert (ended["reason"], ended["code"]) == ("failed", code)
        assert key in ended["error"]
        assert it.twilio.requests == []
        assert it.rig.gateway.calls.expecting == 0


async def test_an_agent_of_somebody_else_dials_nobody() -> None:
    async with dialling() as it:
        other = await it.rig.connected()
        await other.send("call.dial", agent_id="mara", to=THEIRS)
        ended = await other.wait("call.ended")
        assert (ended["reason"], ended["code"], ended["agent_id"]) == ("failed", "AGENT_NOT_FOUND", "mara")


async def test_a_gateway_without_an_account_says_so() -> None:
    async with running() as rig:
        agent = await rig.agent()
        await agent.send("call.dial", agent_id="mara", to=THEIRS, metadata=METADATA)
        ended = await agent.wait("call.ended")
        assert (ended["reason"], ended["code"]) == ("failed", "CARRIER_NOT_CONFIGURED")
        assert ended["metadata"] == METADATA


async def test_a_gateway_that_the_carrier_cannot_find_dials_nobody() -> None:
    async with running(twilio_account_sid="AC" + "1" * 32, twilio_auth_token="t") as rig:
        agent = await rig.agent()
        await agent.send("call.dial", agent_id="mara", to=THEIRS)
        ended = await agent.wait("call.ended")
        assert ended["code"] == "CARRIER_NOT_CONFIGURED"
        assert "PUBLIC_URL" in ended["error"]


async def test_telephones_that_ring_count_against_capacity() -> None:
    async with dialling(Callee(rings_s=10), max_concurrent_calls=2) as it:
        for count in (1, 2):
            await it.dial()
            await it.twilio.dialled(count)
        await it.dial()
        ended = await it.ended(1)
        assert (ended["reason"], ended["code"]) == ("failed", "SERVER_AT_CAPACITY")
        assert it.rig.gateway.calls.refusal() == "capacity"
        it.twilio.dials[0].end("busy")
        assert (await it.ended())["reason"] == "busy"
        await it.dialled()


async def test_a_dial_right_after_its_number_finds_that_number() -> None:
    async with dialling(numbers=()) as it:
        it.twilio.own(NUMBER)
        await it.agent.send("channel.add", agent_id="mara", type="phone", ref=NUMBER)
        await it.dial()
        assert (await it.agent.wait("call.dialing"))["from"] == NUMBER


async def test_a_secret_opens_one_line_only() -> None:
    async with dialling() as it:
        telephone, sid = await it.talking()
        call = it.twilio.dials[0]
        dial = Dial(it.rig.http, THEIRS, auth_token=it.twilio.auth_token, call_sid=sid)
        async with SoftwareCaller(dial) as second:
            await second.pick_up(read_twiml(call.form.get("Twiml").encode()))
            with pytest.raises(CallOver):
                await second.wait_bot_audible()
        assert not telephone.is_over
