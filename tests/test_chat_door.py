"""Who gets into a chat, how much of it, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from demo.agent import DEMO_AGENT, BookingAgent
from pipelines.chatting import session
from server.store.base import AgentKey
from server.threads import ThreadKey, Threads
from tests.chat_rig import LLM, ORG, ChatRig, Page, chatting
from tests.phone_rig import KEY, Agent, names
from tests.simulators.openai import Reply, Request
from tests.test_call_tools import BOOKING, FIND, give, with_results
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.events import CallMessage

UNKNOWN = "cht_" + "x" * 32


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.", token_delay=0.01)


def told(request: Request) -> Reply:
    """Reads out all that the model was told of the conversation."""
    return Reply("|".join(entry["content"] for entry in request.body["messages"] if entry["role"] != "system"))


async def refused(page: Page) -> tuple[str, int | None]:
    """The only frame, and the close after it."""
    code = await page.until_closed()
    assert names(page.frames) == ["error"]
    assert page.frames[0]["error"]
    return page.frames[0]["code"], code


# --- tokens ---


@pytest.mark.proves("web-31")
@pytest.mark.parametrize("token", ["", UNKNOWN, "nonsense", "cht_" + "é" * 32])
async def test_a_bad_token_is_told_so_and_closed(token: str) -> None:
    async with chatting() as rig:
        await rig.agent(**LLM)
        page = await rig.open(token)
        assert await refused(page) == ("UNAUTHORIZED", 1008)
        assert page.frames[0]["error"] == "This token is unknown, used or expired"
        assert rig.chats == 0


@pytest.mark.proves("web-31")
async def test_a_token_opens_one_chat_only() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        token = await rig.token()
        pages = await asyncio.gather(*(rig.open(token) for _ in range(10)))
        await asyncio.sleep(1)
        assert sorted(names(page.frames)[0] for page in pages) == ["chat.connected", *["error"] * 9]
        assert rig.chats == 1
        assert await refused(await rig.open(token)) == ("UNAUTHORIZED", 1008)


@pytest.mark.proves("web-15")
async def test_a_token_opens_within_a_minute_and_the_chat_lasts_longer() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        early, late = await rig.token(), await rig.token()
        await asyncio.sleep(59)
        page = await rig.open(early)
        await page.wait("chat.connected")
        await asyncio.sleep(2)
        assert await refused(await rig.open(late)) == ("UNAUTHORIZED", 1008)
        assert await page.ask("Hi") == "You said Hi."


@pytest.mark.proves("web-16")
async def test_a_token_for_voice_opens_no_chat_and_stays_good_for_voice() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        tokens = rig.gateway.gateway.tokens
        voice = (await tokens.mint("webrtc", AgentKey(ORG, "mara"), {}, None)).token
        assert await refused(await rig.open(voice)) == ("UNAUTHORIZED", 1008)
        assert (await tokens.consume("webrtc", voice, None, None)).agent.slug == "mara"


async def test_a_token_made_for_one_origin_is_refused_from_another_and_stays_good() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        tokens = rig.gateway.gateway.tokens
        token = (await tokens.mint("chat", AgentKey(ORG, "mara"), {}, "https://app.site.com")).token
        for origin in ("https://other.io", "null"):
            page = await rig.open(token, origin=origin)
            assert await refused(page) == ("ORIGIN_NOT_ALLOWED", 1008)
        page = await rig.open(token, origin="https://app.site.com")
        await page.wait("chat.connected")


@pytest.mark.proves("row-154")
async def test_a_development_agent_is_reached_by_its_own_token_only() -> None:
    async with chatting(echo) as rig:
        production, development = await rig.agent("mara", **LLM), await rig.agent("dev-mara", **LLM)
        page = await rig.page("dev-mara")
        await page.ask("Hi")
        assert page.of("chat.connected")[0]["agent_id"] == "dev-mara"
        assert development.count("chat.message") == 1
        assert production.count("llm.chat.started") == production.count("chat.message") == 0


@pytest.mark.proves("row-132")
async def test_many_pages_of_many_sites_chat_with_one_agent_each_for_itself() -> None:
    async with chatting(told) as rig:
        await rig.agent(**LLM)
        tokens = rig.gateway.gateway.tokens
        pages: list[Page] = []
        for origin in ("https://one.site.com", "https://two.site.com"):
            token = (await tokens.mint("chat", AgentKey(ORG, "mara"), {}, origin)).token
            pages.append(await rig.open(token, origin=origin))
        for number, page in enumerate(pages):
            assert await page.ask(f"I am {number}") == f"I am {number}"


# --- who is not there, and too many ---


async def test_an_agent_that_is_away_is_not_online() -> None:
    async with chatting() as rig:
        agent = await rig.agent(**LLM)
        token = await rig.token()
        agent.drop()
        await asyncio.sleep(1)
        page = await rig.open(token)
        assert await refused(page) == ("AGENT_OFFLINE", 1013)
        assert page.frames[0]["error"] == "Agent 'mara' is not online"


async def test_a_full_gateway_says_so_and_keeps_the_token_good() -> None:
    async with chatting(echo, max_concurrent_chats=1) as rig:
        await rig.agent(**LLM)
        first, token = await rig.page(), await rig.token()
        assert await refused(await rig.open(token)) == ("SERVER_AT_CAPACITY", 1013)
        cli = await rig.gateway.connected()
        await cli.send("llm.chat", session_id="chat-1", agent_id="mara", text="Hi")
        assert "no room" in (await cli.wait("llm.chat.error"))["error"]
        await first.socket.close()
        await rig.nothing_left()
        for answer in ("Hi", "still here"):
            await cli.send("llm.chat", session_id="chat-1", agent_id="mara", text=answer)
            assert (await cli.wait("llm.chat.done"))["text"] == f"You said {answer}."
        await cli.socket.close()
        await rig.nothing_left()
        page = await rig.open(token)
        await page.wait("chat.connected")
        assert await page.ask("Hi") == "You said Hi."


async def test_many_pages_that_find_no_room_are_all_told_so_and_none_is_taken_for_a_stranger() -> None:
    async with chatting(echo, max_concurrent_chats=1) as rig:
        await rig.agent(**LLM)
        await rig.page()
        for _ in range(30):
            page = await rig.open("cht_whatever")
            assert await refused(page) == ("SERVER_AT_CAPACITY", 1013)


@pytest.mark.proves("web-38")
async def test_a_flood_of_strangers_leaves_nothing_behind_and_disturbs_nobody() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        page = await rig.page()

        async def knock() -> int:
            try:
                stranger = await rig.open(UNKNOWN)
            except InvalidStatus as error:
                return error.response.status_code if "Retry-After" in error.response.headers else 0
            return await stranger.until_closed() or 0

        outcomes: list[int] = []
        for _ in range(20):
            outcomes += await asyncio.gather(*(knock() for _ in range(50)))
        assert set(outcomes) == {1008, 429}
        assert outcomes.count(1008) < 100
        assert rig.chats == 1
        assert await page.ask("Hi") == "You said Hi."
        fresh = await rig.page()
        assert await fresh.ask("Hi") == "You said Hi."


@pytest.mark.proves("web-38")
async def test_a_page_that_floods_is_closed_and_the_others_go_on() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page, flooder = await rig.page(), await rig.page()
        call = flooder.of("chat.connected")[0]["session_id"]
        for _ in range(40):
            if flooder.closed.is_set():
                break
            for _ in range(100):
                await flooder.send(event="set_context", key="k", value="v")
            await asyncio.sleep(0.1)
        assert await flooder.until_closed() == 1008
        assert flooder.frames[-1]["event"] == "error"
        assert flooder.frames[-1]["code"] == "RATE_LIMITED"
        assert len(flooder.of("chat.error")) <= 3
        assert (await agent.told(call, "llm.chat.ended"))["reason"] == "flood"
        assert await page.ask("Hi") == "You said Hi."


async def test_twenty_quick_frames_are_fine_and_pings_are_not_counted() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        page = await rig.page()
        for second in range(30):
            await page.send(event="ping")
            await asyncio.sleep(1)
            if second == 10:
                for number in range(16):
                    await page.send(event="set_context", key=f"k{number}", value="v")
        assert await page.ask("Hi") == "You said Hi."
        assert page.of("chat.error") == []
        assert len(page.of("pong")) == 30


async def test_frames_that_are_too_large_are_dropped_and_three_of_them_end_the_chat() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        page = await rig.page()
        for _ in range(2):
            await page.send(event="message", text="x" * 17_000)
            await page.wait("chat.error")
            await asyncio.sleep(1.1)
        assert await page.ask("Hi") == "You said Hi."
        await page.send(event="message", text="x" * 17_000)
        assert await page.until_closed() == 1008


async def test_a_message_that_nobody_would_read_is_not_even_taken_into_memory() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.socket.send("x" * 70_000)
        assert await page.until_closed() == 1009
        await agent.wait("llm.chat.ended")


# --- the end ---


async def test_a_chat_in_which_nobody_writes_ends_after_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.IDLE_SECONDS == 30 * 60
    monkeypatch.setattr(session, "IDLE_SECONDS", 60)
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await asyncio.sleep(55)
        await page.ask("Hi")
        await asyncio.sleep(55)
        assert not page.closed.is_set()
        await asyncio.sleep(6)
        assert await page.until_closed() == 1000
        ended = await agent.wait("llm.chat.ended")
        assert ended["reason"] == "idle_timeout"
        assert 115 < ended["duration_seconds"] < 120
        assert ended["ended_at"] - ended["started_at"] == pytest.approx(ended["duration_seconds"], abs=0.01)


async def test_the_agent_hangs_up() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await agent.send("call.hangup", call_id=page.of("chat.connected")[0]["session_id"])
        assert await page.until_closed() == 1000
        assert (await agent.wait("llm.chat.ended"))["reason"] == "hangup"
        assert names(page.frames) == ["chat.connected"]


@pytest.mark.parametrize("how", ["removed", "kicked", "goodbye"])
async def test_an_agent_that_goes_for_good_takes_its_chats_with_it(how: str) -> None:
    async with chatting(slow) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.say("Hi")
        await page.say("Anybody?")
        await agent.wait("chat.message")
        if how == "removed":
            await agent.send("agent.remove", agent_id="mara")
        elif how == "kicked":
            await rig.gateway.gateway.registry.kick(AgentKey(ORG, "mara"))
        else:
            await agent.socket.close(1000, "client_disconnect")
        assert await page.until_closed() == 1013
        assert names(page.frames) == ["chat.connected", "chat.error", "chat.error", "error"]
        assert page.frames[-1]["code"] == "AGENT_OFFLINE"
        if how != "goodbye":
            assert (await agent.wait("llm.chat.ended"))["reason"] == "agent_removed"


async def test_an_agent_that_comes_back_finds_its_chat_and_what_was_written_meanwhile() -> None:
    async with chatting() as rig:
        first = await rig.agent()
        page = await rig.page(plan="gold")
        call = page.of("chat.connected")[0]["session_id"]
        first.drop()
        await asyncio.sleep(1)
        await page.say("Are you there?")
        await asyncio.sleep(5)
        agent = await rig.agent()
        started = await agent.told(call, "llm.chat.started")
        assert (started["resumed"], started["metadata"]) == (True, {"plan": "gold"})
        assert (await agent.wait("chat.message"))["text"] == "Are you there?"
        agent.drop()
        await asyncio.sleep(1)
        agent = await rig.agent()
        await agent.told(call, "llm.chat.started")
        await asyncio.sleep(1)
        assert agent.count("chat.message") == 0, "told once: it may be at work on the answer"
        await agent.say(call, "Yes.")
        assert (await page.wait("chat.done"))["text"] == "Yes."
        assert agent.count("call.started") == 0


async def test_a_tool_is_asked_for_again_when_its_agent_has_come_back() -> None:
    async with chatting(with_results(FIND)) as rig:
        first = await rig.agent(**BOOKING)
        page = await rig.page()
        await page.say("Find it")
        await first.wait("llm.tool_call")
        first.drop()
        await asyncio.sleep(1)
        agent = await rig.agent(**BOOKING)
        asked = await agent.wait("llm.tool_call")
        await give(agent, asked["call_id"], asked, call_1="here")
        assert (await page.wait("chat.done"))["text"] == "here."
        assert names(page.frames).count("chat.tool_call") == names(page.frames).count("chat.tool_result") == 1


async def test_the_model_goes_on_while_its_agent_is_away_and_the_chat_ends_with_the_grace() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        agent.drop()
        await asyncio.sleep(1)
        assert await page.ask("Hi") == "You said Hi."
        assert await page.until_closed(patience=30) == 1013


async def test_a_gateway_that_stops_tells_the_agent_and_closes_the_page() -> None:
    async with chatting(slow) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.say("Hi")
        await agent.wait("chat.message")
        stopping = asyncio.create_task(rig.gateway.gateway.stop())
        assert await page.until_closed() == 1012
        assert (await agent.wait("llm.chat.ended"))["reason"] == "disconnected"
        assert names(page.frames) == ["chat.connected", "chat.error"]
        await stopping


def slow(_: Request) -> Reply:
    return Reply("Never.", first_token_delay=50)


async def test_the_demo_agent_takes_a_booking_in_writing() -> None:
    async with chatting() as rig:
        demo = BookingAgent(f"ws://127.0.0.1:{rig.gateway.port}/client", KEY, "+15550100100")
        demo.on_event = lambda _: None
        running = asyncio.create_task(demo.run())
        await demo.ready.wait()
        page = await rig.page(DEMO_AGENT)
        greeting = (await page.wait("chat.done"))["text"]
        assert greeting
        first = await page.ask("a table for two")
        assert first not in ("", greeting)
        await page.socket.close()
        await rig.nothing_left()
        running.cancel()


# --- threads ---


async def enough(rig: ChatRig, page: Page, agent: Agent) -> None:
    """The page leaves, and the agent knows."""
    await page.socket.close()
    await agent.told(page.of("chat.connected")[0]["session_id"], "llm.chat.ended")


@pytest.mark.proves("web-34")
async def test_a_page_that_comes_back_to_its_thread_finds_its_conversation() -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page(thread="t-1")
        assert names(page.frames) == ["chat.connected"]
        await page.ask("My name is Ada")
        await enough(rig, page, agent)
        again = await rig.page(thread="t-1")
        history = await again.wait("chat.history")
        assert names(again.frames) == ["chat.connected", "chat.history"]
        assert history == {
            "event": "chat.history",
            "thread_id": "t-1",
            "messages": [
                {"role": "user", "text": "My name is Ada"},
                {"role": "assistant", "text": "My name is Ada"},
            ],
        }
        assert await again.ask("And?") == "My name is Ada|My name is Ada|And?"


@pytest.mark.proves("web-34")
@pytest.mark.parametrize(
    ("agent_id", "sealed"),
    [
        ("luca", {}),
        ("mara", {"userId": "2"}),
        ("mara", {"contactId": "1"}),
        ("mara", {"userId": "1", "contactId": "1"}),
        ("mara", {"threadId": "t-2"}),
        ("mara", {"userId": 1}),
    ],
)
async def test_nobody_else_finds_it_under_the_same_name(agent_id: str, sealed: dict[str, Any]) -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        await rig.agent("luca", **LLM)
        owner = {} if agent_id == "luca" else {"userId": "1"}
        page = await rig.page(thread="t-1", **owner)
        await page.ask("My name is Ada")
        await enough(rig, page, agent)
        other = await rig.page(agent_id, thread="t-1", **sealed)
        assert await other.ask("Who am I?") == "Who am I?"
        assert other.of("chat.history") == []
        if owner:
            nobody = await rig.page(thread="t-1")
            assert await nobody.ask("Who am I?") == "Who am I?"
            same = await rig.page(thread="t-1", **owner)
            assert (await same.wait("chat.history"))["messages"][0]["text"] == "My name is Ada"


async def test_a_sealed_thread_beats_the_one_in_the_address_and_odd_names_are_no_threads() -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page(thread="t-1", threadId="sealed")
        await page.ask("One")
        await enough(rig, page, agent)
        assert (await (await rig.page(thread="sealed")).wait("chat.history"))["thread_id"] == "sealed"
        for name in ("a b", "x" * 129, "../etc", "ü"):
            page = await rig.page(thread=name)
            await page.ask("Two")
            await enough(rig, page, agent)
            assert (await rig.page(thread=name)).of("chat.history") == []


@pytest.mark.parametrize("sealed", [42, "not a name", True, ["t-1"]])
async def test_a_sealed_thread_that_is_no_name_does_not_let_the_address_choose_one(sealed: object) -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page(thread="t-1")
        await page.ask("One")
        await enough(rig, page, agent)
        other = await rig.page(thread="t-1", threadId=sealed)
        assert await other.ask("Two") == "Two"
        assert other.of("chat.history") == []


async def test_a_number_names_a_thread_as_its_digits_do() -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page(threadId=42)
        await page.ask("One")
        await enough(rig, page, agent)
        assert (await (await rig.page(threadId="42")).wait("chat.history"))["thread_id"] == "42"


async def test_a_thread_forgets_what_its_agent_forgot() -> None:
    async with chatting(told) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page(thread="t-1")
        await page.ask("Secret")
        call = page.of("chat.connected")[0]["session_id"]
        await agent.ask("history.clear", "history.updated", call_id=call)
        await page.ask("Public")
        await enough(rig, page, agent)
        again = await rig.page(thread="t-1")
        assert [one["text"] for one in (await again.wait("chat.history"))["messages"]] == ["Public", "Public"]


def said(text: str) -> list[CallMessage]:
    return [CallMessage(role="user", content=text)]


def test_threads_are_forgotten_after_a_day_and_bounded_in_memory() -> None:
    now = [0.0]
    threads = Threads(lambda: now[0], max_bytes=100_000)
    keys = [ThreadKey(AgentKey(ORG, "mara"), f"t-{number}", "") for number in range(30)]
    for key in keys:
        threads.keep(key, said("x" * 10_000))
    assert len(threads) == 9
    assert threads.find(keys[20]) == []
    assert threads.find(keys[29])[0].content == "x" * 10_000
    threads.keep(keys[29], [])
    assert threads.find(keys[29]) == []
    now[0] = 24 * 3600 - 1
    assert threads.find(keys[28]) != []
    now[0] += 1
    assert threads.find(keys[28]) == []
    threads.keep(keys[0], said("Hi") * 70)
    assert len(threads) == 1
    assert len(threads.find(keys[0])) == 50


# --- slow readers, many chats, logs ---


async def test_a_page_that_does_not_read_is_bounded_and_let_go() -> None:
    words = Reply(" ".join(["word"] * 400), token_delay=0.01)
    async with chatting(lambda_of(words)) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.open(await rig.token(), ping_interval=None)
        await page.wait("chat.connected")
        page.socket.transport.pause_reading()
        other = await rig.page()
        for _ in range(60):
            await page.say("More")
            await asyncio.sleep(10)
            if rig.chats == 1:
                break
        assert (await agent.wait("llm.chat.ended"))["reason"] == "connection_lost"
        assert (await other.ask("Hi")).startswith("word")
        page.socket.transport.resume_reading()


def lambda_of(reply: Reply) -> Any:
    def script(_: Request) -> Reply:
        return reply

    return script


async def test_a_hundred_chats_at_once_are_all_answered() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        pages = await asyncio.gather(*(rig.page() for _ in range(100)))
        answers = await asyncio.gather(*(page.ask(f"number {number}") for number, page in enumerate(pages)))
        assert answers == [f"You said number {number}." for number in range(100)]
        assert rig.chats == 100
        assert agent.count("llm.chat.started") == 100
        assert b"gateway_chats_live 100.0" in rig.gateway.gateway.exposition()


@pytest.mark.proves("web-39")
async def test_neither_words_nor_tokens_nor_metadata_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with chatting(echo) as rig:
            agent = await rig.agent(**LLM)
            token = await rig.token(userId="user-secret", plan="metadata-secret")
            page = await rig.open(token, thread="thread-secret")
            await page.wait("chat.connected")
            await page.send(event="set_context", key="cart", value="context-secret")
            await page.send(event="set_context", key="k" * 100, value="context-secret")
            await page.ask("words-secret")
            await page.send(event="message", text="x" * 17_000)
            cli = await rig.gateway.connected()
            await cli.send("llm.chat", session_id="chat-1", agent_id="mara", text="words-secret")
            await cli.wait("llm.chat.done")
            await rig.open(token)
            await page.socket.close()
            await cli.socket.close()
            await agent.told("chat-1", "llm.chat.ended")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("websockets.client")]
    written = json.dumps(logs, default=str) + "\n".join(ours)
    assert "chat_started" in written
    assert "secret" not in written
    assert token not in written
