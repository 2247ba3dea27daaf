"""`llm.chat`: an SDK connection writes to an agent, and what the agent's own connection sees of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.chat_rig import LLM, chatting
from tests.phone_rig import OTHER_KEY, Agent, Frame, names
from tests.simulators.openai import Reply, Request
from tests.test_call_tools import BOOKING, FIND, WEATHER, give, with_results
from tests.virtual_time import event_loop_policy as event_loop_policy

CHAT = "chat-run-1"
HELLO = Reply("Hi there, how can I help?", token_delay=0.01)


def short(_: Request) -> Reply:
    return Reply("Hi.")


def to_what_was_said(request: Request) -> Reply:
    return Reply(f"To {request.last_user_text}.")


def as_requester(agent: Agent, session: str = CHAT) -> list[Frame]:
    """What a connection was told as the one that writes: named by session alone."""
    return [frame for frame in agent.frames if frame.get("session_id") == session and "call_id" not in frame]


async def write(agent: Agent, text: str, session: str = CHAT, to: str = "mara", **fields: object) -> None:
    await agent.send("llm.chat", session_id=session, agent_id=to, text=text, **fields)


async def ended(agent: Agent, chat: str) -> Frame:
    """The last frame of a conversation."""
    return await agent.told(chat, "llm.chat.ended")


@pytest.mark.proves("ws-49", "row-201")
async def test_a_message_is_answered_to_whoever_wrote_it_and_reported_to_the_owner() -> None:
    async with chatting([HELLO]) as rig:
        owner, cli = await rig.agent(llm="openai:gpt-test"), await rig.gateway.connected()
        await write(cli, " Hi ", metadata={"plan": "gold"})
        done = await cli.wait("llm.chat.done")
        told = as_requester(cli)
        assert told[0] == {"event": "llm.chat.started", "session_id": CHAT, "model": "gpt-test"}
        tokens = told[1:-1]
        assert {frame["event"] for frame in tokens} == {"llm.chat.token"}
        assert len(tokens) == 6
        assert tokens[1]["text"] == "Hi there,"
        assert "".join(frame["token"] for frame in tokens) == tokens[-1]["text"] == HELLO.text
        assert told[-1] == done
        assert (done["text"], done["model"], done["message_id"]) == (HELLO.text, "gpt-test", tokens[0]["message_id"])
        await owner.wait("chat.response")
        assert names(owner.of_call(CHAT)) == ["llm.chat.started", "chat.message", "chat.response"]
        started = owner.of_call(CHAT)[0]
        assert (started["agent_id"], started["session_id"], started["metadata"]) == ("mara", CHAT, {"plan": "gold"})
        assert owner.count("llm.chat.token") == 0
        await cli.socket.close()
        over = await ended(owner, CHAT)
        assert over["reason"] == "client_hangup"
        assert over["metadata"] == {"plan": "gold"}
        assert [entry["content"] for entry in over["messages"]] == ["Hi", HELLO.text]
        assert owner.count("call.ended") == 0


async def test_the_same_session_goes_on_and_another_one_knows_nothing_of_it() -> None:
    def count(request: Request) -> Reply:
        return Reply(str(len(request.body["messages"])))

    async with chatting(count) as rig:
        owner, cli = await rig.agent(llm="openai:gpt-test"), await rig.gateway.connected()
        for session, answer in ((CHAT, "1"), (CHAT, "3"), ("other", "1"), (CHAT, "5")):
            await write(cli, "Hi", session)
            assert (await cli.wait("llm.chat.done"))["text"] == answer
        assert owner.count("llm.chat.started") == 2
        assert cli.count("llm.chat.started") == 2
        await cli.socket.close()
        await ended(owner, CHAT)
        await ended(owner, "other")


@pytest.mark.proves("ws-49")
async def test_the_owner_runs_the_tools_and_the_requester_sees_them() -> None:
    async with chatting(with_results(FIND, WEATHER, text="Let me look.")) as rig:
        owner, cli = await rig.agent(**BOOKING), await rig.gateway.connected()
        await write(cli, "Find it")
        asked = await owner.wait("llm.tool_call")
        assert asked["call_id"] == CHAT
        await give(owner, CHAT, asked, call_1={"found": True})
        await give(owner, CHAT, asked, call_2="sunny")
        done = await cli.wait("llm.chat.done")
        assert done["text"] == 'Let me look.\n\n{"found": true} and sunny.'
        told = as_requester(cli)
        call = next(frame for frame in told if frame["event"] == "llm.chat.tool_call")
        assert call["tool_calls"][0] == {"id": "call_1", "name": "find_booking", "arguments": '{"code":"A1"}'}
        results = [frame for frame in told if frame["event"] == "llm.chat.tool_result"]
        assert [(frame["name"], frame["result"]) for frame in results] == [
            ("find_booking", '{"found": true}'),
            ("weather", "sunny"),
        ]
        assert names(told).count("llm.chat.done") == 1
        await owner.wait("chat.response", text=done["text"])
        assert owner.count("llm.chat.tool_call") == owner.count("llm.chat.tool_result") == 0
        assert cli.count("llm.tool_call") == 0
        await cli.socket.close()


@pytest.mark.proves("ws-49")
async def test_an_owner_that_writes_to_itself_is_told_of_the_start_once() -> None:
    async with chatting([HELLO]) as rig:
        agent = await rig.agent(llm="openai:gpt-test")
        await write(agent, "Hi")
        await agent.wait("chat.response")
        assert agent.count("llm.chat.started") == 1
        started = next(frame for frame in agent.frames if frame["event"] == "llm.chat.started")
        assert (started["agent_id"], started["call_id"], started["session_id"]) == ("mara", CHAT, CHAT)
        assert agent.count("llm.chat.token") == 6
        assert agent.count("llm.chat.done") == 1
        await agent.send("call.hangup", call_id=CHAT)
        assert (await ended(agent, CHAT))["reason"] == "hangup"


@pytest.mark.parametrize(
    ("session", "to", "error"),
    [
        (CHAT, "nobody", "Agent 'nobody' is not online"),
        ("", "mara", "session_id: 1 to 128 letters, digits, dots, colons, underscores and dashes"),
        ("a b", "mara", "session_id: 1 to 128 letters, digits, dots, colons, underscores and dashes"),
        ("x" * 129, "mara", "session_id: 1 to 128 letters, digits, dots, colons, underscores and dashes"),
    ],
)
async def test_a_message_that_cannot_be_taken_is_refused(session: str, to: str, error: str) -> None:
    async with chatting() as rig:
        await rig.agent(**LLM)
        cli = await rig.gateway.connected()
        await write(cli, "Hi", session, to)
        assert (await cli.wait("llm.chat.error"))["error"] == error
        assert rig.chats == 0


async def test_a_session_belongs_to_its_agent_and_a_pages_session_to_its_page() -> None:
    async with chatting(short) as rig:
        owner = await rig.agent(**LLM)
        await rig.agent("luca", **LLM)
        cli, page = await rig.gateway.connected(), await rig.page()
        await write(cli, "Hi")
        await cli.wait("llm.chat.done")
        for session, to in ((CHAT, "luca"), (page.of("chat.connected")[0]["session_id"], "mara")):
            await write(cli, "Hi", session, to)
            assert (await cli.wait("llm.chat.error"))["error"] == "session_id: is in use, choose another"
        assert await page.ask("Hello") == "Hi."
        assert owner.count("chat.message") == 2
        await cli.socket.close()


@pytest.mark.parametrize("reason", ["client_hangup", "error", "agent_removed", "flood", "resolved"])
async def test_whatever_reason_an_agent_gives_for_hanging_up_every_message_has_its_end(reason: str) -> None:
    async with chatting(short) as rig:
        owner, cli, page = await rig.agent(), await rig.gateway.connected(), await rig.page()
        for chat in (CHAT, page.of("chat.connected")[0]["session_id"]):
            if chat == CHAT:
                await write(cli, "Hi")
            else:
                await page.say("Hi")
            await owner.told(chat, "chat.message")
            await owner.send("call.hangup", call_id=chat, reason=reason)
            assert (await ended(owner, chat))["reason"] == reason
        assert (await cli.wait("llm.chat.error"))["error"] == "The conversation has ended"
        assert await page.until_closed() == 1000
        assert names(page.frames) == ["chat.connected", "chat.error"]
        await cli.socket.close()


async def test_organisations_call_their_sessions_what_they_like() -> None:
    async with chatting(to_what_was_said) as rig:
        ours = await rig.agent(**LLM)
        theirs = await rig.gateway.connected(OTHER_KEY, "org_two")
        await theirs.ask("agent.create", "agent.created", agent_id="mara", **LLM)
        for agent, name in ((ours, "Ada"), (theirs, "Bob")):
            for said in (f"I am {name}", "Well?"):
                await write(agent, said)
                assert (await agent.wait("llm.chat.done"))["text"] == f"To {said}."
        assert rig.chats == 2
        await theirs.send("call.hangup", call_id=CHAT)
        said = (await ended(theirs, CHAT))["messages"]
        assert [one["content"] for one in said if one["role"] == "user"] == ["I am Bob", "Well?"]
        await write(ours, "Still there?")
        assert (await ours.wait("llm.chat.done"))["text"] == "To Still there?."
        assert ours.count("llm.chat.started") == 1
        await ours.send("call.hangup", call_id=CHAT)
        assert len((await ended(ours, CHAT))["messages"]) == 7


async def test_an_agent_without_a_model_answers_a_requester_itself() -> None:
    async with chatting() as rig:
        owner, cli = await rig.agent(), await rig.gateway.connected()
        await write(cli, "Hi")
        message = await owner.wait("chat.message")
        assert owner.of_call(CHAT)[0]["model"] == ""
        await owner.say(CHAT, "Hello!", "msg_a", message["message_id"])
        done = await cli.wait("llm.chat.done")
        assert (done["text"], done["message_id"], done["model"]) == ("Hello!", "msg_a", "")
        assert (await owner.wait("chat.response"))["message_id"] == "msg_a"
        await cli.socket.close()


async def test_two_connections_may_write_in_one_session_and_each_reads_its_own_answers() -> None:
    async with chatting(to_what_was_said) as rig:
        owner = await rig.agent(**LLM)
        one, two = await rig.gateway.connected(), await rig.gateway.connected()
        await write(one, "one")
        await write(one, "more")
        await asyncio.sleep(0.1)
        await write(two, "two")
        assert (await two.wait("llm.chat.done"))["text"] == "To two."
        assert [frame["text"] for frame in one.frames if frame["event"] == "llm.chat.done"] == ["To one.", "To more."]
        await one.socket.close()
        await write(two, "more")
        assert (await two.wait("llm.chat.done"))["text"] == "To more."
        assert owner.count("llm.chat.started") == 1
        await two.socket.close()
        await ended(owner, CHAT)
