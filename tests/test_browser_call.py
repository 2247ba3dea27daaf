"""Voice sessions of a page, end to end: aiortc's own client, a real gateway, simulated vendors."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.browser_rig import visit
from tests.phone_rig import names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.speech import say_pcm, silence_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"


def spoken(text: str) -> bytes:
    return say_pcm(text) + silence_pcm(900)


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


@pytest.mark.proves("web-13", "web-22", "row-105")
async def test_a_page_speaks_with_an_agent_and_is_told_everything_in_order() -> None:
    async with running([Say("a table for two")], model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM, prompt="Be kind.", greeting="Good evening.")
        page, call = await visit(rig, agent, stack)
        await page.wait("bot.finished")
        page.say(spoken("a table for two"))
        await page.wait("bot.finished")
        told = [name for name in names(page.frames) if name not in ("user.speaking", "bot.word")]
        assert told == [
            "session.started",
            *("bot.speaking", "message.confirmed", "bot.finished"),
            *("speech.started", "speech.ended", "user.message", "eager.turn", "turn.end"),
            *("bot.speaking", "message.confirmed", "bot.finished"),
        ]
        assert call == page.call_id
