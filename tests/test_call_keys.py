"""Telephone keys on whole calls: those the agent presses, heard by the caller, and those the caller presses."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import SoftwareCaller
from demo.dialling import Dial, read_twiml
from tests.call_facts import LONG, ended, form, raw_line, settled, webhook
from tests.call_facts import faultless as faultless
from tests.goertzel import Tone, tones
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")


def keys_after(caller: SoftwareCaller, byte: int) -> list[Tone]:
    return tones(caller.heard[byte:])


def keys(caller: SoftwareCaller, byte: int = 0) -> str:
    return "".join(tone.key for tone in keys_after(caller, byte))


# --- out ---


@pytest.mark.proves("row-50")
async def test_the_caller_hears_the_keys_that_the_agent_presses() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.send("call.dtmf", call_id=call, digits="1234#")
        sent = await agent.wait("call.dtmf_sent")
        assert (sent["digits"], sent["call_id"]) == ("1234#", call)
        assert keys(caller) == "1234#"
        heard = keys_after(caller, 0)
        assert [tone.seconds for tone in heard] == pytest.approx([0.1] * 5, abs=0.021)
        await caller.hang_up()
        end = await ended(agent, call)
        assert end["messages"] == []
        assert names(agent.of_call(call)) == ["call.started", "call.dtmf_sent", "call.ended"]


@pytest.mark.proves("row-50")
async def test_keys_come_after_what_is_being_said_and_before_what_is_said_later() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, "Before the keys.", "m1")
        await agent.send("call.dtmf", call_id=call, digits="42")
        await agent.say(call, "After the keys.", "m2")
        await agent.wait("bot.finished", message_id="m1")
        before = len(caller.heard)
        await agent.wait("call.dtmf_sent")
        assert keys(caller, before) == "42"
        await agent.wait("bot.finished", message_id="m2")
        told = [name for name in names(agent.of_call(call)) if name != "bot.word"]
        message = ["bot.speaking", "message.confirmed", "bot.finished"]
        assert told == ["call.started", *message, "call.dtmf_sent", *message]


async def test_dtmf_sent_comes_when_the_last_key_was_heard_and_not_before() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        began = asyncio.get_running_loop().time()
        await agent.send("call.dtmf", call_id=call, digits="1w2,3")
        await agent.wait("call.dtmf_sent")
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.1, abs=0.2)
        assert keys(caller) == "123"


async def test_the_callers_voice_does_not_cut_keys_off() -> None:
    async with running([Say("no wait a moment please")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.send("call.dtmf", call_id=call, digits="1234567890")
        await asyncio.sleep(0.4)
        caller.say(spoken("no wait a moment please"))
        await agent.wait("call.dtmf_sent")
        assert keys(caller) == "1234567890"
        assert "bot.interrupted" not in names(agent.of_call(call))
        assert (await agent.wait("turn.end"))["text"] == "no wait a moment please"


async def test_a_voice_that_stops_the_bot_does_not_stop_the_keys_behind_it() -> None:
    async with running([Say("no wait a moment please")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.send("call.dtmf", call_id=call, digits="77#")
        await agent.wait("bot.word", word_index=3)
        caller.say(spoken("no wait a moment please"))
        await agent.wait("bot.interrupted", message_id="m1")
        cut = len(caller.heard) + 200
        await agent.wait("call.dtmf_sent")
        assert keys(caller, cut) == "77#"


async def test_keys_wait_for_nobody_who_talks_on_and_on() -> None:
    """A menu that reads itself out is what keys are for."""
    script = [Say("for opening hours press one for reservations press two or stay on the line to hear all of it again")]
    async with running(script) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken(script[0].text))
        await agent.wait("speech.started")
        asked = asyncio.get_running_loop().time()
        await agent.send("call.dtmf", call_id=call, digits="2")
        await agent.wait("call.dtmf_sent")
        assert asyncio.get_running_loop().time() - asked < 0.6
        assert keys(caller) == "2"


async def test_clear_drops_keys_and_cancel_leaves_them() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.send("call.dtmf", call_id=call, digits="12")
        await agent.say(call, "Not to be heard.", "m1")
        await agent.send("bot.cancel", call_id=call)
        assert (await agent.wait("bot.interrupted"))["message_id"] == "m1"
        await agent.wait("call.dtmf_sent", digits="12")
        await agent.send("call.dtmf", call_id=call, digits="3456789")
        await asyncio.sleep(0.5)
        await agent.send("bot.clear", call_id=call)
        await settled(agent)
        assert agent.count("call.dtmf_sent") == 1
        assert keys(caller) in ("12345", "123456")
        await agent.say(call, "Here again.", "m2")
        await agent.wait("bot.finished", message_id="m2")


async def test_the_music_of_a_hold_is_silent_while_keys_sound() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.hold", "call.held", call_id=call)
        await asyncio.sleep(2)
        before = len(caller.heard) + 400
        await agent.send("call.dtmf", call_id=call, digits="5w5")
        await agent.wait("call.dtmf_sent")
        assert keys(caller, before) == "55"
        assert "call.unheld" not in names(agent.of_call(call))
        after = len(caller.heard)
        await asyncio.sleep(2)
        assert any(sample != 0xFF for sample in caller.heard[after + 4000 :])


@pytest.mark.parametrize("digits", ["", "12x", "+49 30", "," * 40])
async def test_keys_that_no_telephone_has_are_refused_by_name_and_the_call_goes_on(digits: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.send("call.dtmf", call_id=call, digits=digits)
        refused = await agent.wait("error")
        assert (refused["code"], refused["call_id"]) == ("BAD_REQUEST", call)
        assert refused["error"].startswith("digits: ")
        await agent.send("call.dtmf", call_id=call, digits="1")
        await agent.wait("call.dtmf_sent", digits="1")
        assert keys(caller) == "1"


async def test_more_keys_than_can_wait_are_refused() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        for _ in range(70):
            await agent.send("call.dtmf", call_id=call, digits="ww")
        assert (await agent.wait("error"))["code"] == "RATE_LIMITED"
        await agent.wait("call.dtmf_sent")


async def test_keys_that_are_sounding_at_the_end_of_a_call_are_not_told_as_sent() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("call.dtmf", call_id=call, digits="1234567890")
        await asyncio.sleep(0.5)
        await agent.send("call.hangup", call_id=call)
        await ended(agent, call)
        assert names(agent.of_call(call)) == ["call.started", "call.ended"]


# --- in ---


async def test_keys_of_the_caller_are_told_one_by_one_with_all_before() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for key in "4*D#":
            caller.press(key)
        await agent.wait("call.dtmf_received", digit="#")
        told = [frame for frame in agent.of_call(call) if frame["event"] == "call.dtmf_received"]
        assert [(one["digit"], one["digits"]) for one in told] == [
            ("4", "4"),
            ("*", "4*"),
            ("D", "4*D"),
            ("#", "4*D#"),
        ]


async def test_keys_that_come_before_after_or_as_garbage_do_no_harm() -> None:
    async with running() as rig:
        agent = await rig.agent()
        answer = await webhook(rig, form())
        dial = Dial(rig.http, "", call_sid=form()["CallSid"])
        async with raw_line(dial, read_twiml(answer.content)) as line:
            await line.start()
            # In the same breath as `start`: the call may not have begun.
            await line.send("dtmf", dtmf={"track": "inbound_track", "digit": "7"})
            call = (await agent.wait("call.started"))["call_id"]
            for digit in ("12", "", "x", "a", "é", "8"):
                await line.send("dtmf", dtmf={"track": "inbound_track", "digit": digit})
            await line.send("dtmf", dtmf={"digit": None})
            await line.send("dtmf")
            await line.send("dtmf", dtmf={"track": "inbound_track", "digit": "9"})
            await agent.wait("call.dtmf_received", digit="9")
            await line.send("stop", stop={})
            await line.send("dtmf", dtmf={"track": "inbound_track", "digit": "1"})
            await ended(agent, call)
        told = [frame["digits"] for frame in agent.of_call(call) if frame["event"] == "call.dtmf_received"]
        assert told == ["7", "78", "789"]


async def test_a_key_is_a_sign_of_life_to_the_idle_clock() -> None:
    limits = {"idle_timeout_seconds": 6, "idle_warning_seconds": 3, "idle_grace_seconds": 2}
    async with running() as rig:
        agent = await rig.agent(session_limits=limits)
        caller, call = await rig.call(agent)
        began = asyncio.get_running_loop().time()
        await agent.wait("session.idle_warning")
        caller.press("1")
        await agent.wait("session.idle_warning", remaining_seconds=3)
        assert asyncio.get_running_loop().time() - began == pytest.approx(6, abs=0.4)
        end = await ended(agent, call)
        assert end["reason"] == "idle_timeout"
        assert end["duration_seconds"] == pytest.approx(3 + 6 + 2 + 2, abs=0.6)
