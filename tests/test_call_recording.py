"""Recordings of whole calls: what is in them, when they come, and that large ones trouble nobody."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.caller import Happening, SoftwareCaller
from pipelines.audio import ulaw
from pipelines.soundtrack import Soundtrack
from providers.base import MULAW_8K, PCM_16K, AudioFormat
from server.agents.outbox import HARD_LIMIT, RECORDINGS_LIMIT, LargeFrame, Outbox
from server.store.base import AgentKey
from tests import client_rig
from tests.call_facts import TABLE, ended, lawful, moments
from tests.call_facts import faultless as faultless
from tests.call_scenes import take_turn
from tests.listening import delay, hearing, power_db, samples
from tests.phone_rig import Agent, Frame, names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.speech import noise_pcm, say_mulaw, tone_pcm
from tests.test_resolve import call as resolved
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.events import CallEnded, CallRecording, MessageConfirmed
from wire.recording import MAX_PAYLOAD, WavSound

RECORDED = {"recording": True}
LONG = "This is a rather long answer that goes on for several seconds so that somebody can talk over it."


def decoded(frame: Frame) -> NDArray[np.int16]:
    """The samples, after everything that is said of them was checked."""
    assert frame["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(frame["audio"], validate=True))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, frame["sample_rate"])
        pcm = sound.readframes(sound.getnframes())
    assert frame["duration_ms"] == len(pcm) // 2 * 1000 // frame["sample_rate"]
    return samples(pcm)


def beside(caller: SoftwareCaller) -> NDArray[np.int16]:
    """What somebody beside the caller heard: what the telephone played and what was said into it."""
    heard, said = (samples(ulaw.decode(bytes(side))).astype(int) for side in (caller.heard, caller.said))
    length = max(len(heard), len(said))
    both = np.pad(heard, (0, length - len(heard))) + np.pad(said, (0, length - len(said)))
    return np.clip(both, -32768, 32767).astype(np.int16)


async def recording_of(agent: Agent, caller: SoftwareCaller) -> Frame:
    await caller.hang_up()
    frame = await agent.wait("call.recording")
    assert (await agent.wait("call.ended"))["call_id"] == frame["call_id"]
    return frame


@pytest.mark.proves("row-144", "row-141", "row-93")
async def test_the_recording_is_what_somebody_beside_the_caller_heard(faultless: list[dict[str, object]]) -> None:
    async with running([Say(TABLE)]) as rig:
        agent = await rig.agent(media=RECORDED)
        caller, call_id = await rig.call(agent)
        await agent.say(call_id, "Hello, how can I help you?", "m1")
        await caller.wait_bot_done()
        end = await take_turn(agent, caller, TABLE)
        await agent.say(call_id, "A table for two, certainly.", "m2", end["message_id"])
        await caller.wait_bot_done()
        await caller.hang_up()
        await agent.wait("call.ended")
        told = agent.of_call(call_id)
        lawful(told)
        assert names(told)[-2:] == ["call.recording", "call.ended"]
        mix, real = decoded(told[-2]), beside(caller)
        assert len(mix) / 8000 == pytest.approx(told[-1]["duration_seconds"], abs=0.1)
        assert len(mix) / 8000 == pytest.approx(len(real) / 8000, abs=0.1)
        loud = np.flatnonzero(np.abs(real) > 400)
        # Each stretch of sound, whosever it is, lies where it was heard, and is the same sample by sample.
        for at in (int(loud[0]), int(loud[len(loud) // 2]), int(loud[-1]) - 4000):
            part = real[at : at + 4000]
            off = delay(part, mix, at, 1600)
            assert abs(off) <= 400
            assert np.corrcoef(mix[at + off : at + off + 4000], part)[0, 1] > 0.999
        quiet = np.abs(mix) <= 8
        assert quiet.mean() == pytest.approx((np.abs(real) <= 8).mean(), abs=0.02)


@pytest.mark.proves("row-142", "row-141")
async def test_what_an_interruption_took_back_is_not_in_the_recording() -> None:
    async with running([Say("no wait for three")]) as rig:
        agent = await rig.agent(media=RECORDED)
        caller, call_id = await rig.call(agent)
        await agent.say(call_id, LONG, "m1")
        await caller.wait_bot_audible()
        await asyncio.sleep(2.5)
        caller.say(say_mulaw("no wait for three"))
        await agent.wait("bot.interrupted")
        await caller.wait_said()
        await asyncio.sleep(2)
        frame = await recording_of(agent, caller)
        mix, real = decoded(frame), beside(caller)
        stopped = round((moments(caller, Happening.CLEARED)[0] - moments(caller, Happening.ANSWERED)[0]) * 8000)
        at = stopped - 8000
        off = delay(real[at:stopped], mix, at, 1600)
        assert abs(off) <= 400
        after = real[stopped : stopped + 8000]
        assert np.abs(mix[stopped + off : stopped + off + 8000].astype(int) - after).max() <= 400


@pytest.mark.proves("row-93")
async def test_music_and_a_caller_who_is_not_listened_to_are_recorded_too() -> None:
    async with running() as rig:
        agent = await rig.agent(media=RECORDED)
        caller, call_id = await rig.call(agent)
        await agent.ask("call.mute", "call.muted", call_id=call_id)
        caller.say(ulaw.encode(tone_pcm(1000, 1000, 8000, -20.0)))
        await caller.wait_said()
        await agent.ask("call.unmute", "call.unmuted", call_id=call_id)
        await agent.ask("call.hold", "call.held", call_id=call_id)
        held_at = moments(caller, Happening.ANSWERED)[0]
        began = asyncio.get_running_loop().time() - held_at
        await asyncio.sleep(4)
        await agent.ask("call.unhold", "call.unheld", call_id=call_id)
        mix, real = decoded(await recording_of(agent, caller)), beside(caller)
        assert power_db(mix[2400:6400], 1000, 8000) == pytest.approx(-20.0, abs=0.5)
        at = round((began + 1) * 8000)
        off = delay(real[at : at + 16000], mix, at, 800)
        assert abs(off) <= 400
        assert np.corrcoef(mix[at + off : at + off + 16000], real[at : at + 16000])[0, 1] > 0.999


@pytest.mark.proves("row-143")
async def test_recording_stops_at_its_limit_and_listening_goes_on() -> None:
    async with running() as rig:
        agent = await rig.agent(media={"live": True, "recording": True, "maxDurationSeconds": 2})
        caller, call_id = await rig.call(agent)
        async with hearing(rig, call_id) as ear:
            caller.say(ulaw.encode(tone_pcm(700, 6000, 8000, -20.0)))
            await caller.wait_said()
            await asyncio.sleep(0.3)
            frame = await recording_of(agent, caller)
        assert frame["duration_ms"] == 2000
        assert power_db(decoded(frame)[2000:], 700, 8000) == pytest.approx(-20.0, abs=0.5)
        assert power_db(samples(ear.sound)[24000:40000], 700, 8000) == pytest.approx(-20.0, abs=0.5)
        assert len(ear.sound) / 16000 == pytest.approx(6.3, abs=0.3)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, False),
        ({"media": {"live": True}}, False),
        ({"media": {"recording": True}}, True),
        ({"config": {"analysis": {"recording": True}}}, True),
        ({"media": {"recording": True, "max_duration_seconds": 0}}, False),
    ],
)
async def test_a_recording_comes_only_when_it_was_asked_for(config: dict[str, Any], told: bool) -> None:
    async with running() as rig:
        agent = await rig.agent(**config)
        caller, call_id = await rig.call(agent)
        await asyncio.sleep(1)
        await caller.hang_up()
        await ended(agent, call_id)
        assert ("call.recording" in names(agent.of_call(call_id))) == told


async def test_a_channel_may_record_what_its_agent_does_not() -> None:
    async with running() as rig:
        agent = await rig.agent("mara", "+15551230001")
        added = await agent.ask(
            "channel.add",
            "channel.added",
            agent_id="mara",
            type="phone",
            ref="+15551230002",
            config={"media": {"recording": True, "maxDurationSeconds": 1}},
        )
        assert added["ref"] == "+15551230002"
        for number, told in (("+15551230001", False), ("+15551230002", True)):
            caller, call_id = await rig.call(agent, number)
            await asyncio.sleep(3)
            await caller.hang_up()
            await ended(agent, call_id)
            frames = [frame for frame in agent.of_call(call_id) if frame["event"] == "call.recording"]
            assert [frame["duration_ms"] for frame in frames] == ([1000] if told else [])


async def test_recording_that_is_paused_leaves_silence_of_the_same_length() -> None:
    async with running() as rig:
        agent = await rig.agent(media={**RECORDED, "live": True})
        caller, call_id = await rig.call(agent)
        caller.say(ulaw.encode(tone_pcm(500, 6000, 8000, -20.0)))
        await asyncio.sleep(2)
        await agent.ask("session.configure", "session.configured", call_id=call_id, media={"recording": False})
        await asyncio.sleep(2)
        await agent.ask("session.configure", "session.configured", call_id=call_id, media={"recording": True})
        await caller.wait_said()
        mix = decoded(await recording_of(agent, caller))
        loud = np.abs(mix) > 400
        assert loud[4000:12000].mean() > 0.8
        assert not loud[17600:28800].any()
        assert loud[36000:44000].mean() > 0.8
        assert len(mix) / 8000 == pytest.approx(6.0, abs=0.3)


async def test_a_recording_that_is_off_at_the_end_is_not_told() -> None:
    async with running() as rig:
        agent = await rig.agent(media=RECORDED)
        caller, call_id = await rig.call(agent)
        await asyncio.sleep(2)
        await agent.ask("session.configure", "session.configured", call_id=call_id, media={"recording": False})
        await caller.hang_up()
        await ended(agent, call_id)
        assert "call.recording" not in names(agent.of_call(call_id))


async def test_a_cap_beyond_what_clients_take_is_refused_when_the_agent_registers() -> None:
    async with running() as rig:
        agent = await rig.connected()
        media = {"recording": True, "maxDurationSeconds": 3600}
        refused = await agent.ask("agent.create", "error", agent_id="mara", media=media)
        assert refused["code"] == "REGISTRATION_ERROR"
        assert "media.max_duration_seconds" in refused["error"]
        await agent.ask("agent.create", "agent.created", agent_id="mara", media={**media, "maxDurationSeconds": 2400})


@pytest.mark.parametrize("rate", [8000, 16000])
def test_the_longest_recording_fits_into_what_clients_take(rate: int) -> None:
    longest = resolved({"media": {"recording": True, "maxDurationSeconds": 2400}}).media.max_duration_seconds
    sound = WavSound(bytes(2 * rate * longest), rate)
    frame = LargeFrame.of(CallRecording(audio=sound, duration_ms=longest * 1000, sample_rate=rate))
    assert frame.size < MAX_PAYLOAD


# --- the soundtrack, on any line ---


class SilentLine:
    """A medium that takes everything."""

    def __init__(self, audio: AudioFormat) -> None:
        self.audio = audio

    def send_audio(self, audio: bytes) -> None: ...

    def send_mark(self, name: str) -> None: ...

    def send_clear(self) -> None: ...

    async def hang_up(self) -> None: ...


class HandClock:
    """Time that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


@pytest.mark.proves("row-137", "row-93")
@pytest.mark.parametrize(("line", "rate"), [(MULAW_8K, 8000), (PCM_16K, 16000)])
def test_a_call_is_recorded_and_played_at_the_rate_of_its_line(line: AudioFormat, rate: int) -> None:
    clock = HandClock()
    track = Soundtrack(SilentLine(line), clock)
    played = Played()
    track.begin()
    track.configure(resolved({"media": {"live": True, "recording": True}}))
    track.attend(played)
    caller, bot = (tone_pcm(hz, 3000, rate, -20.0) for hz in (440, 1300))
    size = rate // 50 * 2
    encode = ulaw.encode if line == MULAW_8K else bytes
    for at in range(0, len(caller), size):
        track.send_audio(encode(bot[at : at + size]))
        clock.time += 0.02
        track.heard(encode(caller[at : at + size]))
        track.beat(clock.time)
    told = track.end()
    assert told is not None
    assert played.ended
    assert {len(one) for one in played.slices} == {rate // 10}
    assert b"".join(played.slices) == bytes(told.audio.pcm)
    mix = samples(bytes(told.audio.pcm))
    assert len(mix) == pytest.approx(3 * rate, abs=rate // 20)
    for hz in (440, 1300):
        assert power_db(mix[rate // 2 : 2 * rate], hz, rate) == pytest.approx(-20.0, abs=0.3)
    assert power_db(mix[rate // 2 : 2 * rate], 2500, rate) < -50


class Played:
    """An audience that keeps what it hears."""

    def __init__(self) -> None:
        self.slices: list[bytes] = []
        self.ended = 0

    def take(self, mixed: bytes) -> None:
        assert not self.ended
        self.slices.append(mixed)

    def over(self) -> None:
        self.ended += 1


def test_nothing_is_mixed_while_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a mixer was made")

    monkeypatch.setattr("pipelines.soundtrack.Mixer", refuse)
    track = Soundtrack(SilentLine(MULAW_8K), HandClock())
    track.begin()
    track.configure(resolved({}))
    track.heard(b"\xff" * 160)
    track.send_audio(b"\xff" * 160)
    track.beat(101.0)
    assert track.end() is None
    with pytest.raises(AssertionError, match="a mixer was made"):
        track.configure(resolved({"media": {"live": True}}))


# --- a large one on its way ---


def recording(call_id: str, seconds: float, rate: int = 8000) -> CallRecording:
    event = CallRecording(
        audio=WavSound(noise_pcm(1000, -20.0, rate) * int(seconds), rate),
        duration_ms=int(seconds * 1000),
        sample_rate=rate,
    )
    event.call_id = call_id
    return event


def call_ended(call_id: str) -> CallEnded:
    event = CallEnded(
        reason="hangup",
        from_="a",
        to="b",
        direction="inbound",
        metadata={},
        messages=[],
        duration_seconds=1.0,
        started_at=1.0,
        ended_at=2.0,
    )
    event.call_id = call_id
    return event


async def emptied(outbox: Outbox) -> list[Frame]:
    outbox.close()
    frames: list[Frame] = []
    while (frame := await outbox.next()) is not None:
        frames.append(json.loads(frame if isinstance(frame, bytes) else b"".join(frame.pieces())))
    return frames


@pytest.mark.parametrize("size", [0, 1, 2, 49106, 49107, 49108, 49109, 200_000])
def test_the_pieces_of_a_recording_are_its_frame(size: int) -> None:
    pcm = (bytes(range(256)) * (size // 256 + 1))[:size]
    event = CallRecording(audio=WavSound(pcm, 8000), duration_ms=5, sample_rate=8000)
    event.agent_id = 'with "audio":"" in it'
    frame = LargeFrame.of(event)
    text = b"".join(frame.pieces())
    assert len(text) == frame.size
    told = json.loads(text)
    assert list(told) == [
        *("event", "agent_id", "call_id", "session_id", "ts", "seq"),
        *("audio", "duration_ms", "sample_rate", "format"),
    ]
    assert told["agent_id"] == event.agent_id
    sound = base64.b64decode(told["audio"], validate=True)
    assert sound[44:] == pcm
    assert sound[:4] == b"RIFF"


async def test_recordings_go_last_and_their_calls_end_after_them() -> None:
    outbox = Outbox()
    assert outbox.put(MessageConfirmed(message_id="m", text="before"))
    assert outbox.put(recording("CA1", 2))
    assert outbox.put(call_ended("CA1"))
    assert outbox.put(MessageConfirmed(message_id="m", text="of another call"))
    assert outbox.put(call_ended("CA2"))
    told = [(frame["event"], frame["call_id"]) for frame in await emptied(outbox)]
    assert told == [
        ("message.confirmed", ""),
        ("message.confirmed", ""),
        ("call.ended", "CA2"),
        ("call.recording", "CA1"),
        ("call.ended", "CA1"),
    ]
    assert outbox.size == outbox.recordings_size == 0


async def test_a_recording_larger_than_all_else_may_be_is_no_slow_reader() -> None:
    outbox = Outbox()
    assert outbox.put(recording("CA1", 1800))
    assert outbox.recordings_size > 2 * HARD_LIMIT
    assert outbox.size == 0
    outbox.close(discard=True)
    assert await outbox.next() is None


async def test_recordings_nobody_fetches_are_left_out_in_the_end_and_that_is_told() -> None:
    outbox = Outbox()
    sound = WavSound(bytes(48_000_000), 8000)
    kept = RECORDINGS_LIMIT // (len(sound) + 1000)
    for call_id in [*(f"CA{number}" for number in range(kept)), "CAlast"]:
        event = CallRecording(audio=sound, duration_ms=1, sample_rate=8000)
        event.call_id = event.session_id = call_id
        assert outbox.put(event)
    assert outbox.put(call_ended("CAlast"))
    first, second = await outbox.next(), await outbox.next()
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    error = json.loads(first)
    assert (error["event"], error["code"], error["call_id"]) == ("error", "RECORDING_ERROR", "CAlast")
    assert json.loads(second)["call_id"] == "CAlast"
    assert len(outbox) == kept


async def test_a_large_recording_is_sent_in_fragments_between_which_others_run() -> None:
    async with client_rig.running() as rig:
        client = await rig.agent("mara")
        agent = rig.registry.find(AgentKey("org_main", "mara"))
        assert agent is not None
        assert agent.link is not None
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(others())
        agent.link.deliver(recording("CA1", 300))
        agent.link.deliver(call_ended("CA1"))
        frame = await client.receive()
        during = turns
        counting.cancel()
        assert frame["event"] == "call.recording"
        assert len(base64.b64decode(frame["audio"])) == 44 + 4_800_000
        assert during >= 4_800_000 / 48_000
        assert (await client.receive())["event"] == "call.ended"
