"""Pages in browsers chat with agents: every dialect, one answer a message, in order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from itertools import groupby, pairwise

import pytest

from tests.chat_rig import LLM, chatting
from tests.phone_rig import names
from tests.simulators.openai import CalledTool, Reply, Request
from tests.test_call_tools import BOOKING, FIND, function, give, with_results
from tests.virtual_time import event_loop_policy as event_loop_policy

HELLO = Reply("Hi there, how can I help?", token_delay=0.01)


ENDLESS = Reply(" ".join(["word"] * 1000), token_delay=0.5)


def slow_yes(_: Request) -> Reply:
    return Reply("Yes.", first_token_delay=1.0)


def endless_at_first(request: Request) -> Reply:
    return ENDLESS if request.last_user_text == "Hi" else Reply("Yes.")


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.", token_delay=0.01)


@pytest.mark.proves("web-30", "row-130")
async def test_a_message_is_answered_piece_by_piece_and_the_agent_sees_all_of_it() -> None:
    async with chatting([HELLO]) as rig:
        agent = await rig.agent(**LLM, language="es-ES")
        page = await rig.open(await rig.token(plan="gold"))
        connected = await page.wait("chat.connected")
        call = connected["session_id"]
        assert connected == {"event": "chat.connected", "session_id": call, "agent_id": "mara"}
        assert call.startswith("chat-")
        await page.say(" Hi! ")
        done = await page.wait("chat.done")
        assert done == {
            "event": "chat.done",
            "type": "bot.message",
            "message_id": done["message_id"],
            "text": HELLO.text,
        }
        tokens = page.of("chat.token")
        assert len(tokens) >= 2
        texts = [frame["text"] for frame in tokens]
        assert all(longer.startswith(text) and longer != text for text, longer in pairwise(texts))
        assert texts[-1] == "".join(frame["token"] for frame in tokens) == done["text"]
        assert {frame["message_id"] for frame in tokens} == {done["message_id"]}
        assert names(page.frames) == ["chat.connected", *["chat.token"] * len(tokens), "chat.done"]
        await agent.wait("chat.response")
        started, message, response = agent.of_call(call)
        assert {**started, "ts": 0} == {
            "event": "llm.chat.started",
            "agent_id": "mara",
            "call_id": call,
            "session_id": call,
            "seq": 1,
            "ts": 0,
            "from": "chat",
            "to": "mara",
            "direction": "inbound",
            "transport": "chat",
            "metadata": {"plan": "gold"},
            "language": "es",
            "model": "gpt-test",
        }
        assert (message["event"], message["text"]) == ("chat.message", "Hi!")
        assert (response["event"], response["text"]) == ("chat.response", HELLO.text)
        assert response["message_id"] == done["message_id"]
        await page.socket.close()
        ended = await agent.wait("llm.chat.ended")
        assert ended["reason"] == "client_hangup"
        assert ended["metadata"] == {"plan": "gold"}
        assert [(entry["role"], entry["content"]) for entry in ended["messages"]] == [
            ("system", "Be brief."),
            ("user", "Hi!"),
            ("assistant", HELLO.text),
        ]
        assert "call.ended" not in names(agent.frames)


@pytest.mark.proves("web-33", "row-207")
@pytest.mark.parametrize(
    "frame",
    [
        {"event": "message", "text": "Hi"},
        {"type": "user.message", "text": "Hi"},
        {"action": "message", "text": "Hi"},
        {"event": "message", "type": "anything", "text": "  Hi\n", "extra": 1},
    ],
)
@pytest.mark.parametrize("path", ["/chat/ws", "/ws"])
async def test_every_dialect_of_pages_is_answered(frame: dict[str, object], path: str) -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        page = await rig.open(await rig.token(), path)
        await page.send(**frame)  # even before chat.connected
        done = await page.wait("chat.done")
        assert (done["type"], done["text"]) == ("bot.message", "You said Hi.")


@pytest.mark.proves("web-33")
async def test_messages_sent_at_once_are_answered_in_order_and_one_at_a_time() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        for text in ("one", "two", "three"):
            await page.say(text)
        for text in ("one", "two", "three"):
            assert (await page.wait("chat.done"))["text"] == f"You said {text}."
        by_message = [frame["message_id"] for frame in page.frames[1:]]
        assert len(set(by_message)) == 3
        assert by_message == sorted(by_message, key=by_message.index), "pieces of two answers are mixed"
        await agent.wait("chat.response", text="You said three.")
        assert names(agent.frames)[-6:] == ["chat.message", "chat.response"] * 3


async def test_more_messages_than_may_wait_are_refused_and_none_is_lost() -> None:
    async with chatting(slow_yes) as rig:
        await rig.agent(**LLM)
        page = await rig.page()
        for number in range(8):
            await page.say(f"number {number}")
        for _ in range(6):
            await page.wait("chat.done")
        assert len(page.of("chat.error")) == 2
        assert page.of("chat.error")[0]["error"] == "Too many messages at once: wait for the answer"
        assert await page.ask("again") == "Yes."


async def test_blank_messages_are_ignored_and_huge_ones_refused() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.say("  \n ")
        await page.say("x" * 8001)
        assert (await page.wait("chat.error"))["error"] == "A message may have 8000 characters"
        assert await page.ask("x" * 8000) == f"You said {'x' * 8000}."
        assert agent.count("chat.message") == 1


@pytest.mark.proves("web-32")
async def test_tools_run_between_two_parts_of_one_answer() -> None:
    def script(request: Request) -> Reply:
        if request.body["messages"][-1]["role"] == "user":
            return Reply(
                "Let me look.", [CalledTool("find_booking", '{"code":"A1"}', "c1"), CalledTool("weather", "{}", "c2")]
            )
        return Reply("It is there.")

    async with chatting(script) as rig:
        agent = await rig.agent(**BOOKING)
        page = await rig.page()
        await page.say("Find it")
        asked = await agent.wait("llm.tool_call")
        call = asked["call_id"]
        await give(agent, call, asked, c2="sunny")
        await give(agent, call, asked, c1={"found": True})
        done = await page.wait("chat.done")
        assert done["text"] == "Let me look.\n\nIt is there."
        kinds = [kind for kind, _ in groupby(names(page.frames))]
        assert kinds == [
            "chat.connected",
            "chat.token",
            "chat.tool_call",
            "chat.tool_result",
            "chat.token",
            "chat.done",
        ]
        called, *results = [frame for frame in page.frames if frame["event"].startswith("chat.tool_")]
        assert [(one["id"], one["name"], one["arguments"]) for one in called["tool_calls"]] == [
            ("c1", "find_booking", '{"code":"A1"}'),
            ("c2", "weather", "{}"),
        ]
        assert [(one["tool_call_id"], one["name"], one["result"]) for one in results] == [
            ("c2", "weather", "sunny"),
            ("c1", "find_booking", {"found": True}),
        ]
        assert {frame["message_id"] for frame in page.frames[1:]} == {done["message_id"]}
        last = rig.gateway.vendors.model.chats[-1]["messages"]
        assert [entry["role"] for entry in last] == ["user", "assistant", "tool", "tool"]
        assert last[1]["content"] == "Let me look."


async def test_a_tool_that_is_never_answered_does_not_hold_the_page_up_for_ever() -> None:
    async with chatting(with_results(FIND)) as rig:
        await rig.agent(**BOOKING)
        page = await rig.page()
        before = asyncio.get_running_loop().time()
        await page.say("Find it")
        assert (await page.wait("chat.done", patience=60))["text"] == '{"error":"tool timeout"}.'
        assert 30 <= asyncio.get_running_loop().time() - before < 31
        assert page.of("chat.tool_result")[0]["result"] == {"error": "tool timeout"}


async def test_an_enormous_result_is_not_sent_to_the_page() -> None:
    async with chatting(with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        page = await rig.page()
        await page.say("Find it")
        asked = await agent.wait("llm.tool_call")
        await give(agent, asked["call_id"], asked, call_1=["x" * 60_000])
        await page.wait("chat.done")
        assert page.of("chat.tool_result")[0]["result"] == {"truncated": True, "bytes": 60_004}


@pytest.mark.proves("web-32")
@pytest.mark.parametrize(
    "bad", [Reply(status=500), Reply("Hello you there", cut_after=2), Reply("a b c", error_after=1)]
)
async def test_a_model_that_fails_is_an_error_of_that_message_only(bad: Reply) -> None:
    broken = True

    def script(request: Request) -> Reply:
        return bad if broken else echo(request)

    async with chatting(script) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.say("Hi")
        assert (await page.wait("chat.error", patience=130))["error"] == "The language model failed"
        assert (await agent.wait("llm.error"))["error"] == "The language model failed"
        broken = False
        assert await page.ask("And now?") == "You said And now?."
        assert len(page.of("chat.error")) == len(page.of("chat.done")) == 1
        asked = rig.gateway.vendors.model.chats[-1]["messages"]
        assert [entry["content"] for entry in asked if entry["role"] == "user"] == ["Hi", "And now?"]


async def test_a_model_that_never_ends_is_given_up_after_two_minutes() -> None:
    async with chatting(endless_at_first) as rig:
        await rig.agent(**LLM)
        page = await rig.page()
        before = asyncio.get_running_loop().time()
        await page.say("Hi")
        await page.say("Are you there?")
        error = await page.wait("chat.error", patience=200)
        assert error["error"] == "The agent did not answer"
        assert 120 <= asyncio.get_running_loop().time() - before < 121
        assert (await page.wait("chat.done"))["text"] == "Yes."
        await rig.gateway.vendors.model.abandoned.wait()


async def test_a_page_that_leaves_in_mid_answer_takes_the_request_with_it() -> None:
    async with chatting([ENDLESS]) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        await page.say("Hi")
        await page.wait("chat.token")
        await page.socket.close()
        ended = await agent.wait("llm.chat.ended")
        assert ended["reason"] == "client_hangup"
        assert ended["messages"][-1]["content"].startswith("word")
        async with asyncio.timeout(2):
            await rig.gateway.vendors.model.abandoned.wait()


async def test_a_page_that_vanishes_is_noticed() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        page.socket.transport.abort()
        assert (await agent.wait("llm.chat.ended"))["reason"] == "connection_lost"


async def test_what_the_page_shows_is_part_of_the_instructions() -> None:
    async with chatting(echo) as rig:
        await rig.agent(llm="openai:gpt-test", prompt="Be {{mood}}.", vars={"mood": "brief"})
        page = await rig.page()

        async def system() -> str:
            await page.ask("Hi")
            return rig.gateway.vendors.model.chats[-1]["messages"][0]["content"]

        await page.send(event="set_context", key="cart", value="2 books")
        await page.send(action="set_context", key="page", value={"path": "/x"})
        assert await system() == 'Be brief.\n\n## UI Context\n\n### cart\n2 books\n\n### page\n{"path":"/x"}'
        await page.send(event="set_context", key="cart", value=None)
        await page.send(event="set_context", key="page", value="/y")
        assert await system() == "Be brief.\n\n## UI Context\n\n### page\n/y"
        await page.send(event="set_context", key="page")
        assert await system() == "Be brief."


async def test_nonsense_is_ignored_and_a_ping_answered() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM)
        page = await rig.page()
        for text in (
            "",
            "nonsense",
            "[1]",
            "null",
            '{"event":"message"}',
            '{"event":"message","text":7}',
            '{"event":[]}',
        ):
            await page.socket.send(text)
        await page.socket.send(b"\x00\xff")
        await page.socket.send("ping")
        await page.send(event="ping")
        assert await page.wait("pong") == {"event": "pong"}
        assert await page.ask("Hi") == "You said Hi."
        assert names(page.frames).count("pong") == 1


# --- the agent's commands ---


async def test_the_agent_reads_and_changes_what_the_model_is_told() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(llm="openai:gpt-test", prompt="You are {{who}}.", vars={"who": "Mara"})
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await agent.ask("history.set_vars", "history.updated", call_id=call, vars={"who": "Luca"})
        await agent.ask("history.add_context", "history.updated", call_id=call, text="Gold customer.")
        await agent.send("set_context", call_id=call, key="city", value="Lima")
        await page.ask("Hi")
        data = await agent.ask("history.get", "history.data", call_id=call, request_id="r1")
        assert data["request_id"] == "r1"
        assert [(entry["role"], entry["content"]) for entry in data["messages"]] == [
            ("system", "You are Luca.\n\nGold customer.\n\ncity: Lima"),
            ("user", "Hi"),
            ("assistant", "You said Hi."),
        ]
        tools = [function("weather")]
        configured = await agent.ask(
            "session.configure",
            "session.configured",
            session_id=call,
            prompt="New.",
            tools=tools,
            llm="openai:gpt-other",
        )
        assert configured["success"]
        await page.ask("And?")
        body = rig.gateway.vendors.model.chats[-1]
        assert (body["model"], body["messages"][0]["content"]) == ("gpt-other", "New.\n\nGold customer.\n\ncity: Lima")
        assert body["tools"][0]["function"]["name"] == "weather"
        refused = await agent.ask("session.configure", "session.configured", session_id=call, llm="nobody:x")
        assert not refused["success"]
        await agent.send("call.hold", call_id=call)
        await agent.send("call.forward", call_id=call, to="+15550100200")
        assert await page.ask("Still there?") == "You said Still there?."


async def test_an_agent_without_a_model_answers_by_itself_whole_or_streamed() -> None:
    async with chatting() as rig:
        agent = await rig.agent()
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await page.say("Hi")
        message = await agent.wait("chat.message")
        await agent.say(call, "Hello!", "msg_a", message["message_id"])
        done = await page.wait("chat.done")
        assert (done["text"], done["message_id"]) == ("Hello!", "msg_a")
        assert page.of("chat.token")[0]["text"] == "Hello!"
        assert (await agent.wait("chat.response"))["text"] == "Hello!"
        await page.say("Go on")
        message = await agent.wait("chat.message")
        step = {"call_id": call, "message_id": "msg_b"}
        await agent.send("bot.reply.stream", **step, action="start", in_reply_to=message["message_id"])
        await agent.send("bot.reply.stream", **step, action="chunk", token="One")
        assert (await page.wait("chat.token"))["text"] == "One"
        await agent.say(call, "By the way.", "msg_c")
        await agent.send("bot.reply.stream", **step, action="chunk", token=" two")
        await agent.send("bot.reply.stream", **step, action="end")
        assert (await page.wait("chat.done"))["text"] == "One two"
        assert (await page.wait("chat.done"))["text"] == "By the way."
        await agent.say(call, "Too late.", "msg_d", "u_unknown")
        rejected = await agent.wait("reply.rejected")
        assert (rejected["reason"], rejected["expected_reply_to"]) == ("message_obsolete", message["message_id"])
        await agent.say(call, "Again.", "msg_a")
        assert (await agent.wait("reply.rejected"))["reason"] == "duplicate_message_id"
        await page.socket.close()
        ended = await agent.wait("llm.chat.ended")
        assert [entry["content"] for entry in ended["messages"]] == ["Hi", "Hello!", "Go on", "One two", "By the way."]


async def test_an_agent_that_does_not_answer_is_an_error_after_half_a_minute() -> None:
    async with chatting() as rig:
        agent = await rig.agent()
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        before = asyncio.get_running_loop().time()
        await page.say("Hi")
        assert (await page.wait("chat.error", patience=60))["error"] == "The agent did not answer"
        assert 30 <= asyncio.get_running_loop().time() - before < 31
        await agent.say(call, "Sorry, here I am.", "late")
        assert (await page.wait("chat.done"))["text"] == "Sorry, here I am."
        await page.say("Good")
        await agent.wait("chat.message", text="Good")
        await agent.send("bot.reply.stream", call_id=call, message_id="s", action="start")
        await agent.send("bot.reply.stream", call_id=call, message_id="s", action="chunk", token="Begun")
        await page.wait("chat.token")
        await asyncio.sleep(60)
        await agent.send("bot.reply.stream", call_id=call, message_id="s", action="end")
        assert (await page.wait("chat.done"))["text"] == "Begun"


async def test_a_stream_ends_with_its_agents_connection() -> None:
    async with chatting() as rig:
        agent = await rig.agent()
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await page.say("Hi")
        await agent.wait("chat.message")
        await agent.send("bot.reply.stream", call_id=call, message_id="s", action="start")
        await agent.send("bot.reply.stream", call_id=call, message_id="s", action="chunk", token="Begun")
        await page.wait("chat.token")
        agent.drop()
        assert (await page.wait("chat.done"))["text"] == "Begun"


async def test_what_the_agent_says_beside_its_model_waits_for_the_models_answer() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await page.say("Hi")
        await agent.wait("chat.message")
        await agent.say(call, "By the way.", "msg_x")
        assert (await page.wait("chat.done"))["text"] == "You said Hi."
        aside = await page.wait("chat.done")
        assert (aside["text"], aside["message_id"]) == ("By the way.", "msg_x")
        await page.ask("And?")
        told = [entry["content"] for entry in rig.gateway.vendors.model.chats[-1]["messages"]]
        assert told == ["Be brief.", "Hi", "You said Hi.", "And?"]
        await agent.send("bot.reply", call_id=call, text="Remember.", message_id="msg_y", add_to_history=True)
        await page.wait("chat.done")
        await page.ask("Do you?")
        told = [entry["content"] for entry in rig.gateway.vendors.model.chats[-1]["messages"]]
        assert told[-2:] == ["Remember.", "Do you?"]


@pytest.mark.parametrize("command", ["bot.clear", "bot.cancel"])
async def test_the_agent_can_stop_its_model_and_what_was_written_stays(command: str) -> None:
    async with chatting(endless_at_first) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await page.say("Hi")
        await page.wait("chat.token")
        await agent.send(command, call_id=call)
        done = await page.wait("chat.done")
        assert done["text"].startswith("word")
        assert len(done["text"]) < 50
        assert await page.ask("And?") == "Yes."
        assert rig.gateway.vendors.model.chats[-1]["messages"][2]["content"] == done["text"]


async def test_an_order_to_stop_may_come_many_times() -> None:
    async with chatting(endless_at_first) as rig:
        agent = await rig.agent(**LLM)
        page = await rig.page()
        call = page.of("chat.connected")[0]["session_id"]
        await page.say("Hi")
        await page.wait("chat.token")
        for _ in range(10):
            await agent.send("bot.cancel", call_id=call)
        assert (await page.wait("chat.done"))["text"].startswith("word")
        assert await page.ask("And?") == "Yes."
        assert len(page.of("chat.done")) == 2
        assert agent.count("llm.chat.error") == 0


async def test_a_language_sealed_into_the_token_is_that_of_the_chat() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM, language="en")
        for lang, language in (("es-MX", "es"), ("not a language", "en"), (7, "en")):
            page = await rig.page(lang=lang)
            call = page.of("chat.connected")[0]["session_id"]
            assert (await agent.told(call, "llm.chat.started"))["language"] == language


async def test_a_chat_channel_has_settings_of_its_own() -> None:
    async with chatting(echo) as rig:
        agent = await rig.agent(**LLM)
        await agent.ask("channel.add", "channel.added", agent_id="mara", type="chat", prompt="Write, do not speak.")
        page = await rig.page()
        await page.ask("Hi")
        assert rig.gateway.vendors.model.chats[-1]["messages"][0]["content"] == "Write, do not speak."


async def test_no_recogniser_and_no_voice_is_opened_for_a_chat() -> None:
    async with chatting(echo) as rig:
        await rig.agent(**LLM, greeting="Welcome!")
        page = await rig.page()
        await page.ask("Hi")
        assert rig.gateway.vendors.flux.connections == []
        assert rig.gateway.vendors.voice.connections == []
        assert "Welcome!" not in json.dumps(page.frames)
