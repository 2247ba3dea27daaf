"""What one call's broken engine may do to the calls beside it: nothing."""

from __future__ import annotations

import asyncio

from demo.dialling import Dial, place_call
from providers.base import MULAW_8K, AudioFormat, SpeechStream, TextToSpeech
from server.engines import Engines
from tests.call_facts import SPOKEN, about, story
from tests.phone_rig import Rig, running
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.config import ElevenLabsVoice, VoiceConfig

BROKEN_NUMBER = "+12025550142"


class BrokenVoice:
    """An engine that fails in ways no engine should."""

    output = MULAW_8K

    async def warm(self) -> None:
        raise RuntimeError("warm")

    def open(self) -> SpeechStream:
        raise RuntimeError("open")

    async def aclose(self) -> None:
        raise RuntimeError("aclose")


class SomeBroken(Engines):
    """All engines, and a voice named `broken`."""

    def voice(self, config: VoiceConfig, line: AudioFormat) -> TextToSpeech:
        if isinstance(config, ElevenLabsVoice) and config.voice_id == "broken":
            return BrokenVoice()
        return super().voice(config, line)


async def spare(rig: Rig) -> None:
    """Meanwhile a call with sound engines is as it should be."""
    agent = await rig.agent()
    caller, call = await rig.call(agent)
    await agent.say(call, "Hello there.", f"for {call}")
    await agent.wait("bot.finished")
    assert story(about(agent, f"for {call}")) == SPOKEN
    await caller.hang_up()
    await agent.wait("call.ended")
    await agent.socket.close(1000, "client_disconnect")


async def test_an_engine_that_fails_beyond_reason_takes_only_its_own_call_down() -> None:
    async with running(engines=SomeBroken) as rig:
        unlucky = await rig.agent("unlucky", BROKEN_NUMBER, voice="elevenlabs:broken")
        caller, call = await rig.call(unlucky, BROKEN_NUMBER)
        await unlucky.say(call, "Hello?", "m1")
        assert (await unlucky.wait("call.ended"))["reason"] == "error"
        await caller.wait_ended(3)
        await spare(rig)


async def test_an_engine_that_cannot_even_be_released_harms_nobody() -> None:
    async with running(engines=SomeBroken) as rig:
        unlucky = await rig.agent("unlucky", BROKEN_NUMBER, voice="elevenlabs:broken")
        await place_call(Dial(rig.http, BROKEN_NUMBER))
        await asyncio.sleep(31)
        assert not any(rig.leftovers().values())
        await spare(rig)
        assert unlucky.count("call.started") == 0
