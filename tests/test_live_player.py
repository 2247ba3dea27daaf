"""The player page in a real browser: it plays what the call sounds like, and says when it is over."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from playwright.async_api import Browser, Page, expect

from demo.caller import SoftwareCaller
from pipelines.audio import ulaw
from server.agents.endpoint import ObservedWebSocket
from tests.chromium import chromium as chromium
from tests.chromium import open_page
from tests.listening import LIVE, address
from tests.phone_rig import KEY, Agent, Rig, running
from tests.speech import tone_pcm

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAP = """
(() => {
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to === this.context.destination && !(this instanceof AnalyserNode)) {
      if (!window.heard || window.heard.context !== this.context) window.heard = this.context.createAnalyser();
      connect.call(this, window.heard);
    }
    return connect.call(this, to, ...rest);
  };
})();
"""
"""Listens in on whatever the page sends to its loudspeaker, without the page knowing."""
LOUDEST_HZ = """
() => {
  if (!window.heard) return null;
  heard.fftSize = 2048;
  const bins = new Float32Array(heard.frequencyBinCount);
  heard.getFloatFrequencyData(bins);
  const at = bins.indexOf(Math.max(...bins));
  return bins[at] > -60 ? at * heard.context.sampleRate / heard.fftSize : null;
}
"""
WITHOUT_WORKLET = "delete BaseAudioContext.prototype.audioWorklet;"


@asynccontextmanager
async def live_call() -> AsyncGenerator[tuple[Rig, Agent, SoftwareCaller, str]]:
    async with running() as rig:
        agent = await rig.agent(media=LIVE)
        caller, call_id = await rig.call(agent)
        yield rig, agent, caller, call_id


async def sounds(page: Page, hz: float, patience: float = 6.0) -> None:
    """Until that pitch comes out of the page."""
    heard: list[float | None] = []
    async with asyncio.timeout(patience):
        while not (heard and heard[-1] is not None and abs(heard[-1] - hz) < 20):
            heard.append(await page.evaluate(LOUDEST_HZ))
            await asyncio.sleep(0.05)


def player(rig: Rig, call_id: str, token: str = KEY) -> str:
    return address(rig, call_id, token, "http", "player")


@pytest.mark.proves("row-134")
@pytest.mark.parametrize("script", [TAP, TAP + WITHOUT_WORKLET], ids=["worklet", "buffers"])
async def test_the_page_plays_the_call_and_says_when_it_is_over(chromium: Browser, script: str) -> None:
    async with live_call() as (rig, agent, caller, call_id), open_page(chromium) as page:
        await page.add_init_script(script)
        await page.goto(player(rig, call_id))
        button = page.get_by_role("button", name="Listen")
        await expect(page.get_by_role("status")).to_have_text("Live")
        await expect(page.locator("#call")).to_have_text(call_id)
        assert await page.evaluate(LOUDEST_HZ) is None, "nothing sounds before it is asked for"
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("Listening")
        caller.say(ulaw.encode(tone_pcm(1000, 30_000, 8000, -12.0)))
        await sounds(page, 1000)
        assert await page.evaluate("heard.context.sampleRate") == 8000
        await expect(page.get_by_role("meter")).to_have_attribute("aria-valuetext", "loud")
        await expect(page.locator("#elapsed")).not_to_have_text("0:00")
        await page.get_by_role("button", name="Stop listening").click()
        await expect(page.get_by_role("status")).to_have_text("Live")
        assert await page.evaluate("heard.context.state") == "closed"
        await page.get_by_role("button", name="Listen").click()
        await sounds(page, 1000)
        await caller.hang_up()
        await agent.wait("call.ended")
        await expect(page.get_by_role("status")).to_have_text("Ended")
        await expect(page.get_by_role("button", name="The call has ended")).to_be_disabled()


async def test_a_lost_connection_is_made_again_and_the_sound_goes_on(chromium: Browser) -> None:
    async with live_call() as (rig, _, caller, call_id), open_page(chromium) as page:
        await page.add_init_script(TAP)
        await page.goto(player(rig, call_id))
        await page.get_by_role("button", name="Listen").click()
        caller.say(ulaw.encode(tone_pcm(800, 30_000, 8000, -12.0)))
        await sounds(page, 800)
        connections = rig.server.server_state.connections
        [listening] = [
            one for one in connections if isinstance(one, ObservedWebSocket) and call_id in one.scope["path"]
        ]
        listening.abort()
        await expect(page.get_by_role("status")).to_have_text("Reconnecting …")
        await expect(page.get_by_role("status")).to_have_text("Listening")
        await sounds(page, 800)


@pytest.mark.proves("row-134")
async def test_the_page_shows_its_key_to_nobody(chromium: Browser) -> None:
    async with live_call() as (rig, _, _, call_id):
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(player(rig, call_id))
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/html")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert KEY not in answer.text
            assert call_id not in answer.text
            for name in ("player.js", "worklet.js", "player.css", "icon.svg"):
                asset = await http.get(f"{rig.http}/live/assets/{name}")
                assert asset.status_code == 200
                assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", asset.text) == []
            assert (await http.get(f"{rig.http}/live/assets/%2e%2e%2fplayer.html")).status_code == 404
        asked: list[str] = []
        async with open_page(chromium) as page:
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(player(rig, call_id))
            await expect(page.get_by_role("status")).to_have_text("Live")
        assert all(url.startswith(f"{rig.http}/live/") for url in asked)
        assert [url for url in asked if KEY in url] == [player(rig, call_id)]


async def test_a_link_that_opens_nothing_says_so_in_words(chromium: Browser) -> None:
    async with running() as rig, open_page(chromium, "401", "404") as page:
        await page.goto(player(rig, "CAgone"))
        await expect(page.get_by_role("heading")).to_have_text("There is nothing to hear here")
        await page.goto(player(rig, "CAgone", "pk_nobody_has_this_key"))
        await expect(page.get_by_role("heading")).to_have_text("This link is not valid")


async def test_it_fits_a_phone_and_keeps_still_for_those_who_want_that(chromium: Browser) -> None:
    async with live_call() as (rig, _, caller, call_id):
        small = {"width": 320, "height": 568}
        async with open_page(chromium, viewport=small, reduced_motion="reduce", color_scheme="dark") as page:
            await page.goto(player(rig, call_id))
            caller.say(ulaw.encode(tone_pcm(1000, 3000, 8000, -12.0)))
            await expect(page.get_by_role("status")).to_have_text("Live")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")
            await expect(page.locator("#bars")).to_be_hidden()
            box = await page.get_by_role("button").bounding_box()
            assert box is not None
            assert box["height"] >= 44
