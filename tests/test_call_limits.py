"""Session limits on whole calls, to the second."""

from __future__ import annotations

import pytest

from tests.phone_rig import Agent, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

SHORT = {"idle_timeout_seconds": 6, "idle_warning_seconds": 3, "idle_grace_seconds": 2}
WATCHED = {"call.started", "session.idle_warning", "session.timeout", "call.ended"}


def times(agent: Agent, call: str) -> list[tuple[str, float]]:
    """What the watchdog did and when, in seconds since the call began."""
    frames = [frame for frame in agent.of_call(call) if frame["event"] in WATCHED]
    return [(frame["event"], round(frame["ts"] - frames[0]["ts"], 1)) for frame in frames[1:]]


@pytest.mark.proves("ws-42", "row-98", "row-100", "row-123")
async def test_silence_warns_twice_then_ends_the_call() -> None:
    async with running() as rig:
        agent = await rig.agent(session_limits=SHORT)
        _, call = await rig.call(agent)
        ended = await agent.wait("call.ended")
        assert ended["reason"] == "idle_timeout"
        told = times(agent, call)
        assert [name for name, _ in told] == [
            "session.idle_warning",
            "session.idle_warning",
            "session.timeout",
            "call.ended",
        ]
        assert [at for _, at in told] == pytest.approx([3, 6, 8, 10], abs=0.2)
        first, second = (frame for frame in agent.of_call(call) if frame["event"] == "session.idle_warning")
        assert (first["remaining_seconds"], first["idle_timeout_seconds"]) == (3, 6)
        assert second["remaining_seconds"] == 2


@pytest.mark.proves("row-101", "ws-42")
async def test_a_goodbye_said_at_the_timeout_is_heard_to_its_end() -> None:
    async with running() as rig:
        agent = await rig.agent(session_limits=SHORT)
        caller, call = await rig.call(agent)
        await agent.wait("session.timeout", reason="idle_timeout")
        before = caller.heard_ms
        await agent.say(call, "Nobody seems to be there, so I will hang up now. Goodbye!", "bye")
        await agent.wait("bot.finished", message_id="bye")
        await agent.wait("call.ended", reason="idle_timeout")
        assert caller.heard_ms - before > 3000
        assert names(agent.of_call(call))[-2:] == ["bot.finished", "call.ended"]


@pytest.mark.proves("row-103", "ws-42")
async def test_the_bots_own_speech_delays_the_end_by_exactly_its_length() -> None:
    async with running() as rig:
        agent = await rig.agent(session_limits=SHORT)
        _, call = await rig.call(agent)
        await agent.wait("session.idle_warning")
        await agent.say(call, "Are you still there? I can hear nobody on the line.", "m1")
        spoke = (await agent.wait("bot.finished", message_id="m1"))["duration_ms"] / 1000
        await agent.wait("call.ended")
        timeout = dict(times(agent, call))["session.timeout"]
        assert timeout == pytest.approx(8 + spoke, abs=0.6)


@pytest.mark.proves("row-104", "ws-42")
async def test_a_user_who_speaks_starts_the_silence_anew() -> None:
    async with running([Say("yes I am here")]) as rig:
        agent = await rig.agent(session_limits=SHORT)
        caller, call = await rig.call(agent)
        await agent.wait("session.idle_warning")
        caller.say(spoken("yes I am here"))
        turn = await agent.wait("turn.end")
        warned = await agent.wait("session.idle_warning")
        assert warned["remaining_seconds"] == 3
        assert 2.0 <= warned["ts"] - turn["ts"] <= 3.2
        assert "session.timeout" not in names(agent.of_call(call))


@pytest.mark.proves("ws-43", "row-102", "row-123")
async def test_a_call_ends_at_its_longest_however_lively_it_is() -> None:
    async with running([Say("and so on and on")]) as rig:
        agent = await rig.agent(session_limits={"max_duration_seconds": 5})
        caller, call = await rig.call(agent)
        caller.say(spoken("and so on and on") * 6)
        await agent.wait("session.timeout", reason="max_duration")
        ended = await agent.wait("call.ended")
        assert ended["reason"] == "max_duration"
        assert dict(times(agent, call))["session.timeout"] == pytest.approx(5, abs=0.2)
        assert ended["duration_seconds"] <= 15.5


async def test_a_muted_call_does_not_grow_idle() -> None:
    async with running() as rig:
        agent = await rig.agent(session_limits=SHORT)
        caller, call = await rig.call(agent)
        await agent.ask("call.mute", "call.muted", call_id=call)
        await caller.wait_quiet(12_000)
        assert "session.idle_warning" not in names(agent.of_call(call))
