"""How a call begins, lives and ends, whoever goes first: whole calls in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import Happening
from demo.dialling import Dial, place_call
from tests.call_facts import (
    GREETING,
    LONG,
    TABLE,
    ended,
    ended_already,
    heard_nothing,
    lawful,
    moments,
    raw_line,
    reply_to,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, Rig, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")


# --- beginning ---


@pytest.mark.proves("ws-14", "row-62", "row-65")
async def test_a_call_begins_with_all_its_facts_under_the_name_the_agent_chose() -> None:
    async with running() as rig:
        agent = await rig.agent("Front_Desk 2")
        caller = await rig.caller(caller="+34 600 000 001")
        await caller.ring()
        started = await agent.wait("call.started")
        assert agent.of_call(caller.dial.call_sid) == [started]
        assert started["call_id"] == started["session_id"] == caller.dial.call_sid
        assert started["agent_id"] == "Front_Desk 2"
        assert (started["direction"], started["transport"], started["metadata"]) == ("inbound", "phone", {})
        assert (started["from"], started["to"]) == ("+34600000001", NUMBER)
        await agent.say(started["call_id"], GREETING, "m1")
        await agent.wait("bot.finished")
        await caller.hang_up()
        await ended(agent, started["call_id"])
        assert {frame["agent_id"] for frame in agent.of_call(started["call_id"])} == {"Front_Desk 2"}


async def test_the_gateway_says_nothing_until_the_agent_does() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await asyncio.sleep(10)
        assert heard_nothing(caller)
        assert names(agent.of_call(call)) == ["call.started"]


# --- ending ---


@pytest.mark.proves("row-63", "row-64", "row-74", "row-111", "ws-45")
async def test_a_conversation_ends_with_its_length_and_every_word_in_order() -> None:
    async with running([Say(TABLE), Say("that is all")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, GREETING, "m1")
        await agent.wait("bot.finished")
        caller.say(spoken(TABLE))
        await reply_to(agent, call, "For two, fine. Anything else?", "m2")
        caller.say(spoken("that is all"))
        await reply_to(agent, call, "Goodbye.", "m3")
        await caller.hang_up()
        over = await ended(agent, call)
        assert over["reason"] == "hangup"
        assert (over["direction"], over["from"], over["to"], over["metadata"]) == (
            "inbound",
            "+15550100199",
            NUMBER,
            {},
        )
        assert over["duration_seconds"] == pytest.approx(over["ended_at"] - over["started_at"], abs=0.01)
        (answered,), (gone,) = moments(caller, Happening.ANSWERED), moments(caller, Happening.ENDED)
        assert over["duration_seconds"] == pytest.approx(gone - answered, abs=0.1)
        assert [(entry["role"], entry["content"]) for entry in over["messages"]] == [
            ("assistant", GREETING),
            ("user", TABLE),
            ("assistant", "For two, fine. Anything else?"),
            ("user", "that is all"),
            ("assistant", "Goodbye."),
        ]
        confirmed = [frame["text"] for frame in agent.of_call(call) if frame["event"] == "message.confirmed"]
        assert confirmed == [GREETING, "For two, fine. Anything else?", "Goodbye."]


@pytest.mark.proves("ws-44", "row-78", "row-123")
async def test_a_caller_who_hangs_up_on_the_bot_is_told_before_the_end_and_nothing_after() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.say(call, "And one more thing.", "m2")
        await agent.wait("bot.word", word_index=5)
        await caller.hang_up()
        over = await ended(agent, call)
        assert over["reason"] == "hangup"
        told = agent.of_call(call)
        assert names(told)[-4:] == ["message.confirmed", "bot.interrupted", "bot.interrupted", "call.ended"]
        assert [frame["message_id"] for frame in told[-3:-1]] == ["m1", "m2"]
        heard = next(frame["text"] for frame in told if frame["event"] == "message.confirmed")
        assert over["messages"] == [{"role": "assistant", "content": heard}]
        assert heard == " ".join(frame["word"] for frame in told if frame["event"] == "bot.word")
        assert len(heard) < len(LONG)


@pytest.mark.proves("row-48")
@pytest.mark.parametrize(("given", "told"), [({}, "client_hangup"), ({"reason": "wrong_number"}, "wrong_number")])
async def test_the_agent_hangs_up_and_the_carrier_line_closes(given: dict[str, str], told: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.word", word_index=2)
        await agent.send("call.hangup", call_id=call, **given)
        over = await agent.wait("call.ended")
        await caller.wait_ended(1.0)
        assert caller.moments[-1].detail == "gateway"
        assert over["reason"] == told
        assert names(agent.of_call(call))[-3:] == ["message.confirmed", "bot.interrupted", "call.ended"]
        await ended_already(agent, call)


@pytest.mark.proves("row-65")
@pytest.mark.parametrize("agent_first", [True, False])
@pytest.mark.parametrize("speaking", [True, False])
async def test_a_call_that_both_sides_end_at_once_ends_once(agent_first: bool, speaking: bool) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        if speaking:
            await agent.say(call, LONG, "m1")
            await agent.wait("bot.word", word_index=2)
        both = [agent.send("call.hangup", call_id=call), caller.hang_up()]
        await asyncio.gather(*(both if agent_first else reversed(both)))
        assert (await ended(agent, call))["reason"] in ("client_hangup", "hangup")
        assert caller.is_over


@pytest.mark.proves("row-111")
async def test_a_carrier_that_just_vanishes_ends_the_call_once() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.word", word_index=2)
        caller.vanish()
        assert (await ended(agent, call))["reason"] == "hangup"


@pytest.mark.proves("row-111", "row-123")
async def test_a_carrier_that_falls_silent_is_given_up_after_half_a_minute() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            started = await agent.wait("call.started")
            over = await agent.wait("call.ended", patience=40)
            assert over["reason"] == "disconnected"
            assert over["ts"] - started["ts"] == pytest.approx(30, abs=1)
            await line.closed()
        await ended_already(agent, dial.call_sid)


@pytest.mark.parametrize("goodbye", ["stop and close", "stop", "close"])
async def test_every_way_a_carrier_says_goodbye_ends_the_call_once(goodbye: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            await agent.wait("call.started")
            if "stop" in goodbye:
                await line.send("stop", stop={"accountSid": dial.account_sid, "callSid": dial.call_sid})
            if "close" in goodbye:
                await line.socket.close()
            await line.closed()
        assert (await ended(agent, dial.call_sid))["reason"] == "hangup"


@pytest.mark.proves("ws-47")
async def test_commands_for_calls_that_are_over_or_never_were_are_answered_with_silence() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await caller.hang_up()
        await ended(agent, call)
        told = len(agent.frames)
        for call_id in (call, "CA" + "f" * 32, ""):
            await agent.say(call_id, GREETING, f"m {call_id}")
            for action in ("start", "chunk", "end"):
                stream = {"call_id": call_id, "message_id": f"s {call_id}", "action": action, "token": "Hi."}
                await agent.send("bot.reply.stream", **stream)
            for event in ("bot.cancel", "bot.clear", "call.hangup", "history.get"):
                await agent.send(event, call_id=call_id)
            await agent.send("llm.tool_result", call_id=call_id, msg_id="tr_1", results=[])
        await agent.ask("ping", "pong")
        await asyncio.sleep(5)
        assert names(agent.frames[told:]) == ["pong"]


# --- status callbacks ---


async def status(rig: Rig, call_sid: str, state: str, number: int = 0) -> int:
    """The carrier's status callback; the answer's HTTP status."""
    body = f"CallSid={call_sid}&CallStatus={state}&SequenceNumber={number}".encode()
    head = "POST /twilio/status HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
    form = "Content-Type: application/x-www-form-urlencoded\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"{head}{form}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1])


async def test_status_callbacks_in_any_order_and_number_leave_a_good_call_alone() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for number, state in ((2, "in-progress"), (0, "initiated"), (1, "ringing"), (1, "ringing")):
            assert await status(rig, call, state, number) == 204
        await agent.say(call, GREETING, "m1")
        await agent.wait("bot.finished")
        await asyncio.sleep(35)
        assert agent.count("call.ended") == 0
        await caller.hang_up()
        for number in (3, 3, 4):
            assert await status(rig, call, "completed", number) == 204
        assert await status(rig, "CA" + "0" * 32, "completed") == 204
        assert (await ended(agent, call))["reason"] == "hangup"
        await asyncio.sleep(35)
        lawful(agent.of_call(call))


async def test_a_completed_call_whose_stream_stays_open_is_ended_by_the_safety_net() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        assert await status(rig, call, "completed") == 204
        await asyncio.sleep(25)
        assert agent.count("call.ended") == 0
        assert (await agent.wait("call.ended", 10))["reason"] == "hangup"
        await caller.wait_ended(1.0)
        await ended_already(agent, call)


async def test_a_call_given_up_before_its_stream_opened_never_was() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        assert rig.gateway.calls.expecting == 1
        assert await status(rig, dial.call_sid, "canceled") == 204
        assert await status(rig, dial.call_sid, "canceled") == 204
        assert rig.gateway.calls.expecting == 0
        async with raw_line(dial, answer) as line:
            await line.start()
            assert await line.closed() == 1008
        assert agent.of_call(dial.call_sid) == []


async def test_a_stream_that_never_opens_leaves_nothing_behind() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        await place_call(dial)
        await asyncio.sleep(20)
        assert rig.leftovers()["expected calls"] == 1
        assert rig.leftovers()["voice sockets"] == 1
        await asyncio.sleep(12)
        assert not any(rig.leftovers().values())
        assert agent.of_call(dial.call_sid) == []
