"""Calls that agents make: picked up, greeted, talked on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from demo.caller import Happening
from tests.dial_rig import GREETING, THEIRS, DialRig, dialling, moment
from tests.phone_rig import NUMBER, names, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.elevenlabs_session import Manner
from tests.simulators.openai import Reply
from tests.simulators.twilio_callee import Callee
from tests.virtual_time import event_loop_policy as event_loop_policy

METADATA: dict[str, Any] = {"order": 17, "nested": {"a": [1, None, "x"]}, "ß": True}


@pytest.mark.proves("row-114", "row-115", "row-117", "row-122", "ws-37")
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


@pytest.mark.proves("row-115")
async def test_a_voice_may_be_slow_while_it_rings() -> None:
    async with dialling(Callee(rings_s=6)) as it:
        it.rig.vendors.voice.manner = Manner(message_delay=0.8)
        telephone, sid = await it.talking(greeting=GREETING)
        await it.agent.told(sid, "bot.finished")
        assert moment(telephone, Happening.BOT_AUDIBLE) - moment(telephone, Happening.ANSWERED) < 0.15
        assert telephone.heard_ms > 1000
        sent = [frame["event"] for frame in it.agent.frames]
        assert sent.index("bot.speaking") == sent.index("call.started") + 1


async def test_a_greeting_is_synthesised_once_and_while_it_rings() -> None:
    async with dialling(Callee(rings_s=3)) as it:
        await it.dialled(greeting=GREETING)
        await asyncio.sleep(2)
        told = [message.get("text", "") for one in it.rig.vendors.voice.connections for message in one.messages]
        assert "".join(told).split() == GREETING.split()


YES = "Yes I would like that."
WHO = "Hello who is there?"
SERVER_LLM: dict[str, object] = {"llm": "openai/gpt-4.1-mini", "prompt": "Be brief."}


def well(_request: object) -> Reply:
    return Reply("Very well.")


def asked(it: DialRig) -> list[list[str]]:
    """What the model was asked, question by question."""
    bodies = [request.body for request in it.rig.vendors.model.requests if "messages" in request.body]
    return [[entry["content"] for entry in body["messages"]] for body in bodies]


@pytest.mark.proves("row-115", "row-116")
async def test_the_conversation_goes_on_and_the_model_knows_what_was_said_first() -> None:
    async with dialling(config=SERVER_LLM, script=[Say(YES)], model=well) as it:
        telephone, sid = await it.talking(greeting=GREETING)
        await it.agent.told(sid, "bot.finished")
        telephone.say(spoken(YES))
        end = await it.agent.told(sid, "turn.end")
        await telephone.wait_bot_done()
        assert end["text"] == YES
        assert asked(it) == [["Be brief.", GREETING, YES]]
        await it.agent.send("call.hangup", call_id=sid)
        ended = await it.ended()
        assert ended["reason"] == "client_hangup"
        assert [entry["content"] for entry in ended["messages"]] == ["Be brief.", GREETING, YES, "Very well."]


@pytest.mark.proves("row-116")
async def test_an_agent_that_thinks_for_itself_hears_the_callees_turns() -> None:
    async with dialling(script=[Say(YES)]) as it:
        telephone, sid = await it.talking(greeting=GREETING)
        await it.agent.told(sid, "bot.finished")
        telephone.say(spoken(YES))
        end = await it.agent.told(sid, "turn.end")
        await it.agent.say(sid, "Lovely.", "msg_1", end["message_id"])
        await it.agent.wait("bot.finished", message_id="msg_1")
        assert {"speech.started", "user.speaking", "user.message"} <= set(names(it.agent.of_call(sid)))
        assert "source" not in end


async def test_without_a_greeting_nobody_speaks_and_those_of_the_agent_are_for_callers() -> None:
    async with dialling(config={"greeting": "Thanks for calling the bakery."}) as it:
        telephone, sid = await it.talking()
        await asyncio.sleep(8)
        assert not telephone.is_bot_audible()
        assert "bot.speaking" not in names(it.agent.of_call(sid))


async def test_the_greeting_of_the_dials_own_configuration_is_said() -> None:
    async with dialling(config={"greeting": "Thanks for calling."}) as it:
        _, sid = await it.talking(config={"greeting": {"en": "Hello.", "es": "Hola."}, "language": "es"})
        assert (await it.agent.told(sid, "bot.speaking"))["text"] == "Hola."


@pytest.mark.proves("row-118")
async def test_a_dials_configuration_is_for_that_call_only() -> None:
    async with dialling(config={**SERVER_LLM, "language": "en"}, script=[Say(YES)], model=well) as it:
        first, sid = await it.talking(config={"prompt": "Be verbose.", "language": "fr", "voice": "elevenlabs:voice-1"})
        assert (await it.agent.told(sid, "call.started"))["language"] == "fr"
        first.say(spoken(YES))
        await it.agent.told(sid, "bot.finished")
        await first.hang_up()
        second, sid = await it.talking()
        assert (await it.agent.told(sid, "call.started"))["language"] == "en"
        second.say(spoken(YES))
        await it.agent.told(sid, "bot.finished")
        assert [question[0] for question in asked(it)] == ["Be verbose.", "Be brief."]


async def test_the_number_called_from_brings_its_configuration() -> None:
    async with dialling() as it:
        await it.agent.ask("channel.configure", "channel.configured", agent_id="mara", ref=NUMBER, language="de")
        _, sid = await it.talking()
        assert (await it.agent.told(sid, "call.started"))["language"] == "de"


# --- detect_turn_end ---


@pytest.mark.proves("row-120", "ws-39")
@pytest.mark.parametrize("config", [{}, SERVER_LLM])
async def test_a_greeting_may_wait_for_the_end_of_the_first_turn_and_is_its_answer(config: dict[str, object]) -> None:
    async with dialling(config=config, script=[Say(WHO), Say(YES)], model=well) as it:
        telephone, sid = await it.talking(greeting=GREETING, detect_turn_end=True)
        await asyncio.sleep(1)
        telephone.say(spoken(WHO))
        speaking = await it.agent.told(sid, "bot.speaking")
        assert speaking["text"] == GREETING
        order = names(it.agent.of_call(sid))
        assert order.index("turn.end") < order.index("bot.speaking")
        await it.agent.told(sid, "bot.finished")
        await asyncio.sleep(5)
        assert asked(it) == []
        assert names(it.agent.of_call(sid)).count("bot.speaking") == 1
        if config:
            telephone.say(spoken(YES))
            await it.agent.wait("message.confirmed", text="Very well.")
            assert asked(it) == [["Be brief.", WHO, GREETING, YES]]


@pytest.mark.proves("row-120")
async def test_who_says_nothing_is_greeted_after_5_s() -> None:
    async with dialling() as it:
        telephone, sid = await it.talking(greeting=GREETING, detect_turn_end=True)
        await it.agent.told(sid, "bot.finished")
        waited = moment(telephone, Happening.BOT_AUDIBLE) - moment(telephone, Happening.ANSWERED)
        assert 4.9 < waited < 5.3


async def test_without_a_greeting_the_first_turn_is_the_models() -> None:
    async with dialling(config=SERVER_LLM, script=[Say(WHO)], model=well) as it:
        telephone, sid = await it.talking(detect_turn_end=True)
        telephone.say(spoken(WHO))
        await it.agent.told(sid, "bot.finished")
        assert asked(it) == [["Be brief.", WHO]]


# --- how they end ---


@pytest.mark.proves("row-123")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"idle_timeout_seconds": 6, "idle_warning_seconds": 3, "idle_grace_seconds": 2}, "idle_timeout"),
        ({"max_duration_seconds": 5}, "max_duration"),
    ],
)
async def test_limits_end_calls_out_as_they_end_calls_in(limits: dict[str, int], reason: str) -> None:
    async with dialling() as it:
        _, sid = await it.talking(greeting="Hi.", config={"session_limits": limits}, metadata=METADATA)
        ended = await it.ended()
        assert (ended["call_id"], ended["reason"], ended["metadata"]) == (sid, reason, METADATA)
        assert names(it.agent.of_call(sid))[-2:] == ["session.timeout", "call.ended"]
        await it.twilio.dials[0].over.wait()
        assert it.twilio.dials[0].status == "completed"


@pytest.mark.proves("row-123")
async def test_the_callee_hangs_up_or_is_lost() -> None:
    async with dialling() as it:
        telephone, _ = await it.talking(greeting=GREETING)
        await telephone.hang_up()
        assert (await it.ended())["reason"] == "hangup"
        _, sid = await it.talking()
        call = it.rig.gateway.calls.find(sid)
        assert call is not None
        await it.rig.gateway.stop()
        assert (await it.ended())["reason"] == "disconnected"


async def test_somebody_who_was_called_is_transferred_with_our_number_shown() -> None:
    async with dialling() as it:
        _, sid = await it.talking(greeting="Hi.")
        await it.agent.send("call.forward", call_id=sid, to="+12025550199")
        assert (await it.ended())["reason"] == "forwarded"
        assert f'callerId="{NUMBER}"' in it.twilio.twiml[sid]


# --- machines ---


async def test_nobody_listens_for_machines_unless_asked_to() -> None:
    async with dialling() as it:
        call = await it.dialled()
        assert "MachineDetection" not in call.form


@pytest.mark.parametrize("whom", ["human", "machine_start"])
async def test_who_answered_is_in_the_metadata_if_the_operator_wants_to_know(whom: str) -> None:
    async with dialling(Callee(answered_by=whom, recognised_s=3), dial_amd=True) as it:
        telephone, sid = await it.talking(greeting=GREETING, metadata=METADATA)
        await it.agent.told(sid, "bot.finished")
        await telephone.hang_up()
        ended = await it.ended()
        started = await it.agent.told(sid, "call.started")
        assert started["metadata"] == ended["metadata"] == {**METADATA, "answered_by": whom}
        assert moment(telephone, Happening.BOT_AUDIBLE) - moment(telephone, Happening.ANSWERED) < 0.15


async def test_an_answer_to_a_dial_that_is_over_is_hung_up() -> None:
    async with dialling(Callee(rings_s=24), dial_amd=True) as it:
        call = await it.dialled()
        await it.agent.told(call.sid, "call.dialing")
        await it.agent.send("call.hangup", call_id=call.sid)
        await it.ended()
        form = {"CallSid": call.sid, "AccountSid": it.twilio.account_sid, "AnsweredBy": "human"}
        answer = await call.exchange.post(call.form.get("Url"), form)
        assert (answer.status_code, "<Hangup" in answer.text, "<Stream" in answer.text) == (200, True, False)


# --- sip ---


async def test_a_sip_address_is_called_as_it_is_written_from_whatever_the_trunk_takes() -> None:
    address = "sip:Bob@pbx.example:5070;transport=tcp"
    async with dialling() as it:
        call = await it.dialled(address, **{"from": "bakery"})
        await call.picked_up()
        started = await it.agent.told(call.sid, "call.started")
        assert (call.to, call.form.get("From")) == (address, "bakery")
        assert (started["to"], started["from"]) == (address, "bakery")


async def test_a_number_may_be_written_in_any_way_and_is_told_as_it_was_written() -> None:
    async with dialling() as it:
        call = await it.dialled("+1 (202) 555-0142")
        await call.picked_up()
        assert call.to == THEIRS
        assert (await it.agent.told(call.sid, "call.started"))["to"] == "+1 (202) 555-0142"


# --- many ---


@pytest.mark.proves("row-124", "row-125")
async def test_twenty_dials_at_once_do_not_notice_that_one_fails() -> None:
    people = [f"+1202555{number:04}" for number in range(20)]
    async with dialling(Callee(rings_s=3)) as it:
        it.twilio.callees = {people[3]: Callee("busy", rings_s=1), people[7]: Callee("no-answer")}
        await asyncio.gather(
            *[it.dial(to, greeting=f"Hello number {to}.", metadata={"to": to}) for to in [*people, "+1"]]
        )
        await it.twilio.dialled(20)
        reached = [call for call in it.twilio.dials if call.callee.what == "answer"]
        telephones = [await call.picked_up() for call in reached]
        for call in reached:
            await it.agent.told(call.sid, "bot.finished", 60)
        for telephone in telephones:
            await telephone.hang_up()
        ends = [await it.ended() for _ in range(21)]
        assert sorted(end["reason"] for end in ends) == ["busy", "failed", *["hangup"] * 18, "no-answer"]
        for end in ends[:]:
            assert end["metadata"] == {"to": end["to"]}
        for call, telephone in zip(reached, telephones, strict=True):
            frames = it.agent.of_call(call.sid)
            assert [frame["text"] for frame in frames if frame["event"] == "bot.speaking"] == [
                f"Hello number {call.to}."
            ]
            assert moment(telephone, Happening.BOT_AUDIBLE) - moment(telephone, Happening.ANSWERED) < 0.15
        assert not it.rig.gateway.dialling
        metrics = it.rig.gateway.exposition().decode()
        assert 'gateway_calls_total{reason="busy"} 1.0' in metrics
