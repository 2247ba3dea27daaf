"""Flux when its connection breaks or falls silent: no words lost, none twice, and an end to patience."""

from __future__ import annotations

import asyncio

from providers.base import NativeTurn, SttReconnected
from providers.errors import Refused
from tests.flux_hearing import END, LOUD, START, eventually, listening
from tests.jumping_loop import jumping
from tests.simulators.deepgram_flux import Ending, Fault, FluxSimulator, Say
from wire.config import FluxStt

# --- connections that break ---


@jumping
async def test_a_dropped_connection_costs_no_words() -> None:
    faults = [Fault(drop_at_ms=1600)]
    async with FluxSimulator([Say("book a table for two please")], faults=faults) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=1600)
        await caller.until(lambda: any(isinstance(event, SttReconnected) for event in caller.events))
        await caller.speak(loud_ms=400, quiet_ms=1000)
        await caller.until_ended()
        assert [moment for moment, _ in caller.without_updates].count(START) == 1
        assert caller.moments[-1] == (END, "book a table for two please")
        assert caller.failure is None
        assert sim.connections[1].audio.startswith(LOUD * 60)


@jumping
async def test_at_most_three_seconds_are_sent_again() -> None:
    async with FluxSimulator(faults=[Fault(drop_at_ms=6000)]) as sim, listening(sim) as caller:
        frames = [bytes([number % 200]) * 160 for number in range(300)]
        for frame in frames:
            caller.stt.feed(frame)
            await asyncio.sleep(0)
        await caller.until(lambda: bool(caller.events))
        assert caller.events == [SttReconnected(3000)]
        await eventually(lambda: len(sim.connections[1].audio) >= 24_000)
        assert sim.connections[1].audio[:24_000] == b"".join(frames)[-24_000:]


@jumping
async def test_the_audio_of_an_ended_turn_is_not_heard_twice() -> None:
    script = [Say("yes"), Say("never said")]
    async with FluxSimulator(script, faults=[Fault(drop_at_ms=2000)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600, quiet_ms=1400)
        await caller.until(lambda: any(isinstance(event, SttReconnected) for event in caller.events))
        await caller.speak(loud_ms=0, quiet_ms=2000)
        await eventually(lambda: len(sim.connections[1].audio) >= 16_000)
        assert caller.without_updates[-1] == (END, "yes")
        assert LOUD not in sim.connections[1].audio


@jumping
async def test_an_error_message_is_a_lost_connection() -> None:
    async with FluxSimulator([Say("hello")], faults=[Fault(error_at_ms=200)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=400, quiet_ms=1000)
        await caller.until_ended()
        assert isinstance(caller.events[0], SttReconnected | NativeTurn)
        assert caller.moments[-1] == (END, "hello")
        assert len(sim.connections) == 2


@jumping
async def test_garbage_is_skipped() -> None:
    async with FluxSimulator([Say("hello")], faults=[Fault(garbage_at_ms=100)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=400, quiet_ms=1000)
        await caller.until_ended()
        assert len(sim.connections) == 1


@jumping
async def test_two_failures_in_ten_seconds_are_final() -> None:
    faults = [Fault(drop_at_ms=1000), Fault(drop_at_ms=7000)]
    script = [Say("hold the line", at_ms=100, for_ms=60_000)]
    async with FluxSimulator(script, faults=faults) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await caller.speak(loud_ms=1000)
        await caller.until(lambda: caller.failure is not None)
        assert 5 <= loop.time() - began <= 9
        assert caller.failure is not None
        assert caller.failure.code == "STT_ERROR"
        assert caller.moments[-1] == (END, "hold the line")
        assert len(sim.connections) == 2
        caller.stt.feed(LOUD)


@jumping
async def test_a_failure_long_after_the_last_is_forgiven() -> None:
    async with (
        FluxSimulator(faults=[Fault(drop_at_ms=1000), Fault(drop_at_ms=15_000)]) as sim,
        listening(sim) as caller,
    ):
        await caller.speak(loud_ms=1000)
        await caller.until(lambda: len(caller.events) == 2)
        assert all(isinstance(event, SttReconnected) for event in caller.events)
        assert len(sim.connections) == 3


@jumping
async def test_a_refused_reconnect_is_final() -> None:
    async with FluxSimulator(faults=[Fault(drop_at_ms=1000), Fault(status=401)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=1000)
        await caller.until(lambda: caller.failure is not None)
        assert isinstance(caller.failure, Refused)
        assert sim.attempts == 2


# --- connections that fall silent ---


@jumping
async def test_a_stuck_turn_is_ended_for_flux_and_listening_goes_on() -> None:
    async with FluxSimulator([Say("noise", Ending.STUCK), Say("hello again")]) as sim, listening(sim) as caller:
        loop = asyncio.get_running_loop()
        await caller.speak(loud_ms=200)
        await caller.until(lambda: bool(caller.moments))
        stuck_at = loop.time()
        await caller.until_ended()
        assert 2.9 <= loop.time() - stuck_at <= 4
        await caller.until(lambda: any(isinstance(event, SttReconnected) for event in caller.events))
        await caller.speak(loud_ms=600, quiet_ms=1000)
        await caller.until_ended(turns=2)
        assert [text for moment, text in caller.moments if moment is END] == ["noise", "hello again"]
        assert len(sim.connections) == 2


@jumping
async def test_a_long_end_of_turn_timeout_makes_the_watch_patient() -> None:
    config = FluxStt(eot_timeout_ms=4000)
    async with FluxSimulator([Say("noise", Ending.STUCK)]) as sim, listening(sim, config) as caller:
        loop = asyncio.get_running_loop()
        await caller.speak(loud_ms=200)
        await caller.until(lambda: bool(caller.moments))
        stuck_at = loop.time()
        await caller.until_ended()
        assert 7.9 <= loop.time() - stuck_at <= 9


@jumping
async def test_a_connection_that_goes_deaf_between_turns_is_replaced() -> None:
    async with FluxSimulator([Say("hello")], faults=[Fault(stall_at_ms=0)]) as sim, listening(sim) as caller:
        await caller.until(lambda: bool(caller.events))
        await caller.speak(loud_ms=600, quiet_ms=1000)
        await caller.until_ended()
        assert isinstance(caller.events[0], SttReconnected)
        assert len(sim.connections) == 2
