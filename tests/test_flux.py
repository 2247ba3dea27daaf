"""Flux over a real socket to the simulator: options, turns, audio, and how a connection begins and ends."""

from __future__ import annotations

import asyncio

import pytest

from providers.base import MULAW_8K, PCM_16K, NativeTurn
from providers.deepgram.flux import FluxSpeechToText
from providers.deepgram.link import DeepgramAccess
from providers.errors import RateLimited, Refused, TimedOut, Unavailable
from tests.flux_hearing import EAGER, END, RESUMED, START, UPDATE, Hearing, eventually, flux, listening
from tests.jumping_loop import jumping
from tests.simulators.deepgram_flux import Ending, Fault, FluxSimulator, Say
from tests.speech import noise_mulaw, say_mulaw
from wire.config import FluxStt

SEED_SAMPLE = FluxStt(eot_threshold=0.5, eager_eot_threshold=0.7, eot_timeout_ms=2000)


# --- what is asked, what is heard ---


@pytest.mark.proves("row-85")
@jumping
async def test_the_seed_sample_makes_a_working_call() -> None:
    async with FluxSimulator([Say("book a table for two")]) as sim, listening(sim, SEED_SAMPLE) as caller:
        await caller.speak(loud_ms=1000, quiet_ms=1000)
        await caller.until_ended()
        assert caller.without_updates[1:] == [(EAGER, "book a table for two"), (END, "book a table for two")]
        query = sim.connections[0].query
    assert (query["eot_threshold"], query["eager_eot_threshold"], query["eot_timeout_ms"]) == (
        ["0.5"],
        ["0.5"],
        ["2000"],
    )


@pytest.mark.proves("row-85", "row-86")
@jumping
async def test_options_and_keyterms_reach_deepgram() -> None:
    config = FluxStt(language="es-AR", keyterms=("Pinecall", "La Boca"), eot_threshold=0.8, eot_timeout_ms=3000)
    async with FluxSimulator([Say("hola", language="es")]) as sim, listening(sim, config) as caller:
        await caller.speak(loud_ms=500, quiet_ms=1000)
        await caller.until_ended()
        assert sim.connections[0].query == {
            "model": ["flux-general-multi"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "eot_threshold": ["0.8"],
            "eager_eot_threshold": ["0.5"],
            "eot_timeout_ms": ["3000"],
            "language_hint": ["es"],
            "keyterm": ["Pinecall", "La Boca"],
        }
        assert sim.connections[0].headers["Authorization"] == f"Token {sim.key}"
        end = caller.events[-1]
        assert isinstance(end, NativeTurn)
        assert (end.language, end.confidence, end.probability) == ("es", pytest.approx(0.98), 0.83)


@jumping
async def test_words_grow_and_every_update_is_new() -> None:
    script = [Say("one two three four five six"), Say("yes", Ending.PLAIN)]
    async with FluxSimulator(script) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=1200, quiet_ms=1000)
        await caller.speak(loud_ms=400, quiet_ms=1000)
        await caller.until_ended(turns=2)
        updates = [text for moment, text in caller.moments if moment is UPDATE]
        assert updates == sorted(set(updates), key=len)
        assert len(updates) >= 2
        assert caller.without_updates[-2:] == [(START, "yes"), (END, "yes")]
        assert [event.turn_index for event in caller.events if isinstance(event, NativeTurn)][-1] == 1


@jumping
async def test_a_resumed_turn_takes_its_eager_end_back() -> None:
    async with FluxSimulator([Say("call me maybe", Ending.RESUMED)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600, quiet_ms=1200)
        await caller.until_ended()
        assert caller.without_updates[1:] == [
            (EAGER, "call me"),
            (RESUMED, "call me maybe"),
            (END, "call me maybe"),
        ]


@jumping
async def test_each_spoken_line_is_one_turn() -> None:
    lines = ["Good evening, I would like to book a table.", "For four people, on Friday, at eight."]
    line_noise = noise_mulaw(1500, level_db=-55)
    async with FluxSimulator([Say(line) for line in lines]) as sim, listening(sim) as caller:
        for line in lines:
            sound = say_mulaw(line) + line_noise
            for start in range(0, len(sound), 160):
                caller.stt.feed(sound[start : start + 160])
                await asyncio.sleep(0)
        await caller.until_ended(turns=2)
        assert [text for moment, text in caller.moments if moment is END] == lines


@jumping
async def test_telephone_audio_passes_untouched_in_messages_of_40_to_80_ms() -> None:
    async with FluxSimulator() as sim, listening(sim) as caller:
        frames = [bytes([number]) * 160 for number in range(100)]
        for frame in frames:
            caller.stt.feed(frame)
            await asyncio.sleep(0)
        await eventually(lambda: len(sim.connections[0].audio) >= 16_000)
        assert sim.connections[0].audio[:16_000] == b"".join(frames)
        assert set(sim.connections[0].chunks) <= set(range(320, 641))


@jumping
async def test_sixteen_bit_audio_is_taken_as_it_is() -> None:
    async with FluxSimulator([Say("hello")]) as sim:
        stt = flux(sim, audio=PCM_16K)
        await stt.start()
        caller = Hearing(stt)
        stt.feed(b"\x00\x20" * 16_000 + b"\x00\x00" * 16_000)
        await caller.until_ended()
        await caller.aclose()
        assert caller.without_updates[-1] == (END, "hello")


@jumping
async def test_feeding_an_unconnected_recogniser_keeps_the_last_five_seconds() -> None:
    async with FluxSimulator() as sim:
        stt = flux(sim)
        for second in range(20):
            stt.feed(bytes([second]) * 8000)
        await stt.start()
        await eventually(lambda: len(sim.connections[0].audio) >= 40_000)
        assert sim.connections[0].audio[:40_000] == b"".join(bytes([second]) * 8000 for second in range(15, 20))
        await stt.aclose()


@jumping
async def test_finalize_ends_the_turn_after_the_last_audio() -> None:
    async with FluxSimulator([Say("one two three")]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=420)
        caller.stt.finalize()
        await caller.until_ended()
        assert sim.connections[0].messages == [{"type": "ForceEndTurn"}]
        assert sim.connections[0].told[-1]["trigger"] == "manual"
        assert len(sim.connections[0].audio) == 21 * 160


@jumping
async def test_an_open_turn_ends_although_the_callers_audio_stopped() -> None:
    async with FluxSimulator([Say("is anybody there", Ending.TIMEOUT)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600)
        await caller.until_ended()
        assert caller.moments[-1] == (END, "is anybody there")
        assert sim.connections[0].told[-1]["trigger"] == "timeout"


# --- connecting ---


@jumping
async def test_a_wrong_key_is_refused_at_once() -> None:
    async with FluxSimulator() as sim:
        stt = FluxSpeechToText(FluxStt(), MULAW_8K, DeepgramAccess("secret-wrong-key", sim.url))
        with pytest.raises(Refused, match="401") as refusal:
            await stt.start()
        await stt.aclose()
        assert refusal.value.code == "STT_ERROR"
        assert "secret-wrong-key" not in str(refusal.value)
        assert sim.attempts == 1


@pytest.mark.parametrize("status", [400, 402, 403])
@jumping
async def test_a_refusal_is_never_retried(status: int) -> None:
    async with FluxSimulator(faults=[Fault(status=status)]) as sim:
        stt = flux(sim)
        with pytest.raises(Refused):
            await stt.start()
        await stt.aclose()
        assert sim.attempts == 1


@pytest.mark.parametrize("status", [429, 500, 503])
@jumping
async def test_a_busy_vendor_is_asked_again(status: int) -> None:
    async with FluxSimulator(faults=[Fault(status=status), Fault(status=status)]) as sim, listening(sim):
        assert sim.attempts == 3


@jumping
async def test_patience_with_a_busy_vendor_ends() -> None:
    async with FluxSimulator(faults=[Fault(status=503)] * 5) as sim:
        stt = flux(sim)
        with pytest.raises(Unavailable, match="503"):
            await stt.start()
        await stt.aclose()
        assert sim.attempts == 3


@jumping
async def test_a_vendor_that_wants_more_patience_than_a_call_has_is_not_asked_again() -> None:
    async with FluxSimulator(faults=[Fault(status=429, retry_after=30)]) as sim:
        stt = flux(sim)
        with pytest.raises(RateLimited) as limited:
            await stt.start()
        await stt.aclose()
        assert limited.value.retry_after == 30
        assert sim.attempts == 1


@pytest.mark.parametrize("fault", [Fault(handshake_delay=30), Fault(never_connected=True)], ids=["handshake", "hello"])
@jumping
async def test_a_vendor_that_does_not_get_ready_times_out(fault: Fault) -> None:
    async with FluxSimulator(faults=[fault]) as sim:
        loop = asyncio.get_running_loop()
        began = loop.time()
        stt = flux(sim)
        with pytest.raises(TimedOut):
            await stt.start()
        assert loop.time() - began < 8
        await stt.aclose()


@jumping
async def test_nobody_at_the_address_is_unavailable() -> None:
    async with FluxSimulator() as sim:
        gone = sim.url
    stt = FluxSpeechToText(FluxStt(), MULAW_8K, DeepgramAccess("k", gone))
    with pytest.raises(Unavailable):
        await stt.start()
    await stt.aclose()


@pytest.mark.parametrize("fault", [Fault(handshake_delay=2), Fault(never_connected=True)], ids=["handshake", "hello"])
@jumping
async def test_closing_while_connecting_leaves_no_socket(fault: Fault) -> None:
    async with FluxSimulator(faults=[fault]) as sim:
        stt = flux(sim)
        starting = asyncio.get_running_loop().create_task(stt.start())
        await eventually(lambda: bool(sim.connections) or bool(sim.attempts and fault.handshake_delay))
        await stt.aclose()
        with pytest.raises(Unavailable):
            await starting
        await asyncio.sleep(5)
        assert all(connection.closed.is_set() for connection in sim.connections)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "deepgram-flux"]


@jumping
async def test_a_cancelled_start_leaves_no_socket() -> None:
    async with FluxSimulator(faults=[Fault(never_connected=True)]) as sim:
        starting = asyncio.get_running_loop().create_task(flux(sim).start())
        await eventually(lambda: bool(sim.connections))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.wait_for(sim.connections[0].closed.wait(), 1)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "deepgram-flux"]


@jumping
async def test_closing_says_close_stream_and_ends_the_events() -> None:
    async with FluxSimulator() as sim, listening(sim) as caller:
        await caller.aclose()
        await sim.connections[0].closed.wait()
        assert sim.connections[0].messages == [{"type": "CloseStream"}]
        assert caller.failure is None
        await caller.stt.aclose()


@jumping
async def test_closing_is_bounded_although_the_vendor_hangs() -> None:
    async with FluxSimulator(faults=[Fault(freeze_at_ms=40)]) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        await caller.speak(loud_ms=10_000)
        began = loop.time()
        await caller.stt.aclose()
        assert loop.time() - began <= 2
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "deepgram-flux"]
