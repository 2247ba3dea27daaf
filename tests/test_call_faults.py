"""What one call's broken engine may do to the calls beside it: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from demo.dialling import Dial, place_call
from providers.base import MULAW_8K, AudioFormat, SpeechChunk, SpeechStream, TextToSpeech, TimedWord
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


class MadSpeech:
    """Sound, with word times that cannot be worked with."""

    def __init__(self, *words: TimedWord) -> None:
        self._words = words

    async def push(self, text: str) -> None:
        pass

    async def finish(self) -> None:
        pass

    async def cancel(self) -> None:
        pass

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        yield SpeechChunk(b"\x90" * 80_000, self._words)
        await asyncio.Event().wait()


class MadVoice(BrokenVoice):
    """An engine whose answers break whoever works with them: at once, or when its speech is cut."""

    def __init__(self, *words: TimedWord) -> None:
        self._words = words

    async def warm(self) -> None:
        pass

    def open(self) -> SpeechStream:
        return MadSpeech(*self._words)

    async def aclose(self) -> None:
        pass


NO_TIMES = TimedWord("what", cast(int, None), cast(int, None))
SOUND_WORD = TimedWord("Hello", 0, 300)
NO_WORD = TimedWord(cast(str, b"what"), 9000, 9100)


class SomeBroken(Engines):
    """All engines, and some voices that are beyond repair."""

    def voice(self, config: VoiceConfig, line: AudioFormat) -> TextToSpeech:
        assert isinstance(config, ElevenLabsVoice)
        match config.voice_id:
            case "broken":
                return BrokenVoice()
            case "without-times":
                return MadVoice(NO_TIMES)
            case "without-words":
                return MadVoice(SOUND_WORD, NO_WORD)
            case _:
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


async def test_a_call_whose_beat_fails_ends_rather_than_going_mute_for_ever() -> None:
    async with running(engines=SomeBroken) as rig:
        unlucky = await rig.agent("unlucky", BROKEN_NUMBER, voice="elevenlabs:without-times")
        caller, call = await rig.call(unlucky, BROKEN_NUMBER)
        await unlucky.say(call, "Hello?", "m1")
        assert (await unlucky.wait("call.ended"))["reason"] == "error"
        await caller.wait_ended(3)
        assert unlucky.of_call(call)[-1]["event"] == "call.ended"
        await spare(rig)


async def test_a_command_that_breaks_its_call_leaves_the_agents_other_calls_alone() -> None:
    async with running(engines=SomeBroken) as rig:
        agent = await rig.agent("unlucky", BROKEN_NUMBER, voice="elevenlabs:without-words")
        caller, call = await rig.call(agent, BROKEN_NUMBER)
        other, other_call = await rig.call(agent, BROKEN_NUMBER)
        await agent.say(call, "Hello to you.", "m1")
        await agent.wait("bot.word")
        await agent.send("bot.cancel", call_id=call)
        assert (await agent.wait("call.ended"))["call_id"] == call
        await caller.wait_ended(3)
        await agent.say(other_call, "Hello to you.", "m2")
        await agent.wait("bot.word", message_id="m2")
        assert not other.is_over
        # Settling its speech fails, too; the end is told all the same.
        await other.hang_up()
        assert (await agent.wait("call.ended", call_id=other_call))["reason"] == "hangup"
        assert agent.of_call(other_call)[-1]["event"] == "call.ended"
