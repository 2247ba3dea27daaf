"""Where the carrier's calls go, and what it is told when they can go nowhere."""

from __future__ import annotations

import asyncio

import pytest

from demo.dialling import Answer, Dial, Outcome, place_call
from tests.call_facts import (
    GREETING,
    form,
    raw_line,
    talk,
    webhook,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, names, running
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")

NOT_TAKEN = Answer(Outcome.REJECTED, "rejected")


# --- nobody there ---


@pytest.mark.proves("row-16")
async def test_a_number_nobody_has_is_rejected() -> None:
    async with running() as rig:
        await rig.agent()
        assert await (await rig.caller("+12025550142")).ring() == NOT_TAKEN


@pytest.mark.proves("row-23")
async def test_a_number_taken_away_gets_no_more_calls_and_the_live_one_goes_on() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("channel.remove", "channel.removed", agent_id="mara", ref=NUMBER)
        assert await (await rig.caller()).ring() == NOT_TAKEN
        await agent.say(call, GREETING, "m1")
        await agent.wait("bot.finished")
        assert not caller.is_over


async def test_the_operators_words_are_said_when_nobody_is_there() -> None:
    async with running(no_agent_message="We are closed <today> & tomorrow.") as rig:
        answer = await (await rig.caller()).ring()
        assert (answer.outcome, answer.detail) == (Outcome.SAID, "We are closed <today> & tomorrow.")


@pytest.mark.proves("row-4")
async def test_a_call_waits_a_moment_for_an_agent_that_just_dropped() -> None:
    async with running() as rig:
        agent = await rig.agent()
        agent.drop()
        await asyncio.sleep(0.1)
        caller = await rig.caller()
        ringing = asyncio.create_task(caller.ring())
        await asyncio.sleep(2)
        assert not ringing.done()
        again = await rig.agent()
        assert (await ringing).outcome is Outcome.CONNECTED
        await again.wait("call.started")


async def test_a_call_does_not_wait_long_for_an_agent_that_stays_away() -> None:
    async with running() as rig:
        agent = await rig.agent()
        agent.drop()
        await asyncio.sleep(0.1)
        asked = asyncio.get_running_loop().time()
        assert await (await rig.caller()).ring() == NOT_TAKEN
        assert asyncio.get_running_loop().time() - asked == pytest.approx(5, abs=0.5)


@pytest.mark.proves("row-5")
async def test_an_agent_that_said_goodbye_is_not_waited_for() -> None:
    async with running() as rig:
        agent = await rig.agent()
        await agent.socket.close(1000, "client_disconnect")
        await asyncio.sleep(0.1)
        asked = asyncio.get_running_loop().time()
        assert await (await rig.caller()).ring() == NOT_TAKEN
        assert asyncio.get_running_loop().time() - asked < 1


# --- where calls go ---


@pytest.mark.proves("row-112")
async def test_an_agent_answers_on_all_its_numbers() -> None:
    async with running() as rig:
        agent = await rig.agent("mara", NUMBER, "+12025550142")
        for to in (NUMBER, "+12025550142"):
            caller = await rig.caller(to)
            await talk(agent, caller, f"to {to}")
            assert agent.of_call(caller.dial.call_sid)[0]["to"] == to


@pytest.mark.proves("row-17", "ws-10")
@pytest.mark.parametrize("ref", ["+1 (318) 633-0963", "1-318-633-0963", "phone:+13186330963"])
async def test_a_number_in_any_spelling_is_called_by_its_plain_form(ref: str) -> None:
    async with running() as rig:
        agent = await rig.agent("mara", ref)
        (added,) = [frame for frame in agent.frames if frame["event"] == "channel.added"]
        assert added["ref"] == ref
        await talk(agent, await rig.caller())


@pytest.mark.proves("row-113", "ws-11")
async def test_a_number_has_one_owner_who_keeps_its_calls() -> None:
    async with running() as rig:
        owner = await rig.agent("mara")
        other = await rig.agent("bruno", "+12025550142")
        await other.send("channel.add", agent_id="bruno", type="phone", ref="+1 318 633 0963")
        refused = await other.wait("error")
        assert (refused["code"], refused["phone"], refused["owner"]) == ("PHONE_IN_USE", "+1 318 633 0963", "mara")
        await talk(owner, await rig.caller())
        assert other.count("call.started") == 0


# --- what cannot be served ---


@pytest.mark.parametrize("missing", [("CallSid",), ("To",), ("CallSid", "To", "From")])
async def test_a_webhook_that_does_not_say_what_it_is_about_is_rejected(missing: tuple[str, ...]) -> None:
    async with running() as rig:
        await rig.agent()
        answer = await webhook(rig, {name: value for name, value in form().items() if name not in missing})
        assert answer.status_code == 200
        assert "<Reject" in answer.text


async def test_a_caller_who_hides_the_number_is_answered() -> None:
    async with running() as rig:
        agent = await rig.agent()
        await talk(agent, await rig.caller(caller=""))


async def test_beyond_the_limit_callers_hear_the_busy_tone_until_there_is_room() -> None:
    async with running(max_concurrent_calls=2) as rig:
        agent = await rig.agent()
        callers = [await rig.caller() for _ in range(4)]
        answers = await asyncio.gather(*(caller.ring() for caller in callers))
        assert sorted(answer.outcome.name for answer in answers) == ["CONNECTED"] * 2 + ["REJECTED"] * 2
        assert {answer.detail for answer in answers if answer.outcome is Outcome.REJECTED} == {"busy"}
        for caller, answer in zip(callers, answers, strict=True):
            if answer.outcome is Outcome.CONNECTED:
                await caller.hang_up()
                break
        await asyncio.sleep(2)
        await talk(agent, await rig.caller())


async def test_callers_who_wait_for_an_agent_do_not_slip_past_the_limit() -> None:
    async with running(max_concurrent_calls=1) as rig:
        agent = await rig.agent()
        agent.drop()
        await asyncio.sleep(0.1)
        callers = [await rig.caller() for _ in range(3)]
        ringing = [asyncio.create_task(caller.ring()) for caller in callers]
        await asyncio.sleep(1)
        await rig.agent()
        answers = [await task for task in ringing]
        assert sorted(answer.outcome.name for answer in answers) == ["CONNECTED", "REJECTED", "REJECTED"]


async def test_a_webhook_told_twice_counts_once() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        first = await place_call(dial)
        second = await place_call(dial)
        assert rig.leftovers()["expected calls"] == 1
        async with raw_line(dial, first) as stale:
            await stale.start()
            assert await stale.closed() == 1008
        async with raw_line(dial, second) as line:
            await line.start()
            await agent.wait("call.started")
            # And once more while the call is live.
            assert (await place_call(dial)).outcome is Outcome.REJECTED
            await agent.say(dial.call_sid, "Hello.", "m1")
            await agent.wait("bot.speaking")
        await agent.wait("call.ended")
        assert agent.count("call.started") == agent.count("call.ended") == 1


async def test_an_agent_that_can_no_longer_be_served_gets_a_rejection_and_a_line_in_the_log(
    faultless: list[dict[str, object]],
) -> None:
    async with running() as rig:
        agent = await rig.connected()
        config = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
        await agent.ask("agent.create", "agent.created", agent_id="mara", **config)
        channel = {"type": "phone", "ref": NUMBER, "llm": {"enabled": True}}
        await agent.ask("channel.add", "channel.added", agent_id="mara", **channel)
        # Sound by itself, but not beneath that channel: this server has no key for the model.
        patch = {"llm": {"provider": "mistral", "enabled": False}}
        await agent.ask("agent.configure", "agent.configured", agent_id="mara", **patch)
        assert await (await rig.caller()).ring() == NOT_TAKEN
        (refused,) = [entry for entry in faultless if entry["event"] == "call_refused"]
        assert refused["agent"] == "mara"
        assert "mistral" in str(refused["error"])


async def test_a_gateway_that_stops_ends_its_calls_first_and_tells_their_agents() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, GREETING, "m1")
        await agent.wait("bot.word", word_index=1)
        stopping = asyncio.create_task(rig.gateway.stop())
        await caller.wait_ended(5)
        assert (await agent.wait("call.ended"))["reason"] == "disconnected"
        await stopping
        await agent.socket.wait_closed()
        assert agent.socket.close_code == 1012
        assert names(agent.of_call(call))[-3:] == ["message.confirmed", "bot.interrupted", "call.ended"]
        answer = await (await rig.caller()).ring()
        assert (answer.outcome, answer.detail) == (Outcome.REJECTED, "busy")


async def test_a_stream_that_opens_while_the_gateway_stops_begins_no_call() -> None:
    async with running() as rig:
        agent = await rig.agent()
        await rig.call(agent)
        late = Dial(rig.http, NUMBER)
        async with raw_line(late, await place_call(late)) as line:
            rig.gateway.calls.close()
            await line.start()
            assert await line.closed() == 1008
        await rig.gateway.stop()
        assert agent.count("call.started") == 1
        assert not any(rig.leftovers().values())
