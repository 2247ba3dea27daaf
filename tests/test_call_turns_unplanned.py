"""Calls in which everything happens at any moment: what must hold whatever the caller, the agent and time do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from demo.caller import SoftwareCaller
from tests.call_scenes import take_turn
from tests.phone_rig import Agent, Frame, names, running
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

WORDS = ("a table for two", "no wait", "mm-hm", "yes", "tomorrow at eight please", "stop", "what did you say just now")
SPEECH = "This is a sentence of the bot, and it takes a while to say. "
ROUNDS = 12
SEEDS = range(10)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}


def script(rng: random.Random) -> list[Say]:
    endings = (Ending.EAGER, Ending.EAGER, Ending.RESUMED, Ending.PLAIN)
    return [Say(rng.choice(WORDS), rng.choice(endings)) for _ in range(40)] + [Say("goodbye")] * 3


async def caller_talks(rng: random.Random, caller: SoftwareCaller) -> None:
    for _ in range(ROUNDS):
        sound = say_mulaw(rng.choice(WORDS)) if rng.random() < 0.85 else noise_mulaw(rng.randint(50, 800), -30)
        caller.say(sound + silence_mulaw(rng.choice((100, 350, 500, 900, 2000))))
        await asyncio.sleep(rng.uniform(0.05, 3.0))
    caller.say(silence_mulaw(1500))
    await caller.wait_said()


async def agent_talks(rng: random.Random, agent: Agent, call: str) -> None:
    """Answers early, late, twice, in streams, to the wrong message; cancels and clears."""
    number = 0
    while True:
        await asyncio.sleep(rng.uniform(0.02, 1.5))
        asked = [frame for frame in agent.frames if frame["event"] in ("eager.turn", "turn.end", "user.message")]
        answers = asked[-1 if rng.random() < 0.8 else 0]["message_id"] if asked else ""
        number += 1
        await _say_something(rng, agent, {"call_id": call, "message_id": f"m{number}"}, answers)


async def _say_something(rng: random.Random, agent: Agent, message: dict[str, str], answers: str) -> None:
    match rng.randrange(8):
        case 0 | 1 | 2:
            await agent.send("bot.reply", **message, text=SPEECH * rng.randint(1, 3), in_reply_to=answers)
        case 3:
            await agent.send("bot.reply", **message, text="A word.", in_reply_to="")
        case 4 | 5:
            await agent.send("bot.reply.stream", **message, action="start", in_reply_to=answers)
            for _ in range(rng.randint(0, 4)):
                await agent.send("bot.reply.stream", **message, action="chunk", token=SPEECH)
                await asyncio.sleep(rng.uniform(0, 0.5))
            await agent.send("bot.reply.stream", **message, action="end")
        case 6:
            await agent.send("bot.cancel", call_id=message["call_id"])
        case _:
            await agent.send("bot.clear", call_id=message["call_id"])


async def agent_runs_tools(rng: random.Random, agent: Agent, call: str) -> None:
    while True:
        asked = await agent.wait("llm.tool_call", patience=600)
        await asyncio.sleep(rng.uniform(0, 2))
        results = [{"tool_call_id": tool["id"], "result": "seen"} for tool in asked["tool_calls"]]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)


def check(frames: list[Frame]) -> None:
    """The laws of the protocol."""
    assert names(frames)[0] == "call.started"
    assert names(frames)[-1] == "call.ended"
    assert names(frames).count("call.ended") == 1
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    _check_bot(frames)
    _check_user(frames)
    _check_record(frames)


def _check_bot(frames: list[Frame]) -> None:
    """One message at a time, each with one end and nothing after it."""
    playing = ""
    over: set[str] = set()
    for frame in frames:
        event, message = frame["event"], frame.get("message_id", "")
        if not event.startswith(("bot.", "message.")):
            continue
        assert message not in over, f"{event} after the end of {message}"
        if event == "bot.speaking":
            assert not playing
            playing = message
        elif event in ("bot.word", "message.confirmed"):
            assert playing == message
        elif playing == message:
            over.add(message)
            playing = ""
        else:
            over.add(message)
            assert event == "bot.finished" or (frame["played_ms"], frame["words_spoken"]) == (0, 0)
    assert not playing
    confirmed = Counter(frame["message_id"] for frame in frames if frame["event"] == "message.confirmed")
    assert set(confirmed.values()) <= {1}


def _check_user(frames: list[Frame]) -> None:
    """Ids are used once, turns count up one by one, and no answer is heard while its turn is not over."""
    announced = [frame["message_id"] for frame in frames if frame["event"] == "user.message"]
    assert len(announced) == len(set(announced))
    turn, speaking, held, open_turn = 0, False, False, False
    for frame in frames:
        event = frame["event"]
        if event == "speech.started":
            assert frame["turn_id"] in (turn, turn + 1)
            assert not speaking
            assert frame["turn_id"] == turn or not open_turn, "a turn that has words ends before the next one begins"
            turn, speaking, held = frame["turn_id"], True, True
        elif event == "speech.ended":
            assert speaking
            speaking = False
        elif event in ("eager.turn", "turn.end"):
            assert frame["message_id"] in announced
            assert frame["turn_id"] == turn
            assert frame["text"].strip()
            held = open_turn = event != "turn.end"
        elif event == "bot.speaking" and frame.get("text") == "":
            assert not held
        elif event == "bot.speaking" and frame["message_id"].startswith("msg_"):
            held = False  # the rest after a false interruption: the turn before it is being answered again


def _check_record(frames: list[Frame]) -> None:
    """What the assistant said was heard, word for word and in order. All that was confirmed is there, and so are the
    beginnings of messages that were spoken on after a false interruption."""
    said = [entry["content"] for entry in frames[-1]["messages"] if entry["role"] == "assistant" and entry["content"]]
    confirmed = [frame["text"] for frame in frames if frame["event"] == "message.confirmed"]
    heard = [frame["word"] for frame in frames if frame["event"] == "bot.word"]
    assert _within(" ".join(confirmed).split(), " ".join(said).split())
    assert _within(" ".join(said).split(), heard)


def _within(words: Iterable[str], others: Iterable[str]) -> bool:
    """Are those words among the others, in their order?"""
    rest = iter(others)
    return all(word in rest for word in words)


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_agent_and_a_caller_who_do_anything_at_any_time_break_no_law(seed: int) -> None:
    rng = random.Random(seed)
    async with running(script(rng)) as rig:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0})
        caller, call = await rig.call(agent)
        talking = asyncio.create_task(agent_talks(rng, agent, call))
        await caller_talks(rng, caller)
        talking.cancel()
        await agent.send("bot.clear", call_id=call)
        await asyncio.sleep(3)
        await agent.ask("history.get", "history.data", call_id=call)
        end = await take_turn(agent, caller, "goodbye")
        await agent.say(call, "Goodbye to you.", "last", end["message_id"])
        await agent.wait("bot.finished", message_id="last")
        await caller.hang_up()
        await agent.wait("call.ended")
        await asyncio.sleep(5)
        check(agent.of_call(call))


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_servers_model_and_a_caller_who_speaks_at_any_time_break_no_law(seed: int) -> None:
    rng = random.Random(seed)

    def model(request: Request) -> Reply:
        if request.body["messages"][-1]["role"] != "tool" and rng.random() < 0.4:
            return Reply(rng.choice(("", "Let me see.")), [CalledTool("look", "{}", f"call_{rng.getrandbits(32)}")])
        delay = rng.choice((0.0, 0.3, 1.5))
        return Reply(SPEECH * rng.randint(1, 3), first_token_delay=delay, token_delay=rng.choice((0.0, 0.02)))

    async with running(script(rng), model=model) as rig:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0}, llm="openai:gpt-test", tools=[TOOL])
        caller, call = await rig.call(agent)
        tools = asyncio.create_task(agent_runs_tools(rng, agent, call))
        await caller_talks(rng, caller)
        await asyncio.sleep(40)
        before = agent.count("bot.finished")
        caller.say(say_mulaw("goodbye") + silence_mulaw(900))
        await asyncio.sleep(45)
        assert agent.count("bot.finished") > before, "the last turn was answered"
        tools.cancel()
        await asyncio.wait([tools])
        await caller.hang_up()
        await agent.wait("call.ended")
        check(agent.of_call(call))
