"""Calls that agents make: picked up, greeted, talked on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from demo.caller import Happening
from tests.dial_rig import GREETING, THEIRS, dialling, moment
from tests.phone_rig import NUMBER, names, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply
from tests.simulators.twilio_callee import Callee
from tests.virtual_time import event_loop_policy as event_loop_policy

METADATA: dict[str, Any] = {"order": 17, "nested": {"a": [1, None, "x"]}, "ß": True}


@pytest.mark.proves("row-115", "row-117", "row-122", "ws-37")
async def test_a_dial_that_is_answered_becomes_a_call_that_greets_by_itself() -> None:
    async with dialling(Callee(rings_s=4)) as it:
        call = await it.dialled(greeting=GREETING, metadata=METADATA, **{"from": NUMBER})
        telephone = await call.picked_up()
        await it.agent.told(call.sid, "bot.finished")
        await telephone.hang_up()
        ended = await it.ended()
    frames = it.agent.of_call(call.sid)
    assert names(frames)[:3] == ["call.dialing", "call.started", "bot.speaking"]
    assert all(frame["agent_id"] == "mara" and frame["session_id"] == call.sid for frame in frames)
    dialing, started, speaking = frames[:3]
    assert (dialing["to"], dialing["from"]) == (THEIRS, NUMBER)
    assert (started["direction"], started["transport"]) == ("outbound", "phone")
    assert (started["to"], started["from"], started["metadata"]) == (THEIRS, NUMBER, METADATA)
    assert speaking["text"] == GREETING
    assert speaking["message_id"].startswith("msg_")
    assert (ended["reason"], ended["metadata"], ended["direction"]) == ("hangup", METADATA, "outbound")
    assert [(entry["role"], entry["content"]) for entry in ended["messages"]] == [("assistant", GREETING)]
    assert moment(telephone, Happening.BOT_AUDIBLE) - moment(telephone, Happening.ANSWERED) < 0.15
    assert int(call.form.get("Timeout")) <= 25
    assert call.form.all("StatusCallbackEvent") == ["initiated", "ringing", "answered", "completed"]
    assert all(answer == 204 for _, answer in call.answers)
    assert call.faults == []


async def test_a_greeting_is_synthesised_once_and_while_it_rings() -> None:
    async with dialling(Callee(rings_s=3)) as it:
        await it.dialled(greeting=GREETING)
        await asyncio.sleep(2)
        told = [message.get("text", "") for one in it.rig.vendors.voice.connections for message in one.messages]
        assert "".join(told).split() == GREETING.split()


async def test_the_conversation() -> None:
    def model(_request: object) -> Reply:
        return Reply("Very well.")

    llm: dict[str, object] = {"llm": "openai/gpt-4.1-mini", "prompt": "Be brief."}
    async with dialling(Callee(), config=llm, script=[Say("Yes I would like that.")], model=model) as it:
        telephone, sid = await it.talking(greeting=GREETING)
        await it.agent.told(sid, "bot.finished")
        telephone.say(spoken("Yes I would like that."))
        await it.agent.told(sid, "turn.end")
        await telephone.wait_bot_done()
        asked = it.rig.vendors.model.requests[-1].body["messages"]
        assert [entry["content"] for entry in asked] == ["Be brief.", GREETING, "Yes I would like that."]
