"""aiortc as it is installed: does what the gateway reaches into still fit, and does a call work in real time?"""

from __future__ import annotations

import asyncio
import threading

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from tests.browser_rig import StockBrowser, browsing
from tests.phone_rig import running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.speech import say_pcm, silence_pcm
from transports.webrtc.offer import read_offer
from transports.webrtc.track import VoiceTrack
from transports.webrtc.tuning import Network, listen_on, misfits


def test_the_installed_aiortc_has_all_that_is_reached_into() -> None:
    assert misfits() == [], "aiortc has changed: see transports/webrtc/tuning.py"


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


@pytest.mark.proves("web-13", "web-22", "row-105")
async def test_a_client_with_nothing_of_ours_in_it_speaks_and_hears_in_real_time() -> None:
    async with running([Say("a table for two")], model=echo) as rig:
        agent = await rig.agent(llm="openai:gpt-test")
        async with browsing(rig, StockBrowser) as page:
            await agent.wait("call.started")
            decoders = [thread.name for thread in threading.enumerate() if thread.name.endswith("-decoder")]
            assert len(decoders) == 1, "the client's; the gateway has none"
            page.say(say_pcm("a table for two") + silence_pcm(900))
            finished = await page.wait("bot.finished")
            assert finished["text"] == "You said a table for two."
            await asyncio.sleep(0.2)
            assert len(page.heard.audible()) * 0.02 == pytest.approx(finished["duration_ms"] / 1000, rel=0.4)
        assert (await agent.wait("call.ended"))["reason"] == "client_hangup"


async def candidates(network: Network) -> list[list[str]]:
    """What an answer tells of our addresses: address, port and type of each."""
    caller, ours = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    try:
        caller.addTrack(VoiceTrack())
        await caller.setLocalDescription(await caller.createOffer())
        transceiver = ours.addTransceiver(VoiceTrack(), "sendrecv")
        offer = read_offer(caller.localDescription.sdp)
        await ours.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        listen_on(transceiver, network)
        await ours.setLocalDescription(await ours.createAnswer())
        lines = ours.localDescription.sdp.splitlines()
        told = [line.split(" ") for line in lines if line.startswith("a=candidate")]
        return [[parts[4], parts[5], parts[7]] for parts in told]
    finally:
        await ours.close()
        await caller.close()


async def test_ports_come_from_the_range_and_the_public_address_is_told() -> None:
    told = await candidates(Network("203.0.113.9", (45000, 45099)))
    assert told
    assert all(45000 <= int(port) <= 45099 for _, port, _ in told)
    outside = [(port, kind) for address, port, kind in told if address == "203.0.113.9"]
    inside = [port for address, port, kind in told if kind == "host" and ":" not in address]
    assert outside == [(port, "srflx") for port in inside]


async def test_without_settings_any_port_does_and_no_other_address_is_told() -> None:
    told = await candidates(Network())
    assert told
    assert {kind for _, _, kind in told} == {"host"}
