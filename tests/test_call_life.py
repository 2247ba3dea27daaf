"""How a call begins, lives and ends, whoever goes first: whole calls in virtual time."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from demo.caller import Happening
from demo.dialling import Dial, place_call
from tests.call_facts import (
    SPOKEN,
    about,
    heard_nothing,
    moments,
    raw_line,
    reply_to,
    story,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, Agent, Frame, Rig, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")

GREETING = "Hello there. How can I help you?"
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen."
TABLE = "a table for two please"


def lawful(frames: list[Frame]) -> None:
    """The laws of order that every finished call keeps (protocol §3.1)."""
    told = names(frames)
    assert told[0] == "call.started"
    assert told[-1] == "call.ended"
    assert told.count("call.started") == told.count("call.ended") == 1
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len({frame["agent_id"] for frame in frames}) == 1
    assert {frame["session_id"] for frame in frames} == {frames[0]["call_id"]}
    spoken_ids = [frame["message_id"] for frame in frames if frame["event"] == "bot.speaking"]
    over = [frame["message_id"] for frame in frames if frame["event"] in ("bot.finished", "bot.interrupted")]
    assert len(over) == len(set(over))
    assert set(spoken_ids) <= set(over)


async def ended(agent: Agent, call_id: str, patience: float = 20.0) -> Frame:
    """The end of a call; 5 s later still nothing has followed it."""
    frame = await agent.wait("call.ended", patience, call_id=call_id)
    await asyncio.sleep(5)
    lawful(agent.of_call(call_id))
    return frame


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


@pytest.mark.proves("ws-44", "row-78")
async def test_a_caller_who_hangs_up_on_the_bot_is_told_before_the_end_and_nothing_after() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.say(call, "And one more thing.", "m2")
        await agent.wait("bot.word", word_index=5)
        await caller.hang_up()
        over = await ended(agent, call)
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


async def ended_already(agent: Agent, call_id: str) -> None:
    await asyncio.sleep(5)
    lawful(agent.of_call(call_id))


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


@pytest.mark.proves("row-111")
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
        assert rig.gateway.phone.expecting == 1
        assert await status(rig, dial.call_sid, "canceled") == 204
        assert await status(rig, dial.call_sid, "canceled") == 204
        assert rig.gateway.phone.expecting == 0
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


# --- the agent's connection ---


@pytest.mark.proves("ws-48", "row-4")
async def test_an_agent_that_comes_back_is_given_its_call_again_before_any_other_event() -> None:
    async with running([Say(TABLE)]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.word", word_index=2)
        agent.drop()
        await asyncio.sleep(2)
        assert caller.is_bot_audible()
        again = await rig.agent()
        resumed = again.of_call(call)[0]
        assert (resumed["event"], resumed["resumed"]) == ("call.started", True)
        assert (resumed["direction"], resumed["transport"], resumed["metadata"]) == ("inbound", "phone", {})
        await again.wait("bot.finished", message_id="m1")
        caller.say(spoken(TABLE))
        await reply_to(again, call, "Two it is.", "m2")
        assert story(about(again, "m2")) == SPOKEN
        await caller.hang_up()
        over = await again.wait("call.ended")
        assert [entry["content"] for entry in over["messages"]] == [LONG, TABLE, "Two it is."]
        assert names(again.of_call(call)).count("call.started") == 1
        # And new calls find it.
        other, _ = await rig.call(again)
        await other.hang_up()


@pytest.mark.proves("ws-48")
async def test_a_call_whose_agent_stays_away_ends_after_the_grace() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        agent.drop()
        gone = asyncio.get_running_loop().time()
        await caller.wait_ended(30)
        assert asyncio.get_running_loop().time() - gone == pytest.approx(20, abs=0.5)
        assert caller.moments[-1].detail == "gateway"
        again = await rig.agent()
        await asyncio.sleep(2)
        assert again.of_call(call) == []


async def test_without_a_grace_a_call_ends_with_its_agents_connection() -> None:
    async with running(agent_grace_seconds=0) as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        agent.drop()
        await caller.wait_ended(1)


async def test_an_agent_that_says_goodbye_takes_its_calls_with_it() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        await agent.socket.close(1000, "client_disconnect")
        await caller.wait_ended(1)


async def test_an_agent_that_is_removed_ends_its_calls_and_says_so() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("agent.remove", "agent.removed", agent_id="mara")
        await caller.wait_ended(1)
        (over,) = [frame for frame in agent.of_call(call) if frame["event"] == "call.ended"]
        assert over["reason"] == "agent_removed"
        await ended_already(agent, call)


async def test_an_agent_that_dropped_between_webhook_and_stream_still_gets_the_call() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        agent.drop()
        async with raw_line(dial, answer) as line:
            await line.start()
            await asyncio.sleep(1)
            again = await rig.agent()
            assert names(again.of_call(dial.call_sid)) == ["call.started"]
            await line.send("stop", stop={})
            await again.wait("call.ended")
            assert names(again.of_call(dial.call_sid)) == ["call.started", "call.ended"]


@pytest.mark.proves("row-6")
async def test_pings_go_both_ways_while_a_call_is_talking() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        for _ in range(5):
            assert isinstance((await agent.ask("ping", "pong"))["timestamp"], float)
            await asyncio.sleep(0.5)
        await agent.wait("bot.finished")
        await asyncio.sleep(50)
        assert agent.count("call.ended") == 0
        await caller.hang_up()
        await ended(agent, call)


# --- many ---


@pytest.mark.proves("row-9", "row-65")
async def test_events_of_agents_that_share_a_socket_never_cross() -> None:
    async with running() as rig:
        socket = await rig.connected()
        texts = {"mara": "Mara speaking.", "Bruno_2": "Hello, this is Bruno.", "line 3": "You have reached line three."}
        numbers = dict(zip(texts, ("+13186330961", "+13186330962", "+13186330963"), strict=True))
        config = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
        for agent_id, number in numbers.items():
            await socket.ask("agent.create", "agent.created", agent_id=agent_id, **config)
            await socket.ask("channel.add", "channel.added", agent_id=agent_id, type="phone", ref=number)
        callers = {agent_id: await rig.caller(number) for agent_id, number in numbers.items()}
        await asyncio.gather(*(caller.ring() for caller in callers.values()))
        for agent_id, text in texts.items():
            started = await socket.told(callers[agent_id].dial.call_sid, "call.started")
            assert (started["agent_id"], started["to"]) == (agent_id, numbers[agent_id])
            await socket.say(started["call_id"], text, f"m {agent_id}")
        await asyncio.sleep(4)
        for agent_id, caller in callers.items():
            frames = socket.of_call(caller.dial.call_sid)
            assert {frame["agent_id"] for frame in frames} == {agent_id}
            assert {frame["message_id"] for frame in frames if "message_id" in frame} == {f"m {agent_id}"}
            assert caller.heard_ms == pytest.approx(len(texts[agent_id]) * 60, abs=80)
        for caller in callers.values():
            await caller.hang_up()
            await ended(socket, caller.dial.call_sid)


@pytest.mark.proves("row-111", "row-65")
async def test_twenty_calls_at_once_on_one_agent_all_come_to_their_own_end() -> None:
    async with running([Say(TABLE)]) as rig:
        agent = await rig.agent()
        numbers = count()

        async def conversation() -> None:
            caller = await rig.caller(caller=f"+155501001{next(numbers):02}")
            await caller.ring()
            call = caller.dial.call_sid
            await agent.told(call, "call.started")
            await agent.say(call, GREETING, f"greeting {call}")
            await caller.wait_bot_done()
            caller.say(spoken(TABLE))
            await caller.wait_said()
            turn = await agent.told(call, "turn.end")
            await agent.say(call, f"Fine, {caller.dial.caller}.", f"reply {call}", turn["message_id"])
            await caller.wait_bot_done()
            await caller.hang_up()
            over = await agent.told(call, "call.ended")
            assert [entry["content"] for entry in over["messages"]] == [GREETING, TABLE, f"Fine, {caller.dial.caller}."]

        async with asyncio.timeout(60), asyncio.TaskGroup() as calls:
            for _ in range(20):
                calls.create_task(conversation())
        await asyncio.sleep(5)
        assert agent.count("call.started") == agent.count("call.ended") == 20
        for caller in rig.callers:
            lawful(agent.of_call(caller.dial.call_sid))
