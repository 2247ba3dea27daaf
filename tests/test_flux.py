"""Flux over a real socket to the simulator: options, turns, and everything that can go wrong with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from providers.base import MULAW_8K, PCM_16K, AudioFormat, NativeTurn, SttEvent, SttReconnected, TurnMoment
from providers.deepgram.flux import DeepgramAccess, FluxSpeechToText
from providers.errors import ProviderError, RateLimited, Refused, TimedOut, Unavailable
from tests.jumping_loop import jumping
from tests.simulators.deepgram_flux import Ending, Fault, FluxSimulator, Say
from wire.config import FluxStt

START, UPDATE, EAGER, RESUMED, END = TurnMoment
LOUD = b"\x10" * 160
QUIET = b"\xff" * 160
SEED_SAMPLE = FluxStt(eot_threshold=0.5, eager_eot_threshold=0.7, eot_timeout_ms=2000)


def flux(sim: FluxSimulator, config: FluxStt | None = None, audio: AudioFormat = MULAW_8K) -> FluxSpeechToText:
    return FluxSpeechToText(config or FluxStt(), audio, DeepgramAccess(sim.key, sim.url))


class Hearing:
    """Collects what a recogniser tells, until its end."""

    def __init__(self, stt: FluxSpeechToText) -> None:
        self.stt = stt
        self.events: list[SttEvent] = []
        self.failure: ProviderError | None = None
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async for event in self.stt.events():
                self.events.append(event)
                self._news.set()
        except ProviderError as failure:
            self.failure = failure
        self._news.set()

    @property
    def moments(self) -> list[tuple[TurnMoment, str]]:
        return [(event.moment, event.text) for event in self.events if isinstance(event, NativeTurn)]

    @property
    def without_updates(self) -> list[tuple[TurnMoment, str]]:
        return [(moment, text) for moment, text in self.moments if moment is not UPDATE]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_ended(self, turns: int = 1) -> None:
        await self.until(lambda: [moment for moment, _ in self.moments].count(END) == turns)

    async def speak(self, *, loud_ms: int, quiet_ms: int = 0) -> None:
        """A caller's audio in 20 ms frames, as fast as the recogniser sends it."""
        for frame in [LOUD] * (loud_ms // 20) + [QUIET] * (quiet_ms // 20):
            self.stt.feed(frame)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.stt.aclose()
        await asyncio.wait_for(self._task, 1)


@asynccontextmanager
async def listening(sim: FluxSimulator, config: FluxStt | None = None) -> AsyncGenerator[Hearing]:
    stt = flux(sim, config)
    await stt.start()
    hearing = Hearing(stt)
    try:
        yield hearing
    finally:
        await hearing.aclose()


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
async def test_telephone_audio_passes_untouched_in_messages_of_40_to_80_ms() -> None:
    async with FluxSimulator() as sim, listening(sim) as caller:
        frames = [bytes([number]) * 160 for number in range(100)]
        for frame in frames:
            caller.stt.feed(frame)
            await asyncio.sleep(0)
        await _until(lambda: len(sim.connections[0].audio) >= 16_000)
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
        await _until(lambda: len(sim.connections[0].audio) >= 40_000)
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
        await _until(lambda: bool(sim.connections) or bool(sim.attempts and fault.handshake_delay))
        await stt.aclose()
        with pytest.raises(Unavailable):
            await starting
        await asyncio.sleep(5)
        assert all(connection.closed.is_set() for connection in sim.connections)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "flux"]


@jumping
async def test_a_cancelled_start_leaves_no_socket() -> None:
    async with FluxSimulator(faults=[Fault(never_connected=True)]) as sim:
        starting = asyncio.get_running_loop().create_task(flux(sim).start())
        await _until(lambda: bool(sim.connections))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.wait_for(sim.connections[0].closed.wait(), 1)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "flux"]


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
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "flux"]


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
        await _until(lambda: len(sim.connections[1].audio) >= 24_000)
        assert sim.connections[1].audio[:24_000] == b"".join(frames)[-24_000:]


@jumping
async def test_the_audio_of_an_ended_turn_is_not_heard_twice() -> None:
    script = [Say("yes"), Say("never said")]
    async with FluxSimulator(script, faults=[Fault(drop_at_ms=2000)]) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=600, quiet_ms=1400)
        await caller.until(lambda: any(isinstance(event, SttReconnected) for event in caller.events))
        await caller.speak(loud_ms=0, quiet_ms=2000)
        await _until(lambda: len(sim.connections[1].audio) >= 16_000)
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
    faults = [Fault(drop_at_ms=1000), Fault(drop_at_ms=1000)]
    async with FluxSimulator([Say("hold the line")], faults=faults) as sim, listening(sim) as caller:
        await caller.speak(loud_ms=3000)
        await caller.until(lambda: caller.failure is not None)
        assert caller.failure is not None
        assert caller.failure.code == "STT_ERROR"
        assert caller.moments[-1][0] is END
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


async def _until(condition: Callable[[], bool]) -> None:
    """For what only the simulator sees."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("did not happen")
