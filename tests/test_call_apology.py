"""What the caller hears when the model fails."""

from __future__ import annotations

from tests.phone_rig import running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply
from tests.virtual_time import event_loop_policy as event_loop_policy


async def test_a_model_that_fails_is_apologised_for_in_the_callers_language_and_the_call_goes_on() -> None:
    script = [Say("hola"), Say("sigue ahí")]
    async with running(script, model=[Reply(status=400), Reply("Aquí estoy.")]) as rig:
        agent = await rig.agent(llm="openai:gpt-4.1-mini", language="es")
        caller, _ = await rig.call(agent)
        caller.say(spoken("hola"))
        assert (await agent.wait("llm.error"))["code"] == "LLM_ERROR"
        sorry = await agent.wait("bot.speaking")
        assert sorry["text"].startswith("Perdón")
        await agent.wait("bot.finished", message_id=sorry["message_id"])
        caller.say(spoken("sigue ahí"))
        answer = await agent.wait("message.confirmed")
        assert answer["text"] == "Aquí estoy."
        asked = rig.vendors.model.chats[-1]["messages"]
        assert [entry["role"] for entry in asked if entry["role"] != "system"] == ["user", "user"]
