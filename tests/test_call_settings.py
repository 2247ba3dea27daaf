"""Which scope of an agent's configuration reaches which call."""

from __future__ import annotations

import pytest

from tests.phone_rig import NUMBER, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply
from tests.virtual_time import event_loop_policy as event_loop_policy

OTHER = "+12025550142"


@pytest.mark.proves("row-24", "ws-34")
async def test_configuring_the_agent_reaches_its_next_calls_and_not_the_live_one() -> None:
    async with running() as rig:
        rig.vendors.voice.voices.add("voice-2")
        agent = await rig.agent(language="es")
        live, first = await rig.call(agent)
        await agent.ask(
            "agent.configure", "agent.configured", agent_id="mara", voice="elevenlabs:voice-2", language="fr"
        )
        await agent.say(first, "In the old voice.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        await live.hang_up()
        second = await rig.caller()
        await second.ring()
        started = await agent.wait("call.started")
        assert started["language"] == "fr"
        await agent.say(started["call_id"], "In the new voice.", "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert [connection.voice for connection in rig.vendors.voice.connections] == ["voice-1", "voice-2"]


@pytest.mark.proves("row-20", "row-22", "row-112")
async def test_each_number_speaks_by_its_own_settings() -> None:
    async with running() as rig:
        rig.vendors.voice.voices.add("voice-2")
        agent = await rig.agent("mara", NUMBER)
        await agent.ask(
            "channel.add", "channel.added", agent_id="mara", type="phone", ref=OTHER, language="es", voice="voice-2"
        )
        for number, language in ((NUMBER, "en"), (OTHER, "es")):
            caller = await rig.caller(number)
            await caller.ring()
            assert (await agent.wait("call.started"))["language"] == language
        await agent.ask("channel.configure", "channel.configured", agent_id="mara", ref=OTHER, language="fr")
        for number, language in ((NUMBER, "en"), (OTHER, "fr")):
            caller = await rig.caller(number)
            await caller.ring()
            assert (await agent.wait("call.started"))["language"] == language


@pytest.mark.proves("row-30")
async def test_a_program_that_comes_back_with_another_prompt_is_answered_by_it() -> None:
    async with running([Say("hello")], model=lambda _body: Reply("Hi.")) as rig:  # pyright: ignore[reportUnknownLambdaType]
        before = await rig.agent(llm="openai:gpt-4.1-mini", prompt="Be the old one.")
        await before.socket.close(1000, "client_disconnect")
        agent = await rig.agent(llm="openai:gpt-4.1-mini", prompt="Be the new one.")
        caller, _ = await rig.call(agent)
        caller.say(spoken("hello"))
        await agent.wait("bot.finished")
        assert rig.vendors.model.chats[-1]["messages"][0]["content"] == "Be the new one."


@pytest.mark.proves("row-41", "row-37")
async def test_a_call_changes_between_the_servers_model_and_the_agents_own() -> None:
    script = [Say("one"), Say("two"), Say("three")]
    async with running(script, model=lambda _body: Reply("Model here.")) as rig:  # pyright: ignore[reportUnknownLambdaType]
        agent = await rig.agent(llm="openai:gpt-4.1-mini", prompt="Talk.")
        caller, call = await rig.call(agent)
        caller.say(spoken("one"))
        await agent.wait("bot.finished")
        await agent.ask("session.configure", "session.configured", session_id=call, llm={"enabled": False})
        caller.say(spoken("two"))
        end = await agent.wait("turn.end")
        await caller.wait_quiet(3000)
        assert names(agent.of_call(call)).count("bot.speaking") == 1
        await agent.say(call, "My own words.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        await agent.ask("session.configure", "session.configured", session_id=call, llm="openai:gpt-4.1-mini")
        caller.say(spoken("three"))
        await agent.wait("turn.end")
        assert (await agent.wait("message.confirmed"))["text"] == "Model here."


@pytest.mark.proves("row-190", "row-192")
async def test_programs_of_one_organisation_live_side_by_side_and_hear_only_their_own_agents() -> None:
    """One process holds the agent, another (a web backend, a script without agents) is connected beside it."""
    async with running() as rig:
        headless = await rig.connected()
        agent = await rig.agent()
        other = await rig.agent("bruno", OTHER)
        _, call = await rig.call(agent)
        await agent.say(call, "Hello.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        await other.send("bot.reply", call_id=call, message_id="x", text="Not mine.", in_reply_to="")
        await other.ask("ping", "pong")
        await agent.ask("ping", "pong")
        assert headless.of_call(call) == other.of_call(call) == []
        assert "x" not in [frame.get("message_id") for frame in agent.of_call(call)]
