"""How sessions of pages end: limits, goodbyes, silence, and nothing left behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import CoroutineType
from typing import cast

import pytest

from tests.browser_rig import Browser, browsing, mint, post_offer, visit
from tests.phone_rig import Rig, names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.speech import say_pcm, silence_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy


def now() -> float:
    return asyncio.get_running_loop().time()


def at_work() -> list[str]:
    """Tasks of connections."""
    coroutines = [cast("CoroutineType[object, object, object]", task.get_coro()) for task in asyncio.all_tasks()]
    files = ("aiortc", "aioice", "transports/webrtc")
    return [
        coroutine.__qualname__ for coroutine in coroutines if any(f in coroutine.cr_code.co_filename for f in files)
    ]


async def gone(rig: Rig) -> None:
    """2 s later nothing of any session is left: no place, no call, no task of a connection."""
    browsers, calls = rig.gateway.browsers, rig.gateway.calls
    for _ in range(100):
        if not (len(browsers) or len(calls) or calls.expecting or at_work()):
            break
        await asyncio.sleep(0.02)
    assert (len(browsers), len(calls), calls.expecting, at_work()) == (0, 0, 0, [])


@pytest.mark.proves("web-26", "row-62")
async def test_an_idle_page_is_warned_twice_and_then_let_go_after_its_agent_knew() -> None:
    limits = {"idle_timeout_seconds": 6, "idle_warning_seconds": 2, "idle_grace_seconds": 1}
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits=limits)
        page, _ = await visit(rig, agent, stack)
        began = now()
        times: list[float] = []
        for remaining in (2, 1):
            warning = await page.wait("session.idle_warning")
            assert (warning["remaining_seconds"], warning["idle_timeout_seconds"]) == (remaining, 6)
            times.append(now() - began)
        await agent.wait("session.timeout")
        times.append(now() - began)
        over = await page.wait("session.ended")
        nudge = await page.wait("session.timeout")
        times.append(now() - began)
        assert (over["reason"], nudge["reason"]) == ("idle_timeout", "idle_timeout")
        assert names(page.frames).count("session.timeout") == 1, "pages fall silent when they see it"
        assert times == [pytest.approx(want, abs=0.3) for want in (4, 6, 7, 9)]
        assert times[3] - times[2] <= 2.5
        await asyncio.wait_for(page.closed.wait(), 2)
        assert (await agent.wait("call.ended"))["reason"] == "idle_timeout"
        await gone(rig)


@pytest.mark.proves("web-26", "row-62")
async def test_a_goodbye_is_heard_before_the_page_is_let_go() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits={"max_duration_seconds": 5})
        page, call = await visit(rig, agent, stack)
        await agent.wait("session.timeout", reason="max_duration")
        await agent.say(call, "Goodbye then, and thank you for your visit.", "bye")
        finished = await page.wait("bot.finished", message_id="bye")
        assert finished["text"].startswith("Goodbye")
        assert (await page.wait("session.timeout"))["reason"] == "max_duration"
        assert names(page.frames)[-2:] == ["session.ended", "session.timeout"]
        assert page.heard.audible()


@pytest.mark.proves("web-26", "row-62")
async def test_speech_cancels_the_warning_and_the_bots_own_speech_only_pauses_the_clock() -> None:
    limits = {"idle_timeout_seconds": 6, "idle_warning_seconds": 2, "idle_grace_seconds": 1}
    async with running([Say("still here")]) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits=limits)
        page, call = await visit(rig, agent, stack)
        await page.wait("session.idle_warning")
        await agent.say(call, "Are you still there?", "m1")
        await page.wait("bot.finished")
        await asyncio.sleep(0.5)
        page.say(say_pcm("still here") + silence_pcm(900))
        await page.wait("speech.started")
        await page.wait("turn.end")
        spoke = now()
        await page.wait("session.idle_warning", remaining_seconds=2)
        assert now() - spoke > 3
        assert "session.timeout" not in names(agent.of_call(call))


async def test_typing_is_a_sign_of_life_too() -> None:
    limits = {"idle_timeout_seconds": 4, "idle_warning_seconds": 1, "idle_grace_seconds": 1}
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits=limits)
        page, call = await visit(rig, agent, stack)
        for _ in range(5):
            await asyncio.sleep(2.5)
            await page.send({"action": "inject_text", "text": "here"})
        await asyncio.sleep(1)
        assert not {"session.idle_warning", "session.timeout"} & set(names(agent.of_call(call)))


@pytest.mark.proves("web-27")
async def test_a_page_is_let_go_within_a_second_when_its_agent_hangs_up() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        await agent.send("call.hangup", call_id=call)
        assert (await page.wait("session.ended", patience=1))["session_id"] == call
        assert (await page.wait("session.timeout", patience=1))["reason"] == "hangup"
        await asyncio.wait_for(page.closed.wait(), 1)
        await agent.wait("call.ended")
        await gone(rig)


@pytest.mark.proves("web-27")
async def test_an_agent_knows_within_two_seconds_that_the_page_was_left() -> None:
    async with running() as rig:
        agent = await rig.agent()
        async with browsing(rig) as page:
            await agent.wait("call.started")
            left = now()
            await page.close()
        ended = await agent.wait("call.ended")
        assert ended["reason"] == "client_hangup"
        assert now() - left <= 2
        await gone(rig)


@pytest.mark.proves("web-27")
async def test_a_tab_that_was_killed_is_missed_within_twenty_seconds() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0})
        page, _ = await visit(rig, agent, stack)
        await asyncio.sleep(1)
        await page.vanish()
        left = now()
        ended = await agent.wait("call.ended", patience=25)
        assert ended["reason"] == "connection_lost"
        assert 10 <= now() - left <= 20
        await gone(rig)


async def test_a_tab_in_the_background_that_only_holds_its_pings_back_stays() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0})
        page = Browser(rig, pings=False)
        stack.push_async_callback(page.close)
        await page.connect()
        await asyncio.sleep(40)
        assert "call.ended" not in names(agent.frames)


@pytest.mark.proves("web-27")
async def test_an_offer_that_never_connects_is_forgotten_within_half_a_minute() -> None:
    async with running() as rig:
        agent = await rig.agent()
        page = Browser(rig)
        response = await post_offer(rig, await page.offer())
        assert response.status_code == 200
        await page.close()
        assert len(rig.gateway.browsers) == rig.gateway.calls.expecting == 1
        await asyncio.sleep(31)
        assert names(agent.frames) == ["connected", "agent.created", "channel.added"], "its agent was never told"
        await gone(rig)


@pytest.mark.proves("web-15", "row-179")
async def test_a_session_outlives_the_token_that_opened_it() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0})
        token = await mint(rig)
        await asyncio.sleep(59)
        await visit(rig, agent, stack, token=token)
        await asyncio.sleep(20)
        assert "call.ended" not in names(agent.frames)
        late = await mint(rig)
        await asyncio.sleep(61)
        page = Browser(rig)
        response = await post_offer(rig, await page.offer(), late)
        await page.close()
        assert response.status_code == 401


async def test_a_session_whose_agent_goes_between_offer_and_connection_ends_without_a_call() -> None:
    async with running() as rig:
        agent = await rig.agent()
        page = Browser(rig)
        response = await post_offer(rig, await page.offer())
        await agent.ask("agent.remove", "agent.removed", agent_id="mara")
        await page.accept(response.json())
        await asyncio.wait_for(page.closed.wait(), 10)
        assert "call.started" not in names(agent.frames)
        await page.close()
        await gone(rig)


async def test_the_end_of_the_gateway_is_told_to_the_page() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, _ = await visit(rig, agent, stack)
        half = Browser(rig)
        await post_offer(rig, await half.offer())
        await rig.gateway.stop()
        assert (await page.wait("session.ended", patience=1))["reason"] == "disconnected"
        await half.close()
        assert len(rig.gateway.browsers) == 0
