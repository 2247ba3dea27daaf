"""The ears when recognisers are lost, changed or interrupted, and what of the last words is kept."""

# What was let go can only be seen from inside.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio

from tests.call_scenes import record
from tests.phone_rig import running, spoken
from tests.simulators.deepgram_door import Fault
from tests.simulators.deepgram_flux_engine import Say
from tests.test_call_interruption import bot_speaks
from tests.virtual_time import event_loop_policy as event_loop_policy


async def test_what_was_said_over_the_bot_is_in_the_record_of_a_call_that_ends_then() -> None:
    words = "one more thing before we go on"
    async with running([Say("hello"), Say(words)]) as rig:
        agent, caller, _, _ = await bot_speaks(rig, interruption=False)
        await asyncio.sleep(1)
        caller.say(spoken(words))
        await asyncio.sleep(3)
        assert agent.count("bot.finished") == 0
        said = [entry["content"] for entry in await record(agent, caller) if entry["role"] == "user"]
        assert said == ["hello", words]


async def test_another_recogniser_is_used_at_once_when_the_old_one_is_lost() -> None:
    async with running([Say("hello")]) as rig:
        rig.vendors.flux._faults.extend([Fault(status=503)] * 40)
        agent = await rig.agent()
        _, call = await rig.call(agent)
        for _ in range(4):
            await agent.wait("error", patience=60)
        rig.vendors.flux._faults.clear()
        await asyncio.sleep(1)
        stt = {"provider": "deepgram-flux", "keyterms": ["x"]}
        await agent.ask("session.configure", "session.configured", session_id=call, stt=stt)
        await asyncio.sleep(1)
        assert rig.vendors.flux.connections


async def test_a_recogniser_changed_while_it_connects_is_no_error() -> None:
    async with running([Say("hello")]) as rig:
        rig.vendors.flux._faults.append(Fault(handshake_delay=3))
        agent = await rig.agent()
        _, call = await rig.call(agent)
        stt = {"provider": "deepgram-flux", "keyterms": ["x"]}
        await agent.ask("session.configure", "session.configured", session_id=call, stt=stt)
        await asyncio.sleep(4)
        assert agent.count("error") == 0


async def test_old_recognisers_are_let_go() -> None:
    async with running([]) as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        for number in range(20):
            stt = {"provider": "deepgram-flux", "keyterms": [f"x{number}"]}
            await agent.ask("session.configure", "session.configured", session_id=call, stt=stt)
            await asyncio.sleep(0.5)
        [live] = rig.gateway.calls._live.values()
        assert len(live._ears._retired) < 3


async def test_words_said_across_an_unmute_are_not_lost() -> None:
    words = "I would like to book a big table for twelve people on friday"
    async with running([Say(words)]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.mute", "call.muted", call_id=call)
        caller.say(spoken(words))
        await asyncio.sleep(1)
        unmuted = await agent.ask("call.unmute", "call.unmuted", call_id=call)
        await asyncio.sleep(6)
        heard = [frame["text"] for frame in agent.frames if frame["event"] == "user.message"]
        assert "friday" in " ".join([unmuted["muted_transcript"] or "", *heard])
