"""Pages in browsers chat with agents: every dialect, one answer a message, in order, whatever happens meanwhile."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chat_rig import LLM, chatting
from tests.phone_rig import names
from tests.simulators.openai import Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

HELLO = Reply("Hi there, how can I help?", token_delay=0.01)


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
