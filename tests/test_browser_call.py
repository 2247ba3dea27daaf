"""Voice sessions of a page, end to end: aiortc's own client, a real gateway, simulated vendors."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.browser_rig import Browser, browsing, mint, post_offer, visit
from tests.phone_rig import Frame, names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import say_pcm, silence_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
LONG = "Well, this is a rather long answer that goes on and on about nothing at all, so that one can talk over it."


def spoken(text: str) -> bytes:
    return say_pcm(text) + silence_pcm(900)


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


def of_message(frames: list[Frame], message_id: str) -> list[str]:
    return [frame["event"] for frame in frames if frame.get("message_id") == message_id]


def system(body: dict[str, Any]) -> str:
    return next(entry["content"] for entry in body["messages"] if entry["role"] == "system")


# --- a conversation ---


@pytest.mark.proves("web-13", "web-22", "row-105", "row-129")
async def test_a_page_speaks_with_an_agent_and_is_told_everything_in_order() -> None:
    async with running([Say("a table for two")], model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM, prompt="Be kind.", greeting="Good evening.")
        page, call = await visit(rig, agent, stack)
        greeting = await page.wait("bot.finished")
        loop = asyncio.get_running_loop()
        page.say(spoken("a table for two"))
        ended = await page.wait("turn.end")
        asked_at = loop.time()
        finished = await page.wait("bot.finished")
        finished_at = loop.time()
        told = [name for name in names(page.frames) if name not in ("user.speaking", "bot.word")]
        assert told == [
            "session.started",
            *("bot.speaking", "message.confirmed", "bot.finished"),
            *("speech.started", "speech.ended", "user.message", "eager.turn", "turn.end"),
            *("bot.speaking", "message.confirmed", "bot.finished"),
        ]
        assert page.frames[0]["session_id"] == page.frames[0]["call_id"] == call == page.call_id
        assert greeting["text"] == "Good evening."
        assert ended["text"] == "a table for two"
        assert finished["text"] == "You said a table for two."
        words = [frame for frame in page.frames if frame["event"] == "bot.word"]
        for message in (greeting, finished):
            mine = [word for word in words if word["message_id"] == message["message_id"]]
            assert [word["word_index"] for word in mine] == list(range(len(mine)))
            assert " ".join(word["word"] for word in mine) == message["text"]
        heard = page.heard.audible(asked_at)
        assert heard, "the answer was heard"
        assert heard[-1] <= finished_at + 0.06, "told as finished when its audio had left, not before"
        assert heard[-1] - heard[0] == pytest.approx(finished["duration_ms"] / 1000, abs=0.3)
        assert "Be kind." not in json.dumps(page.frames)


@pytest.mark.proves("row-105", "row-129")
async def test_the_agent_sees_a_browsers_call_as_any_other() -> None:
    async with running([Say("hello")]) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(language="es", voice="elevenlabs:voice-1", stt="deepgram-flux")
        page, call = await visit(rig, agent, stack)
        [started] = [frame for frame in agent.of_call(call) if frame["event"] == "call.started"]
        assert call.startswith("wrt_")
        about = {key: started[key] for key in ("from", "to", "direction", "transport", "metadata", "language")}
        assert about == {
            **{"from": "webrtc", "to": "mara", "direction": "inbound", "transport": "webrtc"},
            **{"metadata": {}, "language": "es"},
        }
        page.say(spoken("hello"))
        end = await agent.wait("turn.end")
        await agent.say(call, "Hello there.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        await page.wait("bot.finished", message_id="m1")
        assert of_message(page.frames, "m1") == of_message(agent.of_call(call), "m1")
        await page.close()
        ended = await agent.wait("call.ended")
        assert ended["reason"] == "client_hangup"
        assert [(one["role"], one["content"]) for one in ended["messages"]] == [
            ("user", "hello"),
            ("assistant", "Hello there."),
        ]


@pytest.mark.proves("web-13")
async def test_an_answer_has_everything_that_a_browser_needs() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, _ = await visit(rig, agent, stack)
        answer = page.answer
        assert set(answer) >= {"sdp", "type", "pc_id", "session_id", "call_id"}
        assert answer["type"] == "answer"
        assert answer["session_id"] == answer["call_id"]
        audio, data = answer["sdp"].split("\r\nm=")[1:]
        assert audio.startswith("audio ")
        assert data.startswith("application ")
        for needed in ("a=sendrecv", "a=msid:", "a=candidate:", "opus/48000/2", "a=rtcp-mux"):
            assert needed in audio
        assert "a=group:BUNDLE" in answer["sdp"]


@pytest.mark.proves("row-105")
async def test_the_line_is_never_silent_on_the_wire_and_begins_with_silence() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(greeting="Good evening.")
        page, _ = await visit(rig, agent, stack)
        await page.wait("bot.finished")
        await asyncio.sleep(1)
        arrivals = [at for at, _ in page.heard.pieces]
        assert max(later - earlier for earlier, later in pairwise(arrivals)) <= 0.05
        assert page.heard.audible()[0] - arrivals[0] >= 0.15
        await agent.send("call.hangup", call_id=page.call_id)
        await agent.wait("call.ended")


@pytest.mark.proves("web-23", "row-108")
async def test_a_voice_over_the_bot_silences_it_at_once() -> None:
    async with running([Say("stop please now")]) as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        await agent.say(call, LONG, "m1")
        await page.wait("bot.word", word_index=3)
        page.say(spoken("stop please now"))
        await agent.wait("bot.interrupted")
        decided = asyncio.get_running_loop().time()
        await page.wait("bot.interrupted", message_id="m1")
        await agent.wait("turn.end")
        await asyncio.sleep(1)
        told = of_message(page.frames, "m1")
        assert told.count("bot.interrupted") == 1
        assert told[-1] in ("bot.interrupted", "message.confirmed")
        assert "bot.word" not in told[told.index("bot.interrupted") :]
        assert "bot.finished" not in told
        assert page.heard.audible(decided + 0.06) == []
        assert page.heard.audible(decided - 0.5), "it was heard until then"


@pytest.mark.proves("row-108", "row-204")
async def test_tools_show_on_the_page_and_prompts_do_not() -> None:
    def model(request: Request) -> Reply:
        if any(entry["role"] == "tool" for entry in request.body["messages"]):
            return Reply("Ten o'clock is free.")
        return Reply(tools=[CalledTool("find_slots", '{"day":"Fri"}')])

    tools = [{"type": "function", "function": {"name": "find_slots", "parameters": {"type": "object"}}}]
    async with running([Say("when are you free")], model=model) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM, prompt="A secret prompt.", tools=tools)
        page, call = await visit(rig, agent, stack)
        page.say(spoken("when are you free"))
        asked = await agent.wait("llm.tool_call")
        results = [{"tool_call_id": asked["tool_calls"][0]["id"], "result": {"slots": ["10:00"]}}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        shown = await page.wait("llm.tool_call")
        result = await page.wait("llm.tool_result")
        await page.wait("bot.finished")
        assert shown["tool_calls"] == asked["tool_calls"]
        assert json.loads(shown["tool_calls"][0]["arguments"]) == {"day": "Fri"}
        assert result["tool_call_id"] == asked["tool_calls"][0]["id"]
        assert (result["name"], result["msg_id"]) == ("find_slots", asked["msg_id"])
        assert json.loads(result["result"]) == {"slots": ["10:00"]}
        assert "secret" not in json.dumps(page.frames)
        assert "llm.tool_result" not in names(agent.frames)


# --- what a page may do ---


@pytest.mark.proves("web-24", "row-132")
async def test_what_a_page_types_is_a_turn_that_the_model_answers() -> None:
    async with running(model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM)
        page, call = await visit(rig, agent, stack)
        await page.send({"action": "inject_text", "text": "a table for two"})
        message = await page.wait("user.message")
        end = await page.wait("turn.end")
        finished = await page.wait("bot.finished")
        assert message["text"] == end["text"] == "a table for two"
        assert message["message_id"] == end["message_id"]
        assert finished["text"] == "You said a table for two."
        assert names(agent.of_call(call)).count("user.message") == 1
        assert not {"speech.started", "turn.continued"} & set(names(page.frames))


@pytest.mark.proves("web-24", "row-132")
async def test_what_a_page_types_is_a_turn_that_the_agents_own_program_answers() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        for turn, text in enumerate(("first", "second"), 1):
            await page.send({"action": "inject_text", "text": text})
            end = await agent.wait("turn.end", turn_id=turn)
            assert end["text"] == text
            await agent.say(call, f"Answer to {text}.", f"m{turn}", end["message_id"])
            await page.wait("bot.finished", message_id=f"m{turn}")


@pytest.mark.proves("web-24", "row-132")
async def test_what_a_page_types_interrupts_the_bot_and_voids_what_it_was_about_to_say() -> None:
    def model(request: Request) -> Reply:
        return Reply(LONG) if request.last_user_text == "tell me" else Reply("Short.", first_token_delay=1.0)

    async with running(model=model) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM)
        page, call = await visit(rig, agent, stack)
        await page.send({"action": "inject_text", "text": "tell me"})
        await page.wait("bot.word", word_index=2)
        await page.send({"action": "inject_text", "text": "never mind"})
        cut = await page.wait("bot.interrupted")
        at = asyncio.get_running_loop().time()
        second = await page.wait("user.message")
        finished = await page.wait("bot.finished")
        assert second["text"] == "never mind"
        assert finished["text"] == "Short."
        assert finished["message_id"] != cut["message_id"]
        assert page.heard.audible(at - 0.5, at)
        assert page.heard.audible(at + 0.06, at + 0.9) == []
        assert "turn.continued" in names(agent.of_call(call)), "streams of the agent's program are to stop"


@pytest.mark.proves("web-24")
async def test_what_is_typed_while_an_answer_is_being_thought_of_replaces_the_question() -> None:
    def model(request: Request) -> Reply:
        return Reply("Late.", first_token_delay=2.0) if request.last_user_text == "one" else Reply("Two it is.")

    async with running(model=model) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM)
        page, _ = await visit(rig, agent, stack)
        await page.send({"action": "inject_text", "text": "one"})
        await page.wait("turn.end")
        await page.send({"action": "inject_text", "text": "two"})
        finished = await page.wait("bot.finished")
        await asyncio.sleep(4)
        assert finished["text"] == "Two it is."
        assert names(page.frames).count("bot.finished") == 1


@pytest.mark.proves("web-24", "row-132")
async def test_what_is_on_the_page_is_told_to_the_model_until_it_is_taken_away() -> None:
    async with running(model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM, prompt="Be kind.")
        page, _ = await visit(rig, agent, stack)
        await page.send({"action": "set_context", "key": "cart", "value": "2 items"})
        for text in ("one", "two"):
            await page.send({"action": "inject_text", "text": text})
            await page.wait("bot.finished")
            await page.send({"action": "set_context", "key": "cart", "value": None})
        first, second = map(system, rig.vendors.model.chats)
        assert first.startswith("Be kind.")
        assert "## UI Context\n\n### cart\n2 items" in first
        assert "cart" not in second


@pytest.mark.proves("web-25", "row-132")
async def test_a_muted_page_is_not_listened_to_until_it_unmutes() -> None:
    async with running([Say("hear me now")]) as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        await page.send({"action": "mute"})
        await agent.wait("call.muted")
        page.say(spoken("you cannot hear this"))
        await asyncio.sleep(4)
        assert not {"speech.started", "user.speaking", "user.message"} & set(names(agent.of_call(call)))
        await page.send({"action": "unmute"})
        assert (await agent.wait("call.unmuted"))["muted_transcript"] is None
        page.say(spoken("hear me now"))
        assert (await agent.wait("turn.end"))["text"] == "hear me now"


async def test_a_page_cannot_unmute_what_its_agent_has_muted() -> None:
    async with running([Say("hear me now")]) as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        await agent.ask("call.mute", "call.muted", call_id=call)
        for action in ("mute", "unmute"):
            await page.send({"action": action})
        await agent.wait("call.muted")
        page.say(spoken("hear me now"))
        await asyncio.sleep(3)
        assert not {"call.unmuted", "user.message"} & set(names(agent.of_call(call)))
        assert (await agent.ask("call.unmute", "call.unmuted", call_id=call))["muted_transcript"] == "hear me now"


@pytest.mark.proves("web-20", "row-131")
async def test_a_page_chooses_language_and_greeting_and_never_the_agents_mind() -> None:
    async with running(model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM, prompt="The agent's prompt.", greeting="Hello.")
        chosen = {"language": "es", "greeting": "Buenas.", "voice": "nobody:x"}
        chosen |= {"prompt": "x", "llm": "openai:gpt-9", "tools": []}
        with capture_logs() as lines:
            page, call = await visit(rig, agent, stack, config=chosen)
            assert (await page.wait("bot.finished"))["text"] == "Buenas."
            await page.send({"action": "configure", "language": "fr", "prompt": "y", "stt": "nobody"})
            updated = await page.wait("config.updated")
        assert updated["config"] == {"language": "fr"}
        assert (await agent.wait("call.updated"))["language"] == "fr"
        assert next(frame for frame in agent.of_call(call) if frame["event"] == "call.started")["language"] == "es"
        dropped = [line["keys"] for line in lines if line["event"] == "page_settings_dropped"]
        assert dropped == [["llm", "prompt", "tools"], ["prompt"]]
        await page.send({"action": "inject_text", "text": "hi"})
        await page.wait("bot.finished")
        [request] = rig.vendors.model.chats
        assert request["model"] == "gpt-test"
        assert system(request) == "The agent's prompt."
        assert "session.configured" not in names(agent.of_call(call)), "the agent did not ask for it"


@pytest.mark.proves("web-21", "row-129")
async def test_what_a_token_has_sealed_in_wins_over_what_the_page_says() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        token = await mint(rig, metadata='{"userId":"1","plan":{"tier":2}}')
        page = await stack.enter_async_context(browsing(rig, token=token, metadata={"userId": "2", "page": "/x"}))
        started = await agent.wait("call.started", call_id=page.call_id)
        assert started["metadata"] == {"userId": "1", "plan": {"tier": 2}, "page": "/x"}


@pytest.mark.proves("row-130")
@pytest.mark.parametrize("configures", [True, False])
async def test_a_greeting_waits_a_moment_for_what_the_agent_makes_of_the_metadata(configures: bool) -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(greeting="Hello.")
        page, call = await visit(rig, agent, stack, metadata={"name": "Ana"})
        at = asyncio.get_running_loop().time()
        if configures:
            await asyncio.sleep(0.2)
            await agent.send("session.configure", call_id=call, greeting="Hello Ana.")
        finished = await page.wait("bot.finished")
        assert finished["text"] == ("Hello Ana." if configures else "Hello.")
        speaking = next(frame for frame in agent.of_call(call) if frame["event"] == "bot.speaking")
        waited = speaking["ts"] - agent.of_call(call)[0]["ts"]
        assert waited == pytest.approx(0.2 if configures else 0.6, abs=0.15)
        assert page.heard.audible()[0] - at < 1.2


async def test_a_greeting_that_is_due_during_a_hold_ends_it_and_is_not_spoken_over_music() -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(greeting="Hello.")
        page, call = await visit(rig, agent, stack, metadata={"name": "Ana"})
        await agent.ask("call.hold", "call.held", call_id=call)
        await page.wait("bot.finished")
        quiet = asyncio.get_running_loop().time() + 0.2
        await asyncio.sleep(2)
        told = [name for name in names(agent.of_call(call)) if name in ("call.held", "call.unheld", "bot.speaking")]
        assert told == ["call.held", "call.unheld", "bot.speaking"]
        assert page.heard.audible(quiet) == []


@pytest.mark.proves("web-28")
async def test_a_page_that_only_pings_is_no_trouble() -> None:
    limits = {"idle_timeout_seconds": 0}
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent(session_limits=limits)
        with capture_logs() as lines:
            page, _ = await visit(rig, agent, stack)
            for text in ("not json", "{}", '{"action":"dance"}', "[1]", '{"action":"set_context"}'):
                await page.send(text)
            await page.send({"action": "ping"})
            await page.wait("pong")
            await asyncio.sleep(60)
        assert not page.closed.is_set()
        assert [line for line in lines if line["log_level"] in ("warning", "error", "critical")] == []


@pytest.mark.proves("row-105")
async def test_an_offer_without_data_channel_is_a_call_like_any_other() -> None:
    async with running([Say("hello")], model=echo) as rig, AsyncExitStack() as stack:
        agent = await rig.agent(llm=LLM)
        page = Browser(rig)
        stack.push_async_callback(page.close)
        sdp = await page.offer(channel=False)
        await page.accept((await post_offer(rig, sdp)).json())
        await agent.wait("call.started")
        await page.connected.wait()
        page.say(spoken("hello"))
        finished = await agent.wait("bot.finished")
        assert finished["text"] == "You said hello."
        assert page.heard.audible()
