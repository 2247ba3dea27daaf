"""The console in a real browser, as operators and agent developers use it."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from server.auth import Source
from server.store.base import AgentKey
from tests.chromium import chromium as chromium
from tests.console_rig import TABLE, console, in_real_time
from tests.phone_rig import KEY, Agent, Frame, Rig, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from transports.chat.page import ChatPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
FREE = CalledTool("free_tables", '{"people":4}', "call_free")
LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung" * 3
HEBREW = "שלום, אני רוצה להזמין שולחן לארבעה אנשים"


def host(request: Request) -> Reply:
    """A model that looks up free tables before it answers, at length."""
    if request.body["messages"][-1]["role"] == "tool":
        return Reply("There is one by the window, and one in the garden by the tree. " + "It is quiet there. " * 9)
    return Reply("", (FREE,))


async def look_up(agent: Agent, call: str) -> Frame:
    asked = await agent.wait("llm.tool_call")
    given = [{"tool_call_id": "call_free", "result": {"tables": ["window", "garden"]}}]
    await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=given)
    return asked


async def chats(rig: Rig, stack: AsyncExitStack, count: int) -> None:
    """So many conversations that live until the stack is closed."""
    for _ in range(count):
        chat, _ = rig.gateway.chats.open(AgentKey("org_main", "mara"), {}, ChatPage("mara"), "")
        stack.callback(chat.end, "client_hangup")


@pytest.mark.proves("row-183")
async def test_a_call_is_seen_as_it_happens_and_can_be_hung_up(chromium: Browser) -> None:
    async with in_real_time([Say("a table for four please")], model=host) as rig, console(rig, chromium) as visit:
        page = visit.page
        agent = await rig.agent(**TABLE)
        await expect(page.get_by_role("button", name="Talk with mara").first).to_be_visible()
        caller, call = await rig.call(agent)
        await expect(page.locator("#live .call")).to_contain_text("+15550100199")
        await expect(page.get_by_role("heading", name="+15550100199")).to_be_visible()
        caller.say(spoken("a table for four please"))
        await expect(page.locator(".line.user.interim")).to_contain_text("hearing")
        await look_up(agent, call)
        await expect(page.locator(".line.user.final")).to_contain_text("a table for four please")
        await expect(page.locator(".line.tool code").first).to_have_text('free_tables({"people":4})')
        await expect(page.locator(".line.tool .result")).to_have_text('{"tables": ["window", "garden"]}')
        await expect(page.locator(".line.bot.speaking .heard")).to_contain_text("There is one")
        await expect(page.locator(".meter.loud")).to_have_count(1)
        await expect(page.locator(".turn")).to_have_count(1)
        await expect(page.locator(".detail")).to_contain_text("1 round of tools")
        hang_up = page.get_by_role("button", name="Hang up")
        await hang_up.click()
        assert rig.gateway.registry.calls.find("org_main", call), "once is no more than a question"
        await hang_up.click()
        assert (await agent.wait("call.ended"))["reason"] == "hangup"
        await expect(page.locator("#recent .call")).to_have_count(1)
        await expect(page.locator(".line.bot.interrupted .tag")).to_contain_text("cut off")
        await visit.told_nothing_of(KEY, "el-test", rig.gateway.settings.deepgram_api_key.get_secret_value())  # pyright: ignore[reportOptionalMemberAccess]


async def test_everything_comes_from_this_gateway_under_a_strict_policy(chromium: Browser) -> None:
    async with in_real_time() as rig, console(rig, chromium) as visit:
        await expect(visit.page.get_by_text("No agent is connected")).to_be_visible()
        assert all(address.startswith((rig.http, rig.http.replace("http", "ws"))) for address in visit.asked)
        policy = next(told for told in visit.told if "content-security-policy" in told)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        escapes = """async () => {
            const refused = [];
            addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.inline = true";
            document.body.append(script);
            document.body.setAttribute("onclick", "window.inline = true");
            await fetch("https://elsewhere.test/").catch(() => {});
            await new Promise((done) => setTimeout(done, 50));
            return [window.inline ?? false, refused];
        }"""
        async with console(rig, chromium, "Content Security Policy", "violates", "Fetch API") as hostile:
            inline, refused = await hostile.page.evaluate(escapes)
            assert not inline
            assert {"script-src-elem", "connect-src"} <= set(refused)


async def test_what_to_do_without_an_agent_is_said_and_can_be_copied(chromium: Browser) -> None:
    profile: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}
    async with in_real_time() as rig, console(rig, chromium, **profile) as visit:
        page = visit.page
        await page.get_by_role("button", name="Copy the command").click()
        await expect(page.get_by_role("button", name="Copy the command")).to_have_text("Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(".venv/bin/python -m demo.agent --url ws://127.0.0.1:")
        assert 'api_key)"' in copied
        await visit.told_nothing_of(KEY)


async def test_it_asks_for_a_key_where_operators_gave_out_keys(chromium: Browser) -> None:
    async with in_real_time(api_keys=KEY) as rig, console(rig, chromium, "401") as visit:
        page = visit.page
        field = page.get_by_label("API key")
        await expect(field).to_be_focused()
        await field.fill("pk_wrong_key_0000001")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert").filter(has_text="Invalid API key")).to_be_visible()
        await field.fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("No agent is connected")).to_be_visible()
        cookies = await page.context.cookies()
        assert [(one.get("httpOnly"), one.get("sameSite"), one.get("path")) for one in cookies] == [
            (True, "Strict", "/console")
        ]
        assert await page.evaluate("document.cookie") == ""
        await page.reload()
        await page.get_by_role("button", name="Sign out").click()
        await expect(field).to_be_visible()
        await page.reload()
        await expect(field).to_be_visible()
        await visit.told_nothing_of(KEY)


async def test_a_key_that_is_revoked_ends_the_visit(chromium: Browser) -> None:
    async with in_real_time(api_keys=KEY) as rig, console(rig, chromium, "401", "403") as visit:
        page = visit.page
        await page.get_by_label("API key").fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("No agent is connected")).to_be_visible()
        rig.gateway.organisations.keys.learn(Source.ENVIRONMENT, [])
        await expect(page.get_by_label("API key")).to_be_visible(timeout=3000)


async def test_it_can_be_used_with_keys_alone(chromium: Browser) -> None:
    async with in_real_time() as rig, console(rig, chromium) as visit, AsyncExitStack() as stack:
        page = visit.page
        await rig.agent()
        await chats(rig, stack, 3)
        await expect(page.locator("#live .call")).to_have_count(3)
        await page.keyboard.press("l")
        newest = page.locator("#live .call").first
        await expect(newest).to_have_attribute("aria-current", "true")
        await page.keyboard.press("j")
        await expect(page.locator("#live .call").nth(1)).to_be_focused()
        await page.keyboard.press("k")
        await expect(newest).to_be_focused()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(page.get_by_role("button", name="Chat with mara").first).to_be_enabled()
        await page.keyboard.press("c")
        await expect(page.get_by_label("Message")).to_be_focused()
        await page.keyboard.type("tell me")
        await expect(page.get_by_label("Message")).to_have_value("tell me")
        names = await page.evaluate(NAMELESS)
        assert names == []


async def test_it_fits_a_telephone(chromium: Browser) -> None:
    async with in_real_time([Say(HEBREW)]) as rig, console(rig, chromium, **PHONE) as visit:
        page = visit.page
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        row = page.locator("#live .call")
        await row.tap()
        await expect(row).to_be_hidden()
        await agent.say(call, LONG, "m1")
        caller.say(spoken("hello"))
        await expect(page.locator(".line.user p")).to_have_text(HEBREW)
        assert await page.locator(".line.user p").evaluate("node => getComputedStyle(node).direction") == "rtl"
        assert await page.evaluate(OVERFLOWING) == []
        assert await page.evaluate(SMALL_TARGETS) == []
        await page.get_by_role("button", name="Back to the list").tap()
        await expect(row).to_be_visible()
        assert await page.evaluate(OVERFLOWING) == []
        assert await page.evaluate(SMALL_TARGETS) == []
        await row.tap()
        await expect(row).to_be_hidden()
        await page.go_back()
        await expect(row).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_words_stand_out_from_what_is_behind_them(chromium: Browser, scheme: str) -> None:
    async with in_real_time([Say("hello")]) as rig, console(rig, chromium, color_scheme=scheme) as visit:
        page = visit.page
        agent = await rig.agent()
        assert await page.evaluate(FAINT) == []
        caller, call = await rig.call(agent)
        caller.say(spoken("hello"))
        end = await agent.wait("turn.end")
        await agent.say(call, "Good evening and welcome to the house of the green door.", "m1", end["message_id"])
        await expect(page.locator(".line.bot.speaking .heard")).to_contain_text("Good evening")
        await page.get_by_text("Details").click()
        assert await page.evaluate(FAINT) == []


async def test_a_hundred_conversations_stay_quick_to_look_through(chromium: Browser) -> None:
    async with (
        in_real_time(console_recent_calls=200) as rig,
        console(rig, chromium) as visit,
        AsyncExitStack() as stack,
    ):
        page = visit.page
        await rig.agent()
        await page.evaluate(WATCH_LONG_TASKS)
        await chats(rig, stack, 100)
        await expect(page.locator("#live .call")).to_have_count(100)
        for _ in range(10):
            await page.keyboard.press("j")
        await page.keyboard.press("/")
        some = await page.locator("#live li").nth(40).get_attribute("data-key")
        assert some is not None
        await page.keyboard.type(some)
        await expect(page.locator("#live .call")).to_have_count(1)
        longest = await page.evaluate("Math.max(0, ...window.long)")
        assert longest < 300, f"the page stood still for {longest} ms"


async def test_a_conversation_of_five_hundred_turns_is_shown_whole_and_quickly(chromium: Browser) -> None:
    def model(request: Request) -> Reply:
        return Reply(f"You wrote {request.last_user_text}.")

    async with in_real_time(model=model) as rig, console(rig, chromium) as visit:
        page = visit.page
        agent = await rig.agent(llm="openai:gpt-test", prompt="Be brief.")
        chat, _ = rig.gateway.chats.open(AgentKey("org_main", "mara"), {}, ChatPage("mara"), "")
        for number in range(500):
            chat.write(f"message {number}")
            await agent.wait("chat.response")
        await page.reload()
        await page.evaluate(WATCH_LONG_TASKS)
        await page.locator("#live .call").click()
        await expect(page.locator(".transcript .line")).to_have_count(1000)
        await expect(page.locator(".transcript .line").last).to_be_in_viewport()
        await expect(page.locator(".early")).to_be_hidden()
        assert await page.evaluate("Math.max(0, ...window.long)") < 1000
        chat.end("client_hangup")


async def test_it_comes_back_when_the_connection_was_lost(chromium: Browser) -> None:
    async with in_real_time() as rig, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(Wire(rig.port))
        visit = await stack.enter_async_context(
            console(rig, chromium, "WebSocket", "ERR_", origin=f"http://127.0.0.1:{wire.port}")
        )
        page = visit.page
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await expect(page.locator("#live .call")).to_have_count(1)
        wire.cut = True
        await expect(page.get_by_role("alert").filter(has_text="lost")).to_be_visible()
        await agent.say(call, "Are you still there?", "m1")
        await agent.wait("bot.finished")
        wire.cut = False
        await page.get_by_role("button", name="Try now").click()
        await expect(page.get_by_role("alert").filter(has_text="lost")).to_be_hidden()
        await expect(page.locator(".line.bot.finished")).to_contain_text("Are you still there?")


class Wire:
    """A cable to the gateway that can be cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut = True

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    @property
    def cut(self) -> bool:
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._cut = cut
        for writer in self._writers if cut else ():
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        near, far = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, far}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_pour(reader, far), _pour(near, writer))
        self._writers -= {writer, far}
        for one in (writer, far):
            one.close()


async def _pour(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        to.write(piece)
        await to.drain()
    to.close()


async def test_a_chat_is_typed_streams_and_is_listed(chromium: Browser) -> None:
    def model(request: Request) -> Reply:
        return Reply(f"You wrote {request.last_user_text}, and that is what I answer.")

    async with in_real_time(model=model) as rig, console(rig, chromium) as visit:
        page = visit.page
        agent = await rig.agent(llm="openai:gpt-test", prompt="Be brief.")
        await page.get_by_role("button", name="Chat with mara").click()
        await page.get_by_label("Message").fill("good evening")
        await page.keyboard.press("Enter")
        await expect(page.locator(".line.user")).to_contain_text("good evening")
        await expect(page.locator(".line.bot")).to_contain_text("You wrote good evening, and that is what I answer.")
        streamed = [json.loads(frame) for frame in visit.told if frame.startswith('{"event":"chat.token"')]
        assert len(streamed) >= 2
        assert all(later["text"].startswith(earlier["text"]) for earlier, later in itertools.pairwise(streamed))
        await expect(page.locator("#live .call")).to_contain_text("Chat visitor")
        await page.get_by_role("button", name="End chat").click()
        await agent.wait("llm.chat.ended")
        await page.locator("#recent .call").click()
        await expect(page.locator(".line.bot.finished")).to_contain_text("You wrote good evening")
        await visit.told_nothing_of(KEY)


NAMELESS = """() => [...document.querySelectorAll("button, input, [role=region], [role=dialog], nav, section[id]")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
        || node.textContent.trim() || node.labels?.length))
    .map((node) => node.outerHTML.slice(0, 120))"""
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && !node.closest(".say, .hidden, .skip, pre, .track"))
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1 || node.getBoundingClientRect().left < -1)
    .map((node) => node.outerHTML.slice(0, 120))"""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, input, summary")]
    .filter((node) => node.checkVisibility() && !node.matches(".turn"))
    .filter((node) => node.getBoundingClientRect().height < 40)
    .map((node) => `${node.getBoundingClientRect().height} ${node.outerHTML.slice(0, 120)}`)"""
FAINT = """() => {
    const part = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const read = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = read(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        const read_by_nobody = !node.checkVisibility() || node.closest("button:disabled, .say, noscript");
        if (!walk.currentNode.data.trim() || read_by_nobody) continue;
        const [a, b] = [light(read(getComputedStyle(node).color)), light(behind(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${node.className} ${walk.currentNode.data.slice(0, 40)}`);
    }
    return faint;
}"""
WATCH_LONG_TASKS = """() => {
    window.long = [];
    new PerformanceObserver((list) => window.long.push(...list.getEntries().map((one) => one.duration)))
        .observe({ type: "longtask" });
}"""
