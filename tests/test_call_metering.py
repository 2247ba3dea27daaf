"""Loudness, the sound of turns and messages, and latency records, on whole calls."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import wave
from collections.abc import Callable
from typing import Any

import pytest

from demo.caller import Happening, SoftwareCaller
from demo.telephone import first_audible, last_audible
from pipelines.audio import ulaw
from pipelines.audio.levels import energy_db
from pipelines.listening.ears import OpenVoiceActivity
from providers.base import VadFrame, VoiceActivity
from server.engines import Engines
from server.settings import Settings
from tests.call_facts import faultless as faultless
from tests.call_facts import loop_time, moments
from tests.call_scenes import take_turn
from tests.phone_rig import Agent, Frame, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.deepgram_nova import Line, NovaSimulator
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import say_mulaw, silence_mulaw, tone_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy

METRICS = {"send_audio_metrics": True}
SENTENCE = "Certainly, I have put you down for tomorrow."
LONG = "This is a rather long answer that goes on for several seconds so that somebody can talk over it."
LLM = "openai:gpt-test"


class CountingEngines(Engines):
    """The real engines, and how many calls the voice detector listens to."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.detectors = 0

    @property
    def vad(self) -> OpenVoiceActivity:
        opens = super().vad

        def count(rate: int, on_frame: Callable[[VadFrame], None]) -> VoiceActivity:
            self.detectors += 1
            return _Counted(opens(rate, on_frame), self)

        return count


class _Counted:
    """A stream of the detector that says when it is closed."""

    def __init__(self, stream: VoiceActivity, engines: CountingEngines) -> None:
        self.feed = stream.feed
        self._stream = stream
        self._engines: CountingEngines | None = engines

    def close(self) -> None:
        self._stream.close()
        if self._engines is not None:
            self._engines.detectors -= 1
            self._engines = None


def metrics(agent: Agent, source: str) -> list[Frame]:
    return [frame for frame in agent.frames if frame["event"] == "audio.metrics" and frame["source"] == source]


def pcm_of(frame: Frame) -> bytes:
    """The samples of a told WAV file."""
    assert frame["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(frame["audio"], validate=True))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, frame["sample_rate"])
        return sound.readframes(sound.getnframes())


def audible(mulaw: bytes) -> bytes:
    """From the first to the last sample that anybody could hear, as 16-bit samples."""
    first, last = first_audible(mulaw), last_audible(mulaw)
    assert first is not None
    assert last is not None
    return ulaw.decode(mulaw[first : last + 1])


def heard_pcm(caller: SoftwareCaller, began: float, ms: int) -> bytes:
    """What the caller heard from a moment on, as samples."""
    at = round((began - moments(caller, Happening.ANSWERED)[0]) * 8000)
    return ulaw.decode(caller.heard[at : at + 8 * ms])


# --- audio.metrics ---


@pytest.mark.proves("row-108")
async def test_a_tone_of_known_level_reads_as_that_level_and_silence_as_silence() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis=METRICS)
        caller, _ = await rig.call(agent)
        await asyncio.sleep(0.5)
        caller.say(ulaw.encode(tone_pcm(440, 2000, 8000, -18.0)))
        await caller.wait_said()
        await asyncio.sleep(0.5)
        frames = metrics(agent, "user")
        silent = {"energy_db": -60.0, "rms": 0.0, "peak": 0.0, "is_speech": False, "vad_prob": 0.0}
        assert all(frames[at].items() >= silent.items() for at in (0, 1, 2, 3, -1, -2))
        loud = [frame for frame in frames if frame["energy_db"] > -60][1:-1]
        assert len(loud) >= 17
        for frame in loud:
            assert frame["energy_db"] == pytest.approx(-18.0, abs=0.3)
            assert frame["rms"] == pytest.approx(0.1259, rel=0.03)
            assert frame["peak"] == pytest.approx(0.178, rel=0.04)
            assert 0 <= frame["vad_prob"] <= 1
            assert frame["timestamp"] == pytest.approx(frame["ts"])
        assert all(frame.items() >= silent.items() for frame in metrics(agent, "bot"))


@pytest.mark.proves("row-108")
async def test_the_user_speaks_where_silero_hears_speech_although_flux_finds_the_turns() -> None:
    async with running([Say("a table for two tomorrow evening please")]) as rig:
        agent = await rig.agent(analysis=METRICS)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "a table for two tomorrow evening please")
        await caller.wait_said()
        [began], [ended] = moments(caller, Happening.SPEECH_BEGAN), moments(caller, Happening.SPEECH_ENDED)
        frames = [(loop_time(rig, frame), frame) for frame in metrics(agent, "user")]
        during = [frame for at, frame in frames if began + 0.2 <= at <= ended]
        assert sum(frame["is_speech"] for frame in during) > 0.8 * len(during)
        assert all(frame["is_speech"] == (frame["vad_prob"] >= 0.5) for _, frame in frames)
        assert not any(frame["is_speech"] for at, frame in frames if at < began or at > ended + 0.3)


@pytest.mark.proves("row-109")
@pytest.mark.parametrize(("interval_ms", "a_second"), [(None, 10), (50, 20), (1000, 1)])
async def test_both_sources_are_told_at_the_interval_asked_for(interval_ms: int | None, a_second: int) -> None:
    async with running() as rig:
        asked = {} if interval_ms is None else {"audio_metrics_interval_ms": interval_ms}
        agent = await rig.agent(analysis={**METRICS, **asked})
        await rig.call(agent)
        await asyncio.sleep(6.05)
        for source in ("user", "bot"):
            stamps = [frame["timestamp"] for frame in metrics(agent, source)]
            assert len(stamps) == pytest.approx(6 * a_second, abs=1)
            steps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
            assert all(step == pytest.approx(1 / a_second, abs=0.021) for step in steps)


@pytest.mark.proves("row-108", "row-109")
async def test_the_bot_is_loud_exactly_while_the_caller_hears_it() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis=METRICS)
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.finished")
        await caller.wait_quiet(600)
        [audible], [quiet] = moments(caller, Happening.BOT_AUDIBLE), moments(caller, Happening.BOT_QUIET)
        frames = [(loop_time(rig, frame), frame) for frame in metrics(agent, "bot")]
        loud = [(at, frame) for at, frame in frames if frame["energy_db"] > -60]
        assert audible <= loud[0][0] <= audible + 0.25
        assert quiet - 0.1 <= loud[-1][0] <= quiet + 0.25
        assert len(loud) > 0.9 * (quiet - audible) * 10
        assert all(frame["is_speech"] == (frame["rms"] > 0.01) for _, frame in frames)
        assert all(frame["vad_prob"] == float(frame["is_speech"]) for _, frame in frames)


async def test_what_an_interruption_threw_away_is_not_metered() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis=METRICS)
        _, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.speaking")
        await asyncio.sleep(1.0)
        await agent.send("bot.cancel", call_id=call, message_id="m1")
        stopped = await agent.wait("bot.interrupted")
        await asyncio.sleep(1.0)
        later = [frame for frame in metrics(agent, "bot") if frame["timestamp"] > stopped["ts"] + 0.1]
        assert len(later) >= 8
        assert not any(frame["rms"] for frame in later)


@pytest.mark.proves("row-109")
async def test_without_being_asked_for_nothing_is_metered_and_no_detector_runs_beside_flux() -> None:
    async with running([Say("hello there")], engines=CountingEngines) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello there")
        await agent.say(call, SENTENCE, "m1", end["message_id"])
        await agent.wait("bot.finished")
        assert not {"audio.metrics", "turn.audio", "bot.audio.complete"} & set(names(agent.frames))
        engines = rig.gateway.engines
        assert isinstance(engines, CountingEngines)
        assert engines.detectors == 0


@pytest.mark.proves("row-25", "row-109")
async def test_metrics_and_their_detector_come_and_go_with_session_configure() -> None:
    async with running(engines=CountingEngines) as rig:
        engines = rig.gateway.engines
        assert isinstance(engines, CountingEngines)
        agent = await rig.agent()
        _, call = await rig.call(agent)
        for wanted in (True, False, True):
            analysis = {"send_audio_metrics": wanted}
            answer = await agent.ask("session.configure", "session.configured", session_id=call, analysis=analysis)
            assert answer["success"] is True
            before = agent.count("audio.metrics")
            await asyncio.sleep(1.05)
            assert agent.count("audio.metrics") - before == (20 if wanted else 0)
            assert engines.detectors == (1 if wanted else 0)
        await rig.callers[0].hang_up()
        await agent.wait("call.ended")
        await asyncio.sleep(0.1)
        assert engines.detectors == 0


async def test_where_turns_are_found_by_the_detector_one_detector_does_both() -> None:
    text = "a table for two on friday at eight"
    async with NovaSimulator([Line(text)]) as nova, running(deepgram_ws_url=nova.url, engines=CountingEngines) as rig:
        agent = await rig.agent(stt="deepgram", analysis={**METRICS, "send_turn_audio": True})
        caller, _ = await rig.call(agent)
        await asyncio.sleep(0.5)
        await take_turn(agent, caller, text)
        engines = rig.gateway.engines
        assert isinstance(engines, CountingEngines)
        assert engines.detectors == 1
        assert sum(frame["is_speech"] for frame in metrics(agent, "user")) >= 10
        assert audible(say_mulaw(text)) in pcm_of(await agent.wait("turn.audio"))


@pytest.mark.proves("row-109")
async def test_no_metrics_come_after_the_call_has_ended() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis={**METRICS, "audio_metrics_interval_ms": 20})
        caller, call = await rig.call(agent)
        await asyncio.sleep(0.5)
        await caller.hang_up()
        await agent.wait("call.ended")
        await asyncio.sleep(0.5)
        assert agent.count("audio.metrics") > 20
        assert names(agent.of_call(call))[-1] == "call.ended"


# --- turn.audio and bot.audio.complete ---


@pytest.mark.proves("row-110")
async def test_the_sound_of_a_turn_comes_with_its_end() -> None:
    text = "a table for two tomorrow please"
    async with running([Say(text)]) as rig:
        agent = await rig.agent(analysis={"send_turn_audio": True})
        caller, call = await rig.call(agent)
        await asyncio.sleep(1.0)
        end = await take_turn(agent, caller, text)
        told = await agent.wait("turn.audio")
        assert (told["call_id"], told["turn_id"]) == (call, end["turn_id"])
        assert names(agent.of_call(call))[-2:] == ["turn.end", "turn.audio"]
        sound, said = pcm_of(told), say_mulaw(text)
        length_ms = len(sound) / 16
        [began] = moments(caller, Happening.SPEECH_BEGAN)
        assert length_ms == pytest.approx(200 + (loop_time(rig, end) - began) * 1000, abs=120)
        assert audible(said) in sound, "every sample of what was said"


@pytest.mark.proves("row-110")
async def test_the_sound_of_a_turn_begins_where_the_caller_began_to_talk_over_the_bot() -> None:
    async with running([Say("hello"), Say("no wait make it three please")]) as rig:
        agent = await rig.agent(analysis={"send_turn_audio": True})
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, LONG, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(2.5)
        said = say_mulaw("no wait make it three please")
        caller.say(said + silence_mulaw(900))
        second = await agent.wait("turn.end")
        assert second["turn_id"] == 2
        assert audible(said) in pcm_of(await agent.wait("turn.audio"))


@pytest.mark.proves("row-110")
async def test_the_sound_of_a_message_comes_when_all_of_it_was_heard() -> None:
    async with running() as rig:
        agent = await rig.agent(analysis={"send_bot_audio": True})
        caller, call = await rig.call(agent)
        await agent.say(call, SENTENCE, "m1")
        finished = await agent.wait("bot.finished")
        told = await agent.wait("bot.audio.complete")
        assert told["message_id"] == "m1"
        assert told["duration_ms"] == finished["duration_ms"] == 60 * len(SENTENCE + " ")
        sound = pcm_of(told)
        assert len(sound) == 16 * told["duration_ms"]
        await caller.wait_quiet(200)
        assert sound in ulaw.decode(caller.heard)


@pytest.mark.proves("row-110")
async def test_of_an_interrupted_message_only_what_was_heard_is_told() -> None:
    async with running([Say("hello"), Say("no wait make it three please")]) as rig:
        agent = await rig.agent(analysis={"send_bot_audio": True})
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, LONG, "m1", end["message_id"])
        await agent.say(call, SENTENCE, "m2", end["message_id"])
        speaking = await agent.wait("bot.speaking")
        await asyncio.sleep(2.5)
        caller.say(spoken("no wait make it three please"))
        stopped = await agent.wait("bot.interrupted", message_id="m1")
        told = await agent.wait("bot.audio.complete")
        assert told["message_id"] == "m1"
        assert told["duration_ms"] == pytest.approx(stopped["played_ms"], abs=1)
        sound = pcm_of(told)
        assert len(sound) == pytest.approx(16 * stopped["played_ms"], abs=32)
        assert energy_db(heard_pcm(caller, loop_time(rig, speaking), stopped["played_ms"])) == pytest.approx(
            energy_db(sound), abs=0.5
        )
        await agent.wait("turn.end")
        assert agent.count("bot.audio.complete") == 1, "nothing of the message that was never heard"


# --- how long each turn took ---

STEPS = ["final_text", "asked", "first_token", "first_sentence", "first_speech", "first_sent", "audible"]


def turns(logged: list[dict[str, object]]) -> list[dict[str, object]]:
    return [entry for entry in logged if entry["event"] == "turn"]


async def answered(agent: Agent, caller: SoftwareCaller, text: str) -> None:
    await take_turn(agent, caller, text)
    await agent.wait("bot.finished")


async def test_every_answered_turn_leaves_one_record_that_agrees_with_what_the_caller_felt(
    faultless: list[dict[str, object]],
) -> None:
    def model(_: Request) -> Reply:
        return Reply(SENTENCE, first_token_delay=0.3)

    async with running([Say("a table for two"), Say("for tomorrow")], model=model) as rig:
        agent = await rig.agent(llm=LLM, greeting="Welcome to the restaurant.")
        caller, call = await rig.call(agent)
        await agent.wait("bot.finished")
        await answered(agent, caller, "a table for two")
        await answered(agent, caller, "for tomorrow")
        records = turns(faultless)
        assert [record["turn_id"] for record in records] == [1, 2]
        assert caller.response_times() == pytest.approx(
            [float(str(record["audible_ms"])) / 1000 for record in records], abs=0.15
        )
        for record in records:
            assert record["call_id"] == call
            steps = [int(str(record[f"{step}_ms"])) for step in STEPS]
            assert steps == sorted(steps)
            asked, decided = int(str(record["asked_ms"])), int(str(record["decision_ms"]))
            assert asked + 290 <= int(str(record["first_token_ms"]))
            assert asked < decided <= int(str(record["first_sent_ms"])), "asked ahead, heard only after the turn"
            assert record["tool_rounds"] == 0
            known = {"event", "log_level", "call_id", "agent", "org", "turn_id", "tool_rounds", "decision_ms"}
            assert record.keys() <= known | {f"{step}_ms" for step in STEPS}, "no words"
        exposition = rig.gateway.exposition().decode()
        for step in [*STEPS, "decision"]:
            assert f'gateway_turn_step_seconds_count{{step="{step}"}} 2.0' in exposition


async def test_an_agent_that_thinks_for_itself_is_measured_from_its_reply_on(
    faultless: list[dict[str, object]],
) -> None:
    async with running([Say("hello there")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello there")
        await asyncio.sleep(1.5)
        await agent.say(call, SENTENCE, "m1", end["message_id"])
        await agent.wait("bot.finished")
        [record] = turns(faultless)
        assert "asked_ms" not in record
        assert int(str(record["first_token_ms"])) - int(str(record["decision_ms"])) == pytest.approx(1500, abs=60)
        assert caller.response_times() == [pytest.approx(int(str(record["audible_ms"])) / 1000, abs=0.15)]


async def test_an_interrupted_answer_a_continued_turn_and_a_late_remark_leave_no_absurd_record(
    faultless: list[dict[str, object]],
) -> None:
    async with running([Say("hello"), Say("no wait make it three please"), Say("thank you very much")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, LONG, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(0.8)
        continued = await take_turn(agent, caller, "no wait make it three please")
        assert continued["turn_id"] == 1
        await agent.say(call, SENTENCE, "m2", continued["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        await take_turn(agent, caller, "thank you very much")
        await asyncio.sleep(25)
        await agent.say(call, "Are you still there?", "m3")
        await agent.wait("bot.finished", message_id="m3")
        records = turns(faultless)
        assert [record["turn_id"] for record in records] == [1, 1], "m1 and m2; what m3 says answers nobody"
        for record in records:
            steps = [int(str(value)) for name, value in record.items() if name.endswith("_ms")]
            assert all(0 <= step < 3000 for step in steps)


async def test_a_tool_round_shows_in_the_record(faultless: list[dict[str, object]]) -> None:
    def model(request: Request) -> Reply:
        done = any(entry["role"] == "tool" for entry in request.body["messages"])
        return Reply(SENTENCE) if done else Reply(tools=[CalledTool("find_booking", "{}", "call_1")])

    tool: dict[str, Any] = {
        "type": "function",
        "function": {"name": "find_booking", "parameters": {"type": "object", "properties": {}}},
    }
    async with running([Say("find my booking")], model=model) as rig:
        agent = await rig.agent(llm=LLM, tools=[tool])
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        await asyncio.sleep(2.0)
        results = [{"tool_call_id": "call_1", "result": "none"}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        await agent.wait("bot.finished")
        [record] = turns(faultless)
        assert record["tool_rounds"] == 1
        assert int(str(record["asked_ms"])) <= int(str(record["decision_ms"])) < 1000
        assert 2000 <= int(str(record["first_token_ms"])) < 3500
