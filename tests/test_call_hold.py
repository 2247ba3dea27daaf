"""What a caller on hold hears, and what nobody is told of it (behaviour §3.8)."""

from __future__ import annotations

import asyncio
import io
import wave
from pathlib import Path

import numpy as np
import pytest

from demo.caller import SoftwareCaller
from pipelines.audio import ulaw
from pipelines.audio.levels import energy_db
from tests.call_facts import LONG, ended
from tests.call_facts import faultless as faultless
from tests.goertzel import power
from tests.phone_rig import names, running
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")

SECOND = 8000


def level(caller: SoftwareCaller, start: int, end: int | None = None) -> float:
    return energy_db(ulaw.decode(caller.heard[start:end]))


@pytest.mark.proves("row-51")
async def test_music_goes_round_for_as_long_as_the_hold_lasts_and_is_silent_the_moment_it_ends() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis={"send_audio_metrics": True, "audio_metrics_interval_ms": 200})
        caller, call = await rig.call(agent)
        await agent.ask("call.hold", "call.held", call_id=call)
        began = len(caller.heard)
        await asyncio.sleep(20)
        for second in range(1, 19):
            at = began + second * SECOND
            assert -36 < level(caller, at, at + SECOND) < -16, second
        await agent.ask("call.unhold", "call.unheld", call_id=call)
        over = len(caller.heard)
        await asyncio.sleep(2)
        assert level(caller, over + SECOND // 5) < -55
        told = names(agent.of_call(call))
        assert not any(name.startswith("bot.") for name in told)
        bot = [one for one in agent.of_call(call) if one["event"] == "audio.metrics" and one["source"] == "bot"]
        assert all(not one["is_speech"] and one["energy_db"] <= -55 for one in bot)
        await caller.hang_up()
        assert (await ended(agent, call))["messages"] == []


async def test_what_is_being_said_is_heard_to_its_end_before_the_music() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, "One moment please.", "m1")
        await agent.wait("bot.word")
        await agent.send("call.hold", call_id=call)
        await agent.wait("call.held")
        assert "bot.interrupted" not in names(agent.of_call(call))
        assert agent.count("bot.finished") == 1
        await asyncio.sleep(1)
        assert level(caller, len(caller.heard) - SECOND // 2) > -40


async def test_speech_of_more_than_five_seconds_makes_way_for_the_music() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, LONG + " " + LONG, "m1")
        await agent.wait("bot.speaking")
        began = asyncio.get_running_loop().time()
        await agent.send("call.hold", call_id=call)
        await agent.wait("call.held")
        assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.3)


async def test_holding_twice_says_so_twice_and_plays_once() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for _ in range(2):
            await agent.ask("call.hold", "call.held", call_id=call)
        await asyncio.sleep(2)
        assert level(caller, len(caller.heard) - SECOND) < -16
        await agent.send("call.unhold", call_id=call)
        await agent.send("call.unhold", call_id=call)
        await agent.wait("call.unheld")
        await asyncio.sleep(1)
        assert agent.count("call.unheld") == 1


async def test_the_operators_own_music_is_what_callers_hear(tmp_path: Path) -> None:
    file = tmp_path / "hold.wav"
    at = np.arange(16_000) / 16_000
    whistle = (8000 * np.sin(2 * np.pi * 1000 * at)).astype(np.int16)
    sound = io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(whistle.tobytes())
    file.write_bytes(sound.getvalue())
    async with running(hold_music_file=file) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.hold", "call.held", call_id=call)
        await asyncio.sleep(4)
        heard = np.frombuffer(ulaw.decode(caller.heard[-SECOND:]), dtype=np.int16).astype(float).tolist()
        assert power(heard, 1000) > 100 * power(heard, 700)


async def test_a_caller_who_hangs_up_on_the_music_ends_the_call_as_ever() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.hold", "call.held", call_id=call)
        await asyncio.sleep(1)
        await caller.hang_up()
        assert (await ended(agent, call))["reason"] == "hangup"
        assert names(agent.of_call(call)) == ["call.started", "call.held", "call.ended"]
