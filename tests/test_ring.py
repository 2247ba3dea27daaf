"""`voice-gateway call`: a telephone for the command line."""

from __future__ import annotations

import io
import sys

import pytest

from demo.ring import CallPlan, ring
from tests.phone_rig import NUMBER, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply
from tests.virtual_time import event_loop_policy as event_loop_policy

ANSWER = "For how many people?"


def asks_back(*_: object) -> Reply:
    return Reply(ANSWER)


async def test_lines_from_a_pipe_wait_for_their_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a table please\nfor four\n"))
    async with running([Say("a table please"), Say("for four")], model=asks_back) as rig:
        agent = await rig.agent(greeting="Good evening.", llm="openai/gpt-4.1-mini")
        assert await ring(CallPlan(rig.http, NUMBER, "+15550100199")) == 0
        ended = await agent.wait("call.ended")
        assert [entry["content"] for entry in ended["messages"] if entry["role"] == "assistant"][1:] == [ANSWER, ANSWER]
    out, _ = capsys.readouterr()
    assert "answer 1: " in out
    assert "answer 2: " in out
