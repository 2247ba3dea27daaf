"""A voice that fails in mid-sentence: the caller hears at most a short gap."""

from __future__ import annotations

import pytest

from tests.phone_rig import names, running
from tests.simulators.elevenlabs import Faults
from tests.virtual_time import event_loop_policy as event_loop_policy

SENTENCES = "This is the first sentence of three. Here comes the second one, as promised. And the third one ends it."


@pytest.mark.proves("row-210")
@pytest.mark.parametrize("fault", [Faults(drop_after=2), Faults(stall_after=2)], ids=["drop", "stall"])
async def test_a_voice_lost_in_mid_sentence_speaks_the_rest_after_a_short_gap(fault: Faults) -> None:
    async with running() as rig:
        rig.vendors.voice.faults = lambda number: fault if number == 0 else Faults()
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, SENTENCES, "m1")
        finished = await agent.wait("bot.finished", message_id="m1")
        assert finished["text"] == SENTENCES
        words = [frame["word"] for frame in agent.of_call(call) if frame["event"] == "bot.word"]
        assert " ".join(words) == SENTENCES
        assert longest_gap_ms(caller.heard) <= 1500
        assert "error" not in names(agent.of_call(call))
        assert len(rig.vendors.voice.connections) == 2


def longest_gap_ms(heard: bytes) -> float:
    """The longest silence between two sounds, ms of 8 kHz µ-law."""
    loud = heard.translate(bytes(0 if code in (0xFF, 0x7F) else 1 for code in range(256))).strip(b"\0")
    return max(map(len, loud.split(b"\1"))) / 8
