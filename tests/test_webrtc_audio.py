"""A browser's audio without a network: what leaves when, what comes in in which order, and what it sounds like."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pipelines.clock import LoopClock
from pipelines.metronome import Metronome
from tests.speech import silence_pcm, tone_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy
from transports.webrtc.line import MAX_HEARD_SECONDS, MAX_PACKETS, BrowserLine
from transports.webrtc.opus import SETTLED_FRAMES, VoiceDecoder, VoiceEncoder
from transports.webrtc.pacer import CATCH_UP_FRAMES, FRAME_BYTES, LEAD_IN_FRAMES, Frame, Pacer
from transports.webrtc.uplink import RESTART_AFTER, WAIT_PACKETS, Packet, Reorder, Timeline

SECOND = 32000


def due(pacer: Pacer, now: float) -> list[Frame]:
    return list(pacer.due(now))


def played(pacer: Pacer, since: float, frames: int) -> list[bytes | None]:
    """What leaves on the next `frames` ticks."""
    return [frame.pcm for tick in range(frames) for frame in due(pacer, since + tick * 0.02)]


def packet(number: int, payload: bytes = b"x") -> Packet:
    return Packet(number & 0xFFFF, (number * 960) & 0xFFFFFFFF, payload)


# --- pacing ---


@pytest.mark.proves("row-105")
def test_one_frame_leaves_every_20_ms_whether_there_is_something_to_say_or_not() -> None:
    pacer = Pacer()
    pacer.start(5.0)
    assert [frame.number for tick in range(50) for frame in due(pacer, 5.0 + tick * 0.02)] == list(range(50))
    assert due(pacer, 5.995) == []


def test_nothing_leaves_before_the_far_end_listens() -> None:
    pacer = Pacer()
    pacer.push(bytes(FRAME_BYTES))
    pacer.mark("m")
    assert due(pacer, 100.0) == []
    assert pacer.echoes(100.0) == []


def test_the_first_word_waits_until_the_page_plays() -> None:
    pacer = Pacer()
    pacer.push(b"\1\0" * 320)
    pacer.start(0.0)
    frames = played(pacer, 0.0, LEAD_IN_FRAMES + 2)
    assert LEAD_IN_FRAMES * 20 >= 200
    assert frames == [None] * LEAD_IN_FRAMES + [b"\1\0" * 320, None]


def running() -> Pacer:
    """A pacer whose lead-in is over at 1.0."""
    pacer = Pacer()
    pacer.start(0.8)
    played(pacer, 0.8, LEAD_IN_FRAMES)
    return pacer


def test_the_end_of_an_utterance_is_filled_up_with_silence() -> None:
    pacer = running()
    pacer.push(b"\1\0" * 400)
    assert played(pacer, 1.0, 3) == [b"\1\0" * 320, (b"\1\0" * 80).ljust(FRAME_BYTES, b"\0"), None]


def test_a_mark_is_echoed_when_what_was_before_it_has_had_its_time() -> None:
    pacer = running()
    pacer.push(b"\1\0" * 640)
    pacer.mark("end")
    pacer.push(b"\2\0" * 320)
    pacer.mark("later")
    echoed: list[tuple[int, str]] = []
    for tick in range(6):
        now = 1.0 + tick * 0.02
        echoed += [(tick, name) for name in pacer.echoes(now)]
        due(pacer, now)
    assert echoed == [(2, "end"), (3, "later")]


def test_a_mark_without_audio_before_it_is_echoed_at_once() -> None:
    pacer = running()
    pacer.mark("m")
    assert pacer.echoes(1.0) == ["m"]


@pytest.mark.proves("web-23")
def test_after_a_clear_nothing_more_of_it_leaves_and_its_marks_come_back() -> None:
    pacer = running()
    pacer.push(bytes([7]) * SECOND)
    pacer.mark("m")
    assert played(pacer, 1.0, 3) == [bytes([7]) * FRAME_BYTES] * 3
    pacer.clear()
    assert pacer.echoes(1.06) == ["m"]
    assert played(pacer, 1.06, 3) == [None] * 3
    pacer.push(b"\1\0" * 320)
    assert played(pacer, 1.12, 1) == [b"\1\0" * 320]


def test_a_late_tick_loses_no_audio_and_shifts_nothing() -> None:
    pacer = running()
    pacer.push(b"".join(bytes([number]) * FRAME_BYTES for number in range(10)))
    first = played(pacer, 1.0, 1)
    late = [frame.pcm for frame in due(pacer, 1.07)]
    assert [pcm[0] for pcm in [*first, *late] if pcm] == [0, 1, 2, 3]
    assert due(pacer, 1.079) == []
    assert len(due(pacer, 1.08)) == 1


def test_after_a_stall_a_burst_is_short_and_time_goes_on_where_it_is() -> None:
    pacer = running()
    pacer.push(bytes([7]) * SECOND)
    burst = due(pacer, 4.0)
    assert len(burst) == CATCH_UP_FRAMES
    assert burst[-1].number == LEAD_IN_FRAMES + 150, "its time stamp is that of now"
    assert len(due(pacer, 4.02)) == 1


def test_what_nobody_takes_is_bounded() -> None:
    pacer = Pacer()
    for _ in range(100):
        pacer.push(bytes(SECOND))
    pacer.start(0.0)
    assert sum(pcm is not None for pcm in played(pacer, 0.0, 700)) == 500


# --- packets ---


def given(reorder: Reorder, numbers: list[int]) -> list[int]:
    return [out.number for number in numbers for out in reorder.put(packet(number))]


def test_packets_in_order_pass_at_once_across_the_wrap() -> None:
    reorder = Reorder()
    numbers = [*range(65530, 65536), *range(5)]
    for number in numbers:
        assert [out.number for out in reorder.put(packet(number))] == [number]


@pytest.mark.parametrize(
    ("came", "passed"),
    [
        ([1, 3, 2, 4], [1, 2, 3, 4]),
        ([1, 4, 3, 2, 5], [1, 2, 3, 4, 5]),
        ([1, 1, 2, 2], [1, 2]),
        ([1, 2, 1, 3], [1, 2, 3]),
        ([1, 3, 4, 5, 6, 2], [1, 3, 4, 5, 6]),
        ([1, 3, 4, 5], [1]),
        ([65535, 1, 0], [65535, 0, 1]),
    ],
)
def test_packets_are_put_in_order_and_a_lost_one_is_not_waited_for_long(came: list[int], passed: list[int]) -> None:
    assert given(Reorder(), came) == passed


def test_a_sender_that_begins_anew_is_heard() -> None:
    assert given(Reorder(), [100, 101, 40000, 40001]) == [100, 101, 40000, 40001]
    assert given(Reorder(), [40000, 40000 - RESTART_AFTER - 1]) == [40000, 40000 - RESTART_AFTER - 1]


def test_no_sequence_of_numbers_makes_it_hold_much() -> None:
    reorder = Reorder()
    for number in np.random.default_rng(3).integers(0, 65536, 5000):
        list(reorder.put(packet(int(number))))
        assert reorder.held <= WAIT_PACKETS + 1


def test_what_is_missing_between_packets_is_told_in_seconds() -> None:
    timeline = Timeline()
    assert timeline.gap(4294967000) == 0.0
    timeline.played(4294967000, 960)
    assert timeline.gap((4294967000 + 960) & 0xFFFFFFFF) == 0.0
    assert timeline.gap((4294967000 + 2880) & 0xFFFFFFFF) == pytest.approx(0.04)
    assert timeline.gap((4294967000 + 48000 * 60) & 0xFFFFFFFF) == pytest.approx(0.3), (
        "the ears fill the rest as it passes"
    )
    assert timeline.gap(4294967000 - 48000) == 0.0


# --- the codec ---


def test_a_voice_survives_the_codec() -> None:
    encoder, decoder = VoiceEncoder(), VoiceDecoder()
    tone = tone_pcm(440, 1000)
    pcm = b"".join(
        decoder.decode(encoder.encode(tone[at : at + FRAME_BYTES]))[0] for at in range(0, SECOND, FRAME_BYTES)
    )
    assert len(pcm) == pytest.approx(SECOND, abs=100)
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, dtype=np.int16)[4000:12000].astype(np.float64)))
    assert np.argmax(spectrum) * 16000 / 8000 == pytest.approx(440, abs=4)


def test_long_silence_is_encoded_once_and_a_voice_after_it_is_whole() -> None:
    encoder, decoder = VoiceEncoder(), VoiceDecoder()
    silence = [encoder.encode(None) for _ in range(100)]
    assert len(set(silence[SETTLED_FRAMES:])) == 1
    for payload in silence:
        assert np.abs(np.frombuffer(decoder.decode(payload)[0], dtype=np.int16)).max(initial=0) <= 2
    tone = tone_pcm(440, 200)
    after = b"".join(decoder.decode(encoder.encode(tone[at : at + 640]))[0] for at in range(0, len(tone), 640))
    levels = np.abs(np.frombuffer(after, dtype=np.int16).astype(np.int32))
    assert levels[640:].max() == pytest.approx(
        np.abs(np.frombuffer(tone, dtype=np.int16).astype(np.int32)).max(), rel=0.2
    )


@pytest.mark.parametrize("payload", [b"", b"\xff", b"garbage that is no Opus at all" * 40, bytes(1500)])
def test_what_is_no_opus_is_silence_and_no_error(payload: bytes) -> None:
    decoder = VoiceDecoder()
    decoder.decode(payload)
    tone = VoiceEncoder().encode(tone_pcm(440, 20))
    assert decoder.decode(tone)[1] == 960


# --- the line ---


class Call:
    """What a line tells its call."""

    def __init__(self) -> None:
        self.audio = bytearray()
        self.marks: list[tuple[float, str]] = []

    def on_audio(self, audio: bytes) -> None:
        self.audio += audio

    def on_mark(self, name: str) -> None:
        self.marks.append((asyncio.get_running_loop().time(), name))

    def on_digit(self, digit: str) -> None: ...

    def on_gone(self, reason: str) -> None: ...


class Wire:
    """A line with its packets at hand."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes, int]] = []
        self.metronome = Metronome(LoopClock())
        self.line = BrowserLine(LoopClock(), self.metronome, self._send)
        self.call = Call()

    def _send(self, payload: bytes, number: int) -> None:
        self.sent.append((asyncio.get_running_loop().time(), payload, number))

    def audible(self) -> list[float]:
        decoder = VoiceDecoder()
        return [
            at
            for at, payload, _ in self.sent
            if np.abs(np.frombuffer(decoder.decode(payload)[0], np.int16)).max(initial=0) > 500
        ]


async def test_a_line_speaks_in_real_time_and_stops_within_one_frame() -> None:
    wire, loop = Wire(), asyncio.get_running_loop()
    wire.line.start(wire.call)
    await asyncio.sleep(0.5)
    wire.line.send_audio(tone_pcm(440, 1000))
    wire.line.send_mark("end")
    began = loop.time()
    await asyncio.sleep(0.4)
    wire.line.send_clear()
    cut = loop.time()
    await asyncio.sleep(0.5)
    wire.line.stop()
    heard = wire.audible()
    assert heard[0] - began <= 0.021
    assert heard[-1] <= cut + 0.021
    assert [name for _, name in wire.call.marks] == ["end"]
    sent = len(wire.sent)
    assert sent == pytest.approx(1.4 / 0.02, abs=2)
    await asyncio.sleep(0.2)
    assert len(wire.sent) == sent, "nothing leaves after the end"


async def test_lost_packets_become_silence_in_time() -> None:
    wire = Wire()
    wire.line.start(wire.call)
    encoder, tone = VoiceEncoder(), tone_pcm(440, 1000)
    payloads = [encoder.encode(tone[at : at + 640]) for at in range(0, len(tone), 640)]
    for number, payload in enumerate(payloads):
        if number not in (20, 21, 22):
            wire.line.receive(packet(number, payload))
    wire.line.stop()
    assert len(wire.call.audio) == pytest.approx(SECOND, abs=100)
    gap = np.frombuffer(bytes(wire.call.audio), dtype=np.int16)[20 * 320 + 20 : 23 * 320 - 40]
    assert np.abs(gap.astype(np.int32)).max() < 300


async def test_a_muted_page_is_not_heard_though_it_takes_its_time() -> None:
    wire = Wire()
    wire.line.start(wire.call)
    wire.line.deaf = True
    encoder, tone = VoiceEncoder(), tone_pcm(440, 200)
    for number in range(10):
        wire.line.receive(packet(number, encoder.encode(tone[640 * number : 640 * (number + 1)])))
    wire.line.stop()
    assert len(wire.call.audio) == pytest.approx(6400, abs=100)
    assert not any(wire.call.audio)


async def test_a_flood_of_packets_is_not_worked_through() -> None:
    wire = Wire()
    wire.line.start(wire.call)
    payload = VoiceEncoder().encode(silence_pcm(20))
    for number in range(10_000):
        wire.line.receive(packet(number, payload))
    assert len(wire.call.audio) <= MAX_PACKETS * FRAME_BYTES
    await asyncio.sleep(1.1)
    before = len(wire.call.audio)
    wire.line.receive(packet(10_000, payload))
    assert len(wire.call.audio) > before, "and the next second is a new one"
    wire.line.stop()


async def test_a_page_cannot_have_hours_recognised_in_a_minute() -> None:
    wire = Wire()
    wire.line.start(wire.call)
    payload = VoiceEncoder().encode(silence_pcm(20))
    for second in range(3):
        for number in range(300 * second, 300 * second + 300):
            wire.line.receive(Packet(number, (number * 48_000) & 0xFFFFFFFF, payload))
        assert len(wire.call.audio) == (second + 1) * MAX_HEARD_SECONDS * SECOND
        await asyncio.sleep(1.1)
    wire.line.stop()


async def test_packets_before_the_call_and_after_it_go_nowhere() -> None:
    wire = Wire()
    payload = VoiceEncoder().encode(silence_pcm(20))
    wire.line.receive(packet(0, payload))
    wire.line.start(wire.call)
    wire.line.stop()
    wire.line.receive(packet(1, payload))
    assert wire.call.audio == b""
