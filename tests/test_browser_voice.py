"""A real browser with a microphone talks with an agent and hears it: judged by the samples that it received."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import expect

from demo.booking import Host
from tests.browser_ears import LISTEN, heard_by, speech_file
from tests.chromium import chromium as chromium
from tests.chromium import open_page, speaking_chromium
from tests.console_rig import console
from tests.phone_rig import KEY, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request

pytestmark = pytest.mark.asyncio(loop_scope="session")

GREETING = "Good evening my friend, and be very welcome in the house of a hundred voices."
STORY = "Once upon a time there was a gateway that carried voices from one end of the world to the other end of it, "
JITTER_MS = 400
"""What a browser on a busy machine keeps back of what it received, and the time between two of our measurements."""
SPEECH = 0.4
"""The share of a message's time that sounds at the least: there are pauses in it, and packets come late."""
SILENCE = 0.05


def storyteller(request: Request) -> Reply:
    return Reply(
        STORY * 2 + "and so on."
        if "story" in request.last_user_text
        else "As you like it, and until the next time, my friend."
    )


@pytest.mark.proves("row-129", "row-205", "row-206", "row-183")
async def test_a_page_is_heard_hears_the_answer_and_can_talk_into_it(tmp_path: Path) -> None:
    microphone = speech_file(tmp_path / "speech.wav", 7500, "please tell me a story", 6500, "stop it now please")
    script = [Say("tell me a story"), Say("stop now")]
    async with running(script, model=storyteller) as rig, speaking_chromium(microphone) as browser:
        agent = await rig.agent(llm="openai:gpt-test", prompt="Tell stories.", greeting=GREETING)
        async with console(rig, browser) as visit:
            page = visit.page
            await page.add_init_script(LISTEN)
            await page.reload()
            await page.get_by_role("button", name="Talk with mara").first.click()
            started = await agent.wait("call.started")
            assert (started["transport"], started["from"], started["direction"]) == ("webrtc", "webrtc", "inbound")
            await expect(page.locator(".line.bot.finished")).to_contain_text(GREETING)
            await expect(page.locator(".line.user.final").first).to_contain_text("tell me a story")
            await agent.wait("bot.interrupted", reason="user_spoke")
            await expect(page.locator(".line.bot.interrupted .tag")).to_contain_text("the caller spoke")
            await expect(page.locator(".line.bot.finished").nth(1)).to_contain_text(
                "As you like it, and until the next time, my friend."
            )
            await asyncio.sleep(0.2)
            heard = await heard_by(page)
            await page.get_by_role("region", name="Your call").get_by_role("button", name="Hang up").click()
            ended = await agent.wait("call.ended")
            await visit.told_nothing_of(KEY)
    assert ended["reason"] == "client_hangup"
    spoke, finished = heard.at("bot.speaking"), heard.at("bot.finished")
    assert heard.loud(spoke + JITTER_MS, finished - JITTER_MS) > SPEECH, "the greeting"
    story, cut = heard.at("bot.speaking", 1), heard.at("bot.interrupted")
    assert heard.loud(finished + JITTER_MS, story - JITTER_MS) < SILENCE, "nobody speaks while the caller does"
    assert heard.loud(story + JITTER_MS, cut) > SPEECH, "the story"
    answer = heard.at("bot.speaking", 2)
    assert heard.loud(cut + JITTER_MS, answer - 20) < SILENCE, "the caller has talked into it"
    assert heard.loud(answer + JITTER_MS, heard.at("bot.finished", 1) - JITTER_MS) > SPEECH, "the next answer"
    assert heard.count("bot.interrupted") == 1
    cut_id = next(told["message_id"] for at, told in heard.events if at == cut)
    later = [told["event"] for at, told in heard.events if at > cut and told.get("message_id") == cut_id]
    assert later == []


@asynccontextmanager
async def gateway_of_a_fresh_clone(folder: Path) -> AsyncGenerator[str]:
    """What `make run` starts, with nothing set but where it may write and where it listens; the address it prints."""
    clean = {
        name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_KEYS", "_TOKEN", "_URL"))
    }
    environment = {**clean, "PORT": "0", "DATA_DIR": str(folder), "VOICE_GATEWAY_ENV_FILE": os.devnull}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environment["PORT"] = str(probe.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", "serve"), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    drained: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(60):
            while (printed := re.search(r"console +open (\S+)", (await process.stdout.readline()).decode())) is None:
                assert process.returncode is None
        drained = asyncio.create_task(process.stdout.read())
        async with asyncio.timeout(60):
            await _answers(printed[1])
        yield printed[1]
    finally:
        process.terminate()
        await process.wait()
        if drained is not None:
            await drained


async def _answers(address: str) -> None:
    port = int(address.rpartition(":")[2])
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.1)


@pytest.mark.proves("row-129")
async def test_from_nothing_one_presses_talk_and_begins_to_book_a_table(tmp_path: Path) -> None:
    microphone = speech_file(tmp_path / "speech.wav", 6000, "I would like to book a table for four", 8000, "on friday")
    async with gateway_of_a_fresh_clone(tmp_path / "data") as address, speaking_chromium(microphone) as browser:
        async with open_page(browser) as page:
            await page.add_init_script(LISTEN)
            await page.goto(address)
            await page.get_by_role("button", name="Talk with casa-verde").first.click()
            said = page.locator(".line.bot.finished")
            await expect(said.first).to_contain_text(Host().greeting())
            await expect(page.locator(".line.user.final").first).to_contain_text("table")
            await expect(said.nth(1)).to_be_visible()
            await expect(page.locator(".line.user.final").nth(1)).to_contain_text("friday")
            await expect(said.nth(2)).to_contain_text("?")
            heard = await heard_by(page)
            await page.get_by_role("region", name="Your call").get_by_role("button", name="Hang up").click()
            await expect(page.locator("#recent .call")).to_contain_text("the visitor left")
        assert heard.loud(heard.at("bot.speaking") + JITTER_MS, heard.at("bot.finished") - JITTER_MS) > SPEECH
