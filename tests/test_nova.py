"""Nova over a real socket to the simulator: options, words, deadlines, and connections that fail."""

from __future__ import annotations

import asyncio

import pytest

from providers.base import MULAW_8K, PCM_16K, SttReconnected, Transcript
from providers.deepgram.link import DeepgramAccess
from providers.deepgram.nova import NovaSpeechToText
from providers.errors import RateLimited, Refused, TimedOut, Unavailable
from tests.flux_hearing import LOUD, QUIET, eventually
from tests.nova_hearing import NovaHearing, listening, nova
from tests.simulators.deepgram_nova import Closing, Fault, Line, NovaSimulator
from tests.speech import noise_mulaw, say_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.config import NovaStt


def sent(sim: NovaSimulator, kind: str, connection: int = 0) -> int:
    return [message["type"] for message in sim.connections[connection].messages].count(kind)


async def pace(caller: NovaHearing, frame: bytes, ms: int) -> None:
    """A caller's audio as a telephone line brings it: 20 ms every 20 ms."""
    for _ in range(ms // 20):
        caller.stt.feed(frame)
        await asyncio.sleep(0.02)


# --- what is asked, what is heard ---


@pytest.mark.proves("row-87")
async def test_options_and_key_reach_deepgram() -> None:
    config = NovaStt(language="multi", keyterms=("La Boca",), profanity_filter=True, use_native_vad=True)
    async with NovaSimulator([Line("hola", language="es")]) as sim, listening(sim, config) as caller:
        await caller.speak(loud_ms=500, quiet_ms=1000)
        await caller.until_closed()
        asked = sim.connections[0]
        assert asked.query["keyterm"] == ["La Boca"]
        assert (asked.query["profanity_filter"], asked.query["vad_events"]) == (["true"], ["true"])
        assert asked.headers["Authorization"] == f"Token {sim.key}"
        assert caller.transcripts[-1] == Transcript("hola", True, 0.98, "es", speech_final=True)


async def test_interims_grow_finals_settle_and_the_utterance_ends() -> None:
    line = Line("I would like to book | a table for two")
    async with NovaSimulator([line]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=2000, quiet_ms=1500)
        await caller.until_closed()
        assert caller.finals == ["I would like to book", "a table for two"]
        assert [event.speech_final for event in caller.transcripts if event.is_final] == [False, True]
        assert "I would like" in caller.interims
        assert any(text.startswith("a table") for text in caller.interims)
        assert caller.closed == 1


async def test_each_spoken_line_is_one_utterance() -> None:
    lines = ["I would like to book a table.", "For four people please."]
    async with NovaSimulator([Line(line) for line in lines]) as sim, listening(sim) as caller:
        for line in lines:
            sound = say_mulaw(line) + noise_mulaw(1500, level_db=-55)
            for start in range(0, len(sound), 160):
                caller.stt.feed(sound[start : start + 160])
                await asyncio.sleep(0)
        await caller.until_closed(utterances=2)
        assert caller.finals == lines


async def test_an_utterance_whose_pause_is_lost_in_noise_still_ends() -> None:
    async with NovaSimulator([Line("thank you", Closing.NOISE)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600, quiet_ms=1500)
        await caller.until_closed()
        assert caller.transcripts[-2:] == [
            Transcript("thank you", True, 0.98, "en"),
            Transcript("", True, 1.0, "en", speech_final=True),
        ]


async def test_without_interim_results_there_are_only_finals() -> None:
    config = NovaStt(interim_results=False)
    async with NovaSimulator([Line("one two three")]) as sim, listening(sim, config) as caller:
        await caller.speak(loud_ms=1600, quiet_ms=500)
        await caller.until_closed()
        assert caller.transcripts == [Transcript("one two three", True, 0.98, "en", speech_final=True)]


@pytest.mark.proves("row-87")
async def test_words_below_min_confidence_are_not_heard() -> None:
    script = [Line("mumble", confidence=0.3), Line("hello", confidence=0.9)]
    async with NovaSimulator(script) as sim, listening(sim, NovaStt(min_confidence=0.6)) as caller:
        await caller.speak(loud_ms=600, quiet_ms=800)
        await caller.speak(loud_ms=600, quiet_ms=800)
        await caller.until(lambda: "hello" in caller.finals)
        assert caller.heard == "hello"


async def test_telephone_audio_passes_untouched_in_messages_of_40_to_80_ms() -> None:
    async with NovaSimulator() as sim, listening(sim) as caller:
        frames = [bytes([number]) * 160 for number in range(100)]
        for frame in frames:
            caller.stt.feed(frame)
            await asyncio.sleep(0)
        await eventually(lambda: len(sim.connections[0].audio) >= 16_000)
        assert sim.connections[0].audio[:16_000] == b"".join(frames)
        assert set(sim.connections[0].chunks) <= set(range(320, 641))


async def test_sixteen_bit_audio_is_taken_as_it_is() -> None:
    async with NovaSimulator([Line("hello")]) as sim:
        stt = nova(sim, audio=PCM_16K)
        await stt.start()
        caller = NovaHearing(stt)
        stt.feed(b"\x00\x20" * 16_000 + b"\x00\x00" * 16_000)
        await caller.until_closed()
        await caller.aclose()
        assert caller.heard == "hello"


# --- finalize ---


async def test_finalize_settles_the_words_after_the_last_audio() -> None:
    async with NovaSimulator([Line("one two three", Closing.NEVER)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600, quiet_ms=220)
        caller.stt.finalize()
        await caller.until(lambda: bool(caller.finals))
        assert caller.heard == "one two three"
        assert len(sim.connections[0].audio) == 41 * 160
        assert sent(sim, "Finalize") == 1
        await asyncio.sleep(1)
        assert caller.heard == "one two three"


async def test_an_unanswered_finalize_makes_interim_words_final_after_400_ms() -> None:
    line = Line("one two three", Closing.NEVER)
    async with NovaSimulator([line], answers_finalize=False) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        await pace(caller, LOUD, 700)
        await pace(caller, QUIET, 400)
        assert caller.interims[-1] == "one two three"
        caller.stt.finalize()
        began = loop.time()
        await caller.until(lambda: bool(caller.finals))
        assert loop.time() - began == pytest.approx(0.4, abs=0.05)
        assert caller.heard == "one two three"


async def test_an_answer_that_comes_after_the_promotion_adds_no_words() -> None:
    line = Line("one two three", Closing.NOISE)
    async with NovaSimulator([line], answers_finalize=False) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 220)
        caller.stt.finalize()
        await pace(caller, QUIET, 2000)
        await caller.until_closed()
        assert caller.heard == "one two three"
        assert caller.closed == 1


async def test_words_spoken_on_during_the_wait_are_not_frozen_half_said() -> None:
    line = Line("I want a table for two", Closing.NEVER, at_ms=0, for_ms=2400)
    async with NovaSimulator([line], answers_finalize=False) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 1000)
        caller.stt.finalize()
        await pace(caller, LOUD, 1000)
        assert caller.finals == ["I want"]
        assert caller.interims[-1].startswith("a table")


async def test_finalize_with_nothing_said_tells_nothing() -> None:
    async with NovaSimulator() as sim, listening(sim) as caller:
        await caller.speak(loud_ms=0, quiet_ms=500)
        caller.stt.finalize()
        await asyncio.sleep(2)
        assert sent(sim, "Finalize") == 1
        assert caller.events == []


# --- quiet lines ---


async def test_a_line_without_audio_is_kept_alive_by_text_frames() -> None:
    async with NovaSimulator([Line("still here")]) as sim, listening(sim) as caller:
        await pace(caller, QUIET, 100)
        await asyncio.sleep(61)
        assert sent(sim, "KeepAlive") == 15
        await caller.speak(loud_ms=600, quiet_ms=600)
        await caller.until_closed()
        assert caller.heard == "still here"
        assert (len(sim.connections), sim.refused) == (1, [])


async def test_a_connection_opened_long_before_the_first_audio_survives() -> None:
    async with NovaSimulator([Line("hello")]) as sim, listening(sim) as caller:
        await asyncio.sleep(30)
        await caller.speak(loud_ms=600, quiet_ms=600)
        await caller.until_closed()
        assert (len(sim.connections), sim.refused) == (1, [])


async def test_no_keep_alive_is_sent_while_audio_flows() -> None:
    async with NovaSimulator() as sim, listening(sim) as caller:
        await pace(caller, QUIET, 20_000)
        assert sent(sim, "KeepAlive") == 0
        assert len(sim.connections) == 1


# --- connections that break ---


@pytest.mark.proves("row-210")
async def test_a_dropped_connection_costs_no_words() -> None:
    faults = [Fault(drop_at_ms=1600)]
    async with NovaSimulator([Line("book a table for two please")], faults=faults) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 2000)
        await pace(caller, QUIET, 1000)
        await caller.until_closed()
        assert caller.heard == "book a table for two please"
        assert caller.failure is None
        assert len(caller.reconnected) == 1
        assert sim.connections[1].audio.startswith(LOUD * 60)


async def test_what_was_final_is_not_sent_again() -> None:
    script = [Line("yes"), Line("on friday")]
    async with NovaSimulator(script, faults=[Fault(drop_at_ms=2000)]) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 600)
        await pace(caller, b"\x11" * 160, 1200)
        await pace(caller, QUIET, 600)
        await caller.until_closed(utterances=2)
        assert caller.heard == "yes on friday"
        assert LOUD not in sim.connections[1].audio
        settled_ms = 900
        assert caller.reconnected == [SttReconnected(2000 - settled_ms)]
        assert sim.connections[1].audio.startswith(QUIET * 15 + b"\x11" * 160 * 60)


async def test_at_most_three_seconds_are_sent_again() -> None:
    faults = [Fault(drop_at_ms=6000, stall_at_ms=0)]
    async with NovaSimulator(faults=faults) as sim, listening(sim) as caller:
        frames = [bytes([number % 200]) * 160 for number in range(300)]
        for frame in frames:
            await pace(caller, frame, 20)
        await caller.until(lambda: bool(caller.events))
        assert caller.events == [SttReconnected(3000)]
        await eventually(lambda: len(sim.connections[1].audio) >= 24_000)
        assert sim.connections[1].audio == b"".join(frames)[-24_000:]


async def test_an_answer_owed_by_the_old_connection_is_asked_of_the_new_one() -> None:
    line = Line("one two three", Closing.NEVER)
    faults = [Fault(drop_at_ms=1040)]
    async with NovaSimulator([line], faults=faults, answers_finalize=False) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 400)
        caller.stt.finalize()
        await pace(caller, QUIET, 1000)
        assert caller.heard == "one two three"
        assert sent(sim, "Finalize", connection=1) == 1


async def test_an_error_message_is_a_lost_connection() -> None:
    async with NovaSimulator([Line("hello")], faults=[Fault(error_at_ms=200)]) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 1000)
        await caller.until_closed()
        assert caller.heard == "hello"
        assert len(sim.connections) == 2


async def test_garbage_is_skipped() -> None:
    async with NovaSimulator([Line("hello")], faults=[Fault(garbage_at_ms=100)]) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 1000)
        await caller.until_closed()
        assert len(sim.connections) == 1


@pytest.mark.proves("row-210")
async def test_two_failures_in_ten_seconds_are_final_and_no_word_is_lost() -> None:
    faults = [Fault(drop_at_ms=1000), Fault(drop_at_ms=3000)]
    script = [Line("hold the line", Closing.NEVER)]
    async with NovaSimulator(script, faults=faults) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 3000)
        await caller.until(lambda: caller.failure is not None)
        assert caller.failure is not None
        assert caller.failure.code == "STT_ERROR"
        assert caller.heard == "hold the line"
        assert len(sim.connections) == 2
        caller.stt.feed(LOUD)
        caller.stt.finalize()


async def test_a_failure_long_after_the_last_is_forgiven() -> None:
    faults = [Fault(drop_at_ms=1000), Fault(drop_at_ms=15_000)]
    async with NovaSimulator(faults=faults) as sim, listening(sim) as caller:
        await pace(caller, QUIET, 17_000)
        assert len(caller.reconnected) == 2
        assert (caller.failure, len(sim.connections)) == (None, 3)


async def test_a_refused_reconnect_is_final() -> None:
    faults = [Fault(drop_at_ms=1000), Fault(status=401)]
    async with NovaSimulator(faults=faults) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 1000)
        await caller.until(lambda: caller.failure is not None)
        assert isinstance(caller.failure, Refused)
        assert sim.attempts == 2


async def test_a_connection_that_answers_no_voice_for_ten_seconds_is_replaced() -> None:
    async with NovaSimulator([Line("hello")], faults=[Fault(stall_at_ms=0)]) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        await pace(caller, QUIET, 20_000)
        assert len(sim.connections) == 1
        began = loop.time()
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 9400)
        assert not caller.reconnected
        await caller.until(lambda: bool(caller.reconnected))
        assert loop.time() - began == pytest.approx(10.3, abs=0.3)
        await pace(caller, LOUD, 600)
        await pace(caller, QUIET, 600)
        await caller.until_closed()
        assert caller.heard == "hello"


async def test_a_long_speech_that_is_answered_is_left_alone() -> None:
    line = Line(" ".join(["word"] * 100), at_ms=0, for_ms=30_000)
    async with NovaSimulator([line]) as sim, listening(sim) as caller:
        await pace(caller, LOUD, 30_000)
        await pace(caller, QUIET, 1000)
        await caller.until_closed()
        assert len(caller.heard.split()) == 100
        assert len(sim.connections) == 1


# --- connecting and closing ---


async def test_a_wrong_key_is_refused_at_once() -> None:
    async with NovaSimulator() as sim:
        stt = NovaSpeechToText(NovaStt(), MULAW_8K, DeepgramAccess("secret-wrong-key", sim.url))
        with pytest.raises(Refused, match="401") as refusal:
            await stt.start()
        await stt.aclose()
        assert refusal.value.code == "STT_ERROR"
        assert "secret-wrong-key" not in str(refusal.value)
        assert sim.attempts == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403])
async def test_a_refusal_is_never_retried(status: int) -> None:
    async with NovaSimulator(faults=[Fault(status=status)]) as sim:
        stt = nova(sim)
        with pytest.raises(Refused):
            await stt.start()
        await stt.aclose()
        assert sim.attempts == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_vendor_is_asked_again(status: int) -> None:
    async with NovaSimulator(faults=[Fault(status=status), Fault(status=status)]) as sim, listening(sim):
        assert sim.attempts == 3


async def test_patience_with_a_busy_vendor_ends() -> None:
    async with NovaSimulator(faults=[Fault(status=503)] * 5) as sim:
        stt = nova(sim)
        with pytest.raises(Unavailable, match="503"):
            await stt.start()
        await stt.aclose()
        assert sim.attempts == 3


async def test_a_vendor_that_wants_more_patience_than_a_call_has_is_not_asked_again() -> None:
    async with NovaSimulator(faults=[Fault(status=429, retry_after=30)]) as sim:
        stt = nova(sim)
        with pytest.raises(RateLimited) as limited:
            await stt.start()
        await stt.aclose()
        assert limited.value.retry_after == 30


async def test_a_vendor_that_does_not_get_ready_times_out() -> None:
    async with NovaSimulator(faults=[Fault(handshake_delay=30)]) as sim:
        loop = asyncio.get_running_loop()
        began = loop.time()
        stt = nova(sim)
        with pytest.raises(TimedOut):
            await stt.start()
        assert loop.time() - began < 8
        await stt.aclose()


async def test_closing_while_connecting_leaves_nothing_behind() -> None:
    async with NovaSimulator(faults=[Fault(handshake_delay=2)]) as sim:
        stt = nova(sim)
        starting = asyncio.get_running_loop().create_task(stt.start())
        await eventually(lambda: bool(sim.attempts))
        await stt.aclose()
        with pytest.raises(Unavailable):
            await starting
        await asyncio.sleep(5)
        assert all(connection.closed.is_set() for connection in sim.connections)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "deepgram-nova"]


async def test_closing_says_close_stream_and_ends_the_events() -> None:
    async with NovaSimulator() as sim, listening(sim) as caller:
        await caller.speak(loud_ms=0, quiet_ms=100)
        await caller.aclose()
        await sim.connections[0].closed.wait()
        assert sent(sim, "CloseStream") == 1
        assert caller.failure is None
        await caller.stt.aclose()


async def test_closing_is_bounded_although_the_vendor_hangs() -> None:
    async with NovaSimulator(faults=[Fault(freeze_at_ms=40)]) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        await caller.speak(loud_ms=10_000)
        began = loop.time()
        await caller.stt.aclose()
        assert loop.time() - began <= 2
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "deepgram-nova"]
