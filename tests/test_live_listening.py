"""Listening to calls while they last: who may, what comes, and that no listener troubles the call."""

from __future__ import annotations

import asyncio
import base64
import itertools
import socket as sockets
from contextlib import AsyncExitStack

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from demo.caller import Happening
from pipelines.audio import ulaw
from server.auth import Source, digest_of
from server.live import MAX_LISTENERS, QUEUED_FRAMES, Listener
from tests.browser_rig import visit
from tests.call_facts import faultless as faultless
from tests.call_facts import moments
from tests.listening import KEEP_ALIVE, LIVE, address, delay, hearing, power_db, samples
from tests.phone_rig import KEY, OTHER_KEY, Rig, running
from tests.simulators.deepgram_flux_engine import Say
from tests.speech import say_mulaw, tone_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy

LONG = "This is a rather long answer that goes on for several seconds so that somebody can talk over it."


async def statuses(rig: Rig, call_id: str, token: str | None, **headers: str) -> tuple[int, int]:
    """What the player and the socket answer."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        page = (await http.get(address(rig, call_id, token, "http", "player"), headers=headers)).status_code
    try:
        async with connect(address(rig, call_id, token), additional_headers=headers):
            return page, 101
    except InvalidStatus as refused:
        return page, refused.response.status_code


# --- who may ---


@pytest.mark.proves("row-133", "web-36")
async def test_nobody_listens_unless_the_agent_allows_it() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call_id = await rig.call(agent)
        assert await statuses(rig, call_id, KEY) == (404, 404)
        await agent.ask("session.configure", "session.configured", call_id=call_id, config={"media": LIVE})
        assert await statuses(rig, call_id, KEY) == (200, 101)


@pytest.mark.proves("row-135", "web-36")
async def test_only_a_key_of_the_calls_organisation_opens_it() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        assert await statuses(rig, call_id, None) == (401, 401)
        assert await statuses(rig, call_id, "") == (401, 401)
        assert await statuses(rig, call_id, None, Authorization=f"Bearer {KEY}") == (401, 401)
        assert await statuses(rig, call_id, "wrtc_" + "0" * 32) == (401, 401)
        assert await statuses(rig, call_id, "pk_wrong_key_of_nobody") == (401, 401)
        assert await statuses(rig, "CA" + "0" * 32, "pk_wrong_key_of_nobody") == (401, 401), "keys are looked at first"
        assert await statuses(rig, call_id, f"{OTHER_KEY}&token={KEY}") == (401, 401)
        assert await statuses(rig, call_id, OTHER_KEY) == (403, 403)
        assert await statuses(rig, "CA" + "0" * 32, KEY) == (404, 404)
        assert await statuses(rig, call_id, KEY) == (200, 101)
        await caller.hang_up()
        await agent.wait("call.ended")
        assert await statuses(rig, call_id, KEY) == (404, 404)


async def test_a_refusal_is_an_error_as_everywhere_and_a_page_for_people() -> None:
    async with running() as rig, httpx2.AsyncClient(trust_env=False) as http:
        plain = await http.get(address(rig, "CAx", KEY, "http", "player"))
        assert plain.json() == {
            "success": False,
            "error": "No call of that id can be listened to",
            "detail": "No call of that id can be listened to",
            "code": "NOT_FOUND",
        }
        for token, status in ((KEY, 404), ("nobody", 401)):
            page = await http.get(address(rig, "CAx", token, "http", "player"), headers={"Accept": "text/html,*/*"})
            assert page.status_code == status
            assert page.headers["content-type"].startswith("text/html")
            assert "CAx" not in page.text
            assert token not in page.text
        with pytest.raises(InvalidStatus) as refused:
            await connect(address(rig, "CAx"))
        assert b'"code":"NOT_FOUND"' in refused.value.response.body


async def test_a_call_has_room_for_so_many_listeners() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        _, call_id = await rig.call(agent)
        open_sockets = [await connect(address(rig, call_id)) for _ in range(MAX_LISTENERS)]
        assert await statuses(rig, call_id, KEY) == (200, 429)
        await open_sockets.pop().close()
        await asyncio.sleep(0.1)
        assert await statuses(rig, call_id, KEY) == (200, 101)
        for one in open_sockets:
            await one.close()
        await asyncio.sleep(0.1)
        assert len(rig.gateway.listening) == 0


async def test_who_listens_with_a_key_that_is_revoked_must_go() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        _, call_id = await rig.call(agent)
        keys, fleeting, other = rig.gateway.organisations.keys, "pk_test_fleeting_0001", "pk_test_fleeting_0002"
        both = [(digest_of(fleeting), "org_main"), (digest_of(other), "org_main")]
        keys.learn(Source.FILE, both)
        async with hearing(rig, call_id, fleeting) as ear, hearing(rig, call_id) as stays:
            keys.learn(Source.FILE, both[:1])
            await asyncio.sleep(0.5)
            assert not ear.closed.is_set()
            keys.learn(Source.FILE, both[1:])
            await asyncio.wait_for(ear.closed.wait(), 2)
            assert ear.socket.close_code == 1008
            assert b"" not in [frame for _, frame in ear.frames]
            await asyncio.sleep(0.5)
            assert not stays.closed.is_set()


# --- what comes ---


@pytest.mark.proves("row-136", "web-35")
async def test_the_first_message_says_what_follows_also_to_those_who_come_late() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        _, call_id = await rig.call(agent)
        expected = {"type": "metadata", "sampleRate": 8000, "channels": 1, "bitDepth": 16, "sessionId": call_id}
        async with hearing(rig, call_id) as early:
            await asyncio.sleep(3)
            async with hearing(rig, call_id) as late:
                await asyncio.sleep(1)
                assert early.metadata == late.metadata == expected
                assert len(late.sound) == pytest.approx(16000, abs=1600), "no backlog"


@pytest.mark.proves("row-137", "web-35")
async def test_both_sides_sound_at_the_pitch_and_level_they_had() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            caller.say(ulaw.encode(tone_pcm(1000, 3000, 8000, -20.0)))
            await agent.say(call_id, LONG, "m1")
            await caller.wait_bot_audible()
            await caller.wait_said()
            await caller.wait_quiet(500)
        heard, said = (samples(ulaw.decode(bytes(side))) for side in (caller.heard, caller.said))
        mix = samples(ear.sound)
        middle = slice(12000, 20000)
        assert power_db(mix[middle], 1000, 8000) == pytest.approx(-20.0, abs=0.3)
        # The voice is a pitch of its own; it is in the mix exactly as it was in the caller's ear.
        spectrum = np.abs(np.fft.rfft(heard.astype(float)))
        pitch = float(np.fft.rfftfreq(len(heard), 1 / 8000)[int(np.argmax(spectrum))])
        assert abs(pitch - 1000) > 100
        begins = int(np.flatnonzero(heard)[0])
        part = heard[begins : begins + 8000]
        at = delay(part, mix, begins, 2400)
        assert abs(at) <= 400
        assert power_db(mix[begins + at : begins + at + 8000], pitch, 8000) == pytest.approx(
            power_db(part, pitch, 8000), abs=1.0
        )
        assert len(said) >= 24000


@pytest.mark.proves("row-137", "web-35")
async def test_a_browsers_call_is_heard_and_recorded_at_16_khz() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(media={"live": True, "recording": True})
        page, call_id = await visit(rig, agent, stack)
        async with hearing(rig, call_id) as ear:
            assert ear.metadata["sampleRate"] == 16000
            page.say(tone_pcm(3000, 4000, 16000, -20.0))
            await asyncio.sleep(1.5)
            await agent.say(call_id, LONG, "m1")
            await agent.wait("bot.finished", message_id="m1")
            await page.close()
            told = await agent.wait("call.recording")
            ended = await agent.wait("call.ended")
        assert {len(frame) for _, frame in ear.frames if len(frame) > 2} == {1600}
        mix = samples(ear.sound)
        assert power_db(mix[16000:24000], 3000, 16000) == pytest.approx(-20.0, abs=2.0), "once through Opus"
        assert told["sample_rate"] == 16000
        assert told["duration_ms"] / 1000 == pytest.approx(ended["duration_seconds"], abs=0.1)
        recorded = samples(base64.b64decode(told["audio"])[44:])
        assert power_db(recorded[16000:24000], 3000, 16000) == pytest.approx(-20.0, abs=2.0)
        # The bot speaks behind the tone, too: what the page heard last is what the recording ends with.
        assert np.abs(recorded[5 * 16000 : 6 * 16000]).max() > 1000


@pytest.mark.proves("row-138", "web-35")
async def test_sound_comes_in_frames_of_50_ms_and_at_that_pace() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            await agent.say(call_id, LONG, "m1")
            await asyncio.sleep(10)
        assert {len(frame) for _, frame in ear.frames if frame != KEEP_ALIVE} == {800}
        times = ear.times()
        assert len(times) - 1 == pytest.approx((times[-1] - times[0]) / 0.05, abs=1)
        assert times[-1] - times[0] > 9.5
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(steps) <= 0.061
        assert sum(steps) / len(steps) == pytest.approx(0.05, abs=0.001)
        assert caller.heard_ms


@pytest.mark.proves("row-139", "web-35")
async def test_at_the_end_comes_an_empty_frame_and_a_normal_close() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            await asyncio.sleep(2)
            await caller.hang_up()
            await asyncio.wait_for(ear.closed.wait(), 2)
        assert [frame for _, frame in ear.frames].index(b"") == len(ear.frames) - 1
        assert ear.socket.close_code == 1000
        assert len(ear.sound) / 16000 == pytest.approx(2.0, abs=0.25)


@pytest.mark.proves("row-140", "web-35")
async def test_five_seconds_of_silence_are_followed_by_a_sign_of_life() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            caller.say(ulaw.encode(tone_pcm(600, 8000, 8000, -20.0)))
            await caller.wait_said()
            assert ear.times(KEEP_ALIVE) == []
            quiet_since = moments(caller, Happening.SPEECH_ENDED)[0]
            await asyncio.sleep(16)
            times = ear.times(KEEP_ALIVE)
            assert [at - quiet_since for at in times] == pytest.approx([5.2, 10.2, 15.2], abs=0.1)
            assert len(ear.sound) / 16000 == pytest.approx(24, abs=0.6), "silence is sent, too: nothing is cut short"


async def test_listening_that_is_forbidden_in_mid_call_ends_and_may_begin_again() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            await asyncio.sleep(1)
            await agent.ask("session.configure", "session.configured", call_id=call_id, media={"live": False})
            await asyncio.wait_for(ear.closed.wait(), 2)
            assert ear.frames[-1][1] == b""
            assert ear.socket.close_code == 1000
        assert await statuses(rig, call_id, KEY) == (404, 404)
        await agent.ask("session.configure", "session.configured", call_id=call_id, media={"live": True})
        async with hearing(rig, call_id) as ear:
            caller.say(ulaw.encode(tone_pcm(600, 1000, 8000, -20.0)))
            await asyncio.sleep(2)
            assert power_db(samples(ear.sound), 600, 8000) > -30


@pytest.mark.proves("row-142")
async def test_after_an_interruption_no_more_of_the_bot_is_heard_than_the_caller_heard() -> None:
    script = [Say("wait a moment please stop")]
    async with running(script) as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        began = caller.moments[0].at
        async with hearing(rig, call_id) as ear:
            await agent.say(call_id, LONG, "m1")
            await caller.wait_bot_audible()
            await asyncio.sleep(2)
            caller.say(say_mulaw("wait a moment please stop"))
            await agent.wait("bot.interrupted")
            cleared = moments(caller, Happening.CLEARED)[0]
            await asyncio.sleep(3)
        mix, heard, said = (
            samples(ear.sound),
            samples(ulaw.decode(caller.heard)),
            samples(ulaw.decode(bytes(caller.said))),
        )
        at, first = sounding(heard)
        shift = delay(first, mix, at, 2400)
        of_bot = shifted(heard, shift, len(mix))
        at, first = sounding(said)
        without_bot = (mix.astype(int) - of_bot).astype(np.int16)
        apart = delay(first, without_bot, at + shift, 2400)
        assert abs(apart) <= 400, "both sides lie as they lay for the caller"
        bot = mix.astype(int) - shifted(said, shift + apart, len(mix))
        stopped = round((cleared - began) * 8000) + shift
        assert np.abs(bot[stopped - 1600 : stopped]).max() > 1000
        assert np.abs(bot[stopped + 400 :]).max() == 0


def shifted(side: NDArray[np.int16], by: int, length: int) -> NDArray[np.int16]:
    """The side as it lies in a mix that began so much earlier (or, below zero, later)."""
    moved = np.zeros(length, np.int16)
    part = side[max(0, -by) :][: length - max(0, by)]
    moved[max(0, by) : max(0, by) + len(part)] = part
    return moved


def sounding(side: NDArray[np.int16]) -> tuple[int, NDArray[np.int16]]:
    """Where it is heard for the first time, and the half second from there."""
    at = int(np.flatnonzero(np.abs(side) > 400)[0])
    return at, side[at : at + 4000]


# --- what it may cost ---


@pytest.mark.proves("web-37")
async def test_a_listener_that_stops_reading_costs_the_call_nothing() -> None:
    async with running() as rig:
        agent = await rig.agent(media=LIVE, session_limits={"max_duration_seconds": 0, "idle_timeout_seconds": 0})
        caller, call_id = await rig.call(agent)
        stuck = sockets.socket()
        stuck.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", rig.port))
        head = (
            f"GET /live/{call_id}/ws?token={KEY} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )
        stuck.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
        async with hearing(rig, call_id) as ear:
            await asyncio.sleep(1)
            assert len(rig.gateway.listening) == 2
            await agent.say(call_id, LONG, "m1")
            await caller.wait_bot_done()
            for _ in range(600):
                await asyncio.sleep(1)
                if len(rig.gateway.listening) == 1:
                    break
            assert len(rig.gateway.listening) == 1, "given up"
            times = ear.times()
            assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 0.061
        stuck.close()


def test_of_what_waits_for_a_slow_listener_the_oldest_goes() -> None:
    listener = Listener("CA1", "org", KEY, 8000)
    for number in range(1000):
        listener.put(bytes([number % 256]))

    async def rest() -> list[bytes]:
        listener.end()
        got: list[bytes] = []
        while (frame := await listener.next()) is not None:
            got.append(frame)
        return got

    left = asyncio.run(rest())
    assert left == [bytes([number % 256]) for number in range(1000 - QUEUED_FRAMES, 1000)]
