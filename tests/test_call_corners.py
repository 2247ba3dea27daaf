"""Corners of a call that a hostile reader found: each of these went wrong once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from demo.dialling import Dial, place_call
from pipelines.speaking.utterance import Origin, Utterance
from providers.base import MULAW_8K, AudioFormat, TimedWord, Transcript
from server.engines import Engines
from tests.call_facts import form, raw_line
from tests.call_scenes import of_message, take_turn
from tests.phone_rig import NUMBER, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.test_call_forward import ELSEWHERE, a_call
from tests.test_call_interruption import MANY_WORDS, bot_speaks
from tests.test_call_tools import BOOKING, FIND, give, with_results
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.config import NovaStt

COUGH = noise_mulaw(700, -20.0) + silence_mulaw(900)


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


class Hearing:
    """A recogniser without turns that hears what it is told to."""

    input = MULAW_8K
    native_turns = False

    def __init__(self) -> None:
        self.told: asyncio.Queue[Transcript | None] = asyncio.Queue()

    async def start(self) -> None: ...
    def feed(self, audio: bytes) -> None: ...
    def finalize(self) -> None: ...

    async def events(self) -> AsyncIterator[Transcript]:
        while (event := await self.told.get()) is not None:
            yield event

    async def aclose(self) -> None:
        self.told.put_nowait(None)


class Unsure:
    """A turn model that never believes the caller finished, after `delay` s."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    async def probability(self, pcm: bytes, rate: int) -> float:
        await asyncio.sleep(self.delay)
        return 0.1

    async def aclose(self) -> None: ...


HEARING: list[Hearing] = []


def engines(turn_model: Any) -> Any:
    class Told(Engines):
        def __init__(self, settings: Any) -> None:
            super().__init__(settings)
            self.turn_model = turn_model

        def stt(self, config: Any, line: AudioFormat) -> Any:
            if isinstance(config, NovaStt):
                HEARING.append(Hearing())
                return HEARING[-1]
            return super().stt(config, line)

    return Told


async def test_a_garbled_answer_of_the_carriers_api_ends_no_other_call() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    account: dict[str, Any] = {
        "public_url": "https://voice.example",
        "twilio_account_sid": "AC" + "1" * 32,
        "twilio_auth_token": "t" * 32,
        "twilio_base_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
    }
    async with server, running(**account) as rig:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 0})
        dial = Dial(rig.http, NUMBER, auth_token="t" * 32, public_url="https://voice.example")
        caller = await rig.dialling(dial)
        await caller.ring()
        await agent.wait("call.started")
        await place_call(Dial(rig.http, NUMBER, auth_token="t" * 32, public_url="https://voice.example"))
        await asyncio.sleep(35)  # its stream never opens: the gateway asks the carrier to let go of it
        assert agent.count("call.ended") == 0, agent.frames[-1]["reason"]


async def test_a_turn_whose_text_grows_before_its_end_is_answered_once() -> None:
    async with running(model=echo, engines=engines(Unsure())) as rig:
        agent = await rig.agent(stt="deepgram", llm="openai:gpt-test")
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two on friday") + silence_mulaw(4000))
        await agent.wait("turn.pause")
        HEARING[-1].told.put_nowait(Transcript("a table for two", is_final=True))
        await asyncio.sleep(0.4)
        HEARING[-1].told.put_nowait(Transcript("on friday", is_final=True))
        await agent.wait("turn.end")
        await asyncio.sleep(8)
        said = [f["text"] for f in agent.of_call(call) if f["event"] == "bot.finished"]
        assert said == ["You said a table for two on friday."]


async def test_a_reply_to_a_message_that_was_refined_is_dropped() -> None:
    async with running(engines=engines(Unsure())) as rig:
        agent = await rig.agent(stt="deepgram")
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two on friday") + silence_mulaw(4000))
        await agent.wait("turn.pause")
        HEARING[-1].told.put_nowait(Transcript("a table for two", is_final=True))
        eager = await agent.wait("eager.turn")
        await agent.say(call, "For which day?", "m1", eager["message_id"])
        await asyncio.sleep(0.4)
        HEARING[-1].told.put_nowait(Transcript("on friday", is_final=True))
        end = await agent.wait("turn.end")
        await agent.say(call, "Friday it is.", "m2", end["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m1") == ["bot.interrupted"]


async def test_what_waits_behind_a_coughed_at_message_is_still_said() -> None:
    async with running([Say("hello"), Say("")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.say(call, "And your table is number nine.", "m2", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(COUGH)
        await asyncio.sleep(25)
        texts = [f["text"] for f in agent.of_call(call) if f["event"] == "bot.finished"]
        assert "And your table is number nine." in texts, texts


async def test_mute_before_the_turn_ends_leaves_no_answer_and_no_frozen_clock() -> None:
    async with running([Say("a table for two")], model=echo) as rig:
        agent = await rig.agent(llm="openai:gpt-test", session_limits={"idle_timeout_seconds": 20})
        caller, call = await rig.call(agent)
        caller.say(spoken("a table for two"))
        await agent.wait("eager.turn")
        await agent.ask("call.mute", "call.muted", call_id=call)
        await asyncio.sleep(5)
        said = agent.count("bot.speaking")
        await agent.ask("call.unmute", "call.unmuted", call_id=call)
        await asyncio.sleep(60)
        assert (said, agent.count("turn.end"), agent.count("session.timeout")) == (0, 0, 1)


async def test_a_verdict_that_comes_after_the_ears_changed_hurts_nobody() -> None:
    async with running(engines=engines(Unsure(delay=1.0))) as rig:
        agent = await rig.agent(stt="deepgram")
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two on friday") + silence_mulaw(4000))
        await agent.wait("speech.ended")
        await asyncio.sleep(0.2)
        await agent.send("session.configure", session_id=call, stt="deepgram-flux")
        await agent.ask("call.mute", "call.muted", call_id=call)
        await asyncio.sleep(3)
        assert agent.count("call.ended") == 0, agent.frames[-1]["reason"]


async def test_an_agent_that_comes_back_is_heard_after_a_stream_it_left_open() -> None:
    async with running([]) as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("bot.reply.stream", call_id=call, message_id="m1", action="start", in_reply_to="")
        await agent.send("bot.reply.stream", call_id=call, message_id="m1", action="chunk", token="Hello there. I ")
        await agent.wait("bot.speaking")
        agent.drop()
        await asyncio.sleep(2)
        back = await rig.agent()
        assert back.count("call.started") == 1
        await back.say(call, "I am back.", "m2")
        await back.wait("bot.finished", message_id="m2", patience=10)


async def test_a_stream_that_never_ends_does_not_keep_a_silent_call_alive() -> None:
    async with running([]) as rig:
        agent = await rig.agent(session_limits={"idle_timeout_seconds": 20})
        _, call = await rig.call(agent)
        await agent.send("bot.reply.stream", call_id=call, message_id="m1", action="start", in_reply_to="")
        await agent.wait("session.timeout", patience=100)


async def test_a_word_kept_from_over_the_bot_does_not_end_a_later_interruption_early() -> None:
    words = "no listen to me please I want something else"
    async with running([Say("hello"), Say("stop"), Say(words)]) as rig:
        agent, caller, _, _ = await bot_speaks(rig, interruption={"min_words": 2, "min_duration_ms": 1500})
        await asyncio.sleep(0.5)
        caller.say(say_mulaw("stop") + silence_mulaw(900))
        await asyncio.sleep(2.5)
        assert agent.count("bot.interrupted") == 0
        caller.say(spoken(words))
        await agent.wait("bot.interrupted")
        assert (await agent.wait("turn.end"))["text"] == f"stop {words}"


async def test_words_over_the_bot_forgotten_by_mute_do_not_end_the_next_turn() -> None:
    async with running([Say("hello"), Say("stop"), Say("a table for two")]) as rig:
        agent, caller, call, _ = await bot_speaks(rig, interruption=False)
        await asyncio.sleep(0.5)
        caller.say(say_mulaw("stop") + silence_mulaw(900))
        await asyncio.sleep(2.2)
        await agent.send("call.mute", call_id=call)
        await agent.wait("bot.finished")
        await asyncio.sleep(0.5)
        await agent.ask("call.unmute", "call.unmuted", call_id=call)
        assert (await take_turn(agent, caller, "a table for two"))["text"] == "a table for two"


async def test_a_reply_accepted_while_a_hold_is_coming_is_heard() -> None:
    async with running([]) as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, MANY_WORDS, "m1")
        await agent.wait("bot.speaking")
        await agent.send("call.hold", call_id=call)
        await asyncio.sleep(1)
        await agent.say(call, "Here I am again.", "m2")
        await agent.wait("bot.finished", message_id="m2", patience=30)


async def test_a_transfer_with_a_message_ends_a_hold() -> None:
    async with a_call() as it:
        await it.agent.ask("call.hold", "call.held", call_id=it.call)
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE, message="I am connecting you now.")
        await it.agent.wait("bot.speaking")
        assert "call.unheld" in names(it.agent.of_call(it.call))


async def test_a_caller_who_hangs_up_before_the_transfer_is_gone_at_once() -> None:
    async with a_call() as it:
        await it.agent.say(it.call, MANY_WORDS, "m1")
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await it.agent.wait("bot.speaking")
        await asyncio.sleep(1)
        await it.caller.hang_up()
        assert (await it.agent.wait("call.ended", patience=2))["reason"] == "hangup"


async def test_a_text_that_begins_with_a_blank_is_not_repeated_after_a_false_interruption() -> None:
    async with running([Say("hello"), Say("")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, " " + MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(COUGH)
        await agent.wait("bot.interrupted")
        assert not (await agent.wait("bot.speaking"))["text"].startswith("alpha")


async def test_a_text_that_begins_with_a_blank_is_not_repeated_after_a_failed_voice() -> None:
    said = Utterance("m", "", Origin.SERVER, remembered=True)
    said.write(" One two three. Four five six. ")
    said.close()
    said.words.add([TimedWord(word, at * 100, at * 100 + 90) for at, word in enumerate(["One", "two", "three."])])
    said.start_over()
    assert "".join([piece async for piece in said.pieces()]).strip() == "Four five six."


async def test_what_is_not_to_be_remembered_is_not_after_a_false_interruption_either() -> None:
    async with running([Say(""), Say("what now")], model=[Reply("Fine.")]) as rig:
        agent = await rig.agent(llm="openai:gpt-test")
        caller, call = await rig.call(agent)
        await agent.say(call, MANY_WORDS, "m1")  # no add_to_history
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(COUGH)
        await agent.wait("bot.interrupted")
        await agent.wait("bot.finished")
        await take_turn(agent, caller, "what now")
        await agent.wait("bot.finished")
        assert "quebec" not in str(rig.vendors.model.requests[-1].body["messages"])


async def test_a_key_that_comes_with_the_start_frame_is_told_after_the_start() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            sent: list[bytes] = []
            write, line.socket.transport.write = line.socket.transport.write, sent.append  # type: ignore[method-assign]
            await line.start()
            await line.send("dtmf", dtmf={"digit": "5", "track": "inbound_track"})
            write(b"".join(sent))
            line.socket.transport.write = write  # type: ignore[method-assign]
            await agent.wait("call.dtmf_received")
            assert names(agent.of_call(dial.call_sid))[0] == "call.started"


async def test_what_an_agent_gives_as_reason_is_not_shown_to_the_world() -> None:
    async with running([]) as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("call.hangup", call_id=call, reason="Ana Lopez +34600111222")
        await agent.wait("call.ended")
        await asyncio.sleep(0.5)
        assert b"Ana Lopez" not in rig.gateway.exposition()


async def test_without_a_token_a_public_gateway_takes_no_webhook() -> None:
    async with running(public_url="https://voice.example") as rig:
        await rig.agent()
        ringing = form(CallSid="CA1", To=NUMBER, From="+15550100199")
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.post(f"{rig.http}/twilio/voice", data=ringing)).status_code == 403


async def test_a_short_answer_is_heard_while_the_bot_waits_for_its_own_words() -> None:
    async with running([Say("hello"), Say("yes")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        answered = end["message_id"]
        await agent.say(call, "One moment. Shall I look?", "m1", answered)
        await agent.send("bot.reply.stream", call_id=call, message_id="m2", action="start", in_reply_to=answered)
        await agent.wait("bot.finished", message_id="m1")
        await asyncio.sleep(1)
        caller.say(say_mulaw("yes") + silence_mulaw(900))
        await agent.wait("user.message", patience=4)


async def test_a_mute_while_a_cough_is_judged_leaves_no_frozen_call() -> None:
    limits = {"idle_timeout_seconds": 20}
    async with running([Say("find my booking"), Say("")], model=with_results(FIND, text=MANY_WORDS + ".")) as rig:
        agent = await rig.agent(**BOOKING, session_limits=limits)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.told(call, "llm.tool_call")
        await agent.told(call, "bot.speaking")
        await asyncio.sleep(3)
        caller.say(COUGH)
        await agent.told(call, "bot.interrupted")
        await agent.ask("call.mute", "call.muted", call_id=call)
        await give(agent, call, asked, call_1="yes")
        await asyncio.sleep(3)
        await agent.ask("call.unmute", "call.unmuted", call_id=call)
        await asyncio.sleep(60)
        answered = any(f["event"] == "bot.finished" and f["text"] == "yes." for f in agent.frames)
        assert answered or agent.count("session.timeout"), names(agent.of_call(call))[-8:]


async def test_what_the_agent_cleared_while_a_cough_was_judged_is_not_spoken_on() -> None:
    async with running([Say("hello"), Say("")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(COUGH)
        await agent.wait("bot.interrupted")
        await agent.send("bot.clear", call_id=call)
        await asyncio.sleep(10)
        assert agent.count("bot.speaking") == 1
