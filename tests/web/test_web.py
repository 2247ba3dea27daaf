"""What the published web client promises its users, seen from a page of some customer's site."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser_ears import LISTEN, heard_by, speech_file
from tests.chromium import chromium as chromium
from tests.chromium import open_page, speaking_chromium
from tests.phone_rig import Rig, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request

pytestmark = pytest.mark.asyncio(loop_scope="session")

AGENT: dict[str, Any] = {"llm": "openai:gpt-test", "prompt": "Be kind.", "allowed_origins": ["http://localhost:*"]}


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}, and I am glad to hear it.")


class _Files(SimpleHTTPRequestHandler):
    """The shop's front page, and the build."""

    def do_GET(self) -> None:
        """One file."""
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>shop</title><body></body>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads that."""


@asynccontextmanager
async def site(web: Path, browser: Browser, *expected: str) -> AsyncGenerator[Page]:
    """A page of the customer's that can import the build."""
    files = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(web / "dist")))
    serving = asyncio.create_task(asyncio.to_thread(files.serve_forever, 0.05))
    try:
        async with open_page(browser, "404", *expected) as page:
            await page.add_init_script(LISTEN)
            await page.goto(f"http://localhost:{files.server_port}/")
            yield page
    finally:
        files.shutdown()
        await serving
        files.server_close()


async def voice(page: Page, rig: Rig, **options: object) -> None:
    """A `VoiceSession` as `window.session`, connected; `window.seen` keeps its phases and statuses."""
    await page.evaluate(
        """async (options) => {
            const { VoiceSession } = await import("/core/index.js");
            window.seen = [];
            window.session = new VoiceSession(options);
            for (const kind of ["status", "phase"]) {
                session.addEventListener(kind, ({ detail }) => seen.push(detail[kind]));
            }
            await session.connect();
        }""",
        {"agent": "mara", "server": rig.http, **options},
    )


async def state(page: Page, test: str) -> None:
    """Until that is true of the session's `state`."""
    await page.wait_for_function(f"(() => {{ const state = window.session.getState(); return {test}; }})()")


async def test_a_voice_session_goes_through_its_phases(web: Path, tmp_path: Path) -> None:
    microphone = speech_file(tmp_path / "speech.wav", 6000, "a table for two")
    async with running([Say("a table for two")], model=echo) as rig, speaking_chromium(microphone) as browser:
        agent = await rig.agent(greeting="Good evening, my friend.", **AGENT)
        async with site(web, browser) as page:
            await voice(page, rig, metadata={"page": "/menu"})
            started = await agent.wait("call.started")
            assert started["metadata"] == {"page": "/menu"}
            await state(page, "state.status === 'connected' && state.messages.length >= 1")
            await state(page, "state.messages.some(m => m.role === 'user' && m.text === 'a table for two')")
            await state(page, "state.phase === 'listening' && state.messages.length === 3")
            said = await page.evaluate("session.getState().messages.map((m) => [m.role, m.text])")
            assert said == [
                ["bot", "Good evening, my friend."],
                ["user", "a table for two"],
                ["bot", "You said a table for two, and I am glad to hear it."],
            ]
            seen = await page.evaluate("window.seen")
            assert [one for one in seen if one in ("connecting", "connected")] == ["connecting", "connected"]
            assert _in_order(seen, ["listening", "speaking", "listening", "thinking", "speaking", "listening"])
            heard = await heard_by(page)
            spoke, finished = heard.at("bot.speaking", 1), heard.at("bot.finished", 1)
            assert heard.loud(spoke + 400, finished - 400) > 0.4
            await page.evaluate("session.disconnect()")
            assert (await agent.wait("call.ended"))["reason"] == "client_hangup"


async def test_a_voice_session_types_mutes_and_shows_what_is_on_the_page(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(**AGENT)
        async with site(web, chromium) as page:
            await voice(page, rig)
            await agent.wait("call.started")
            await state(page, "state.status === 'connected'")
            await page.evaluate("session.setContext('cart', 'two lamps')")
            await page.evaluate("session.sendText('what is in my cart')")
            await state(page, "state.messages.at(-1)?.text.startsWith('You said what is in my cart')")
            assert "two lamps" in json.dumps(rig.vendors.model.chats[-1]["messages"])
            await page.evaluate("session.toggleMute()")
            await agent.wait("call.muted")
            await page.evaluate("session.toggleMute()")
            await agent.wait("call.unmuted")
            await page.evaluate("session.disconnect()")
            await agent.wait("call.ended")


async def test_a_voice_session_ends_at_once_when_the_agent_hangs_up(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(**AGENT)
        async with site(web, chromium) as page:
            await voice(page, rig)
            call = (await agent.wait("call.started"))["call_id"]
            await state(page, "state.status === 'connected'")
            await agent.send("call.hangup", call_id=call)
            await page.wait_for_function("session.getState().status === 'idle'", timeout=2000)


async def test_a_page_of_another_site_is_told_why_it_gets_nothing(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        elsewhere: dict[str, Any] = {**AGENT, "allowed_origins": ["https://elsewhere.test"]}
        await rig.agent(**elsewhere)
        async with site(web, chromium, "403") as page:
            await voice(page, rig)
            await state(page, "state.status === 'error' && state.error === 'Token: 403'")


async def test_a_chat_session_streams_its_answer(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(**AGENT)
        async with site(web, chromium) as page:
            await page.evaluate(
                """async (options) => {
                    const { ChatSession } = await import("/chat/index.js");
                    window.session = new ChatSession(options);
                    window.streamed = [];
                    session.subscribe(() => streamed.push(session.getState().messages.at(-1)?.text ?? ""));
                    await session.connect();
                }""",
                {"agent": "mara", "server": rig.http},
            )
            await state(page, "state.status === 'connected'")
            await page.evaluate("session.send('good evening')")
            answer = "You said good evening, and I am glad to hear it."
            await state(page, f"state.messages.at(-1)?.text === {json.dumps(answer)} && !state.typing")
            parts = {one for one in await page.evaluate("streamed") if one and answer.startswith(one)}
            assert len(parts) >= 3, "it came bit by bit"
            await page.evaluate("session.disconnect()")
            await agent.wait("llm.chat.ended")


async def test_the_orb_calls_and_shows_what_is_said(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(greeting="Good evening, my friend, and welcome.", **AGENT)
        async with site(web, chromium) as page:
            await _element(page, "orb", "pinecall-orb", rig)
            await page.locator("pinecall-orb").get_by_role("button").click()
            await agent.wait("call.started")
            await expect(page.locator("pinecall-orb .vw-bubble")).to_contain_text("Good evening")
            await page.locator("pinecall-orb").get_by_role("button").click()
            assert (await agent.wait("call.ended"))["reason"] == "client_hangup"


async def test_the_chat_element_types_and_answers(web: Path, chromium: Browser) -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(**AGENT)
        async with site(web, chromium) as page:
            await _element(page, "chatbox", "pinecall-chat", rig, open="")
            field = page.locator("pinecall-chat").locator("textarea, input[type=text]").first
            await field.fill("good evening")
            await field.press("Enter")
            await expect(page.locator("pinecall-chat")).to_contain_text("You said good evening")
            assert await agent.wait("llm.chat.started")


async def _element(page: Page, module: str, tag: str, rig: Rig, **attributes: str) -> None:
    await page.evaluate(
        """async ([module, tag, attributes]) => {
            await import(`/${module}/index.js`);
            const element = document.createElement(tag);
            for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
            document.body.append(element);
        }""",
        [module, tag, {"agent": "mara", "name": "Mara", "server": rig.http, **attributes}],
    )


def _in_order(seen: list[str], wanted: list[str]) -> bool:
    rest = iter(seen)
    return all(one in rest for one in wanted)
