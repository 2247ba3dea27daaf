"""Speech against the simulated vendor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

import providers.elevenlabs
import providers.elevenlabs_socket
import providers.elevenlabs_utterance as utterances
from providers.base import MULAW_8K, PCM_16K, AudioFormat, SpeechStream, TimedWord
from providers.elevenlabs import ElevenLabsAccess, ElevenLabsSpeech
from providers.errors import Garbled, ProviderError, RateLimited, Refused, TimedOut, Unavailable
from tests.simulators.elevenlabs import ElevenLabsSimulator, Faults, Manner
from wire.config import ElevenLabsVoice

VOICE = ElevenLabsVoice(voice_id="voice-1")

Speech = Callable[..., ElevenLabsSpeech]


@pytest.fixture
async def sim() -> AsyncIterator[ElevenLabsSimulator]:
    async with ElevenLabsSimulator() as running:
        yield running


@pytest.fixture
async def speech(sim: ElevenLabsSimulator) -> AsyncIterator[Speech]:
    """Makes voices of a call that are closed in the end."""
    async with AsyncExitStack() as stack:

        def make(
            voice: ElevenLabsVoice = VOICE, preferred: AudioFormat = MULAW_8K, key: str | None = None
        ) -> ElevenLabsSpeech:
            made = ElevenLabsSpeech(voice, preferred, ElevenLabsAccess(key or sim.key, sim.ws_url))
            stack.push_async_callback(made.aclose)
            return made

        yield make


async def _say(engine: ElevenLabsSpeech, *texts: str) -> SpeechStream:
    stream = engine.open()
    for text in texts:
        await stream.push(text)
    await stream.finish()
    return stream


async def _hear(stream: SpeechStream) -> tuple[bytes, list[TimedWord]]:
    chunks = [chunk async for chunk in stream.chunks()]
    return b"".join([chunk.audio for chunk in chunks]), [word for chunk in chunks for word in chunk.words]


async def _eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for happens in the simulator
            await asyncio.sleep(0.005)


def _loud(audio: bytes, word: TimedWord) -> bool:
    """The word sounds from its start to its end, and not before or after."""
    inside = audio[word.start_ms * 8 : word.end_ms * 8]
    outside = audio[max(word.start_ms - 5, 0) * 8 : word.start_ms * 8] + audio[word.end_ms * 8 : word.end_ms * 8 + 40]
    return b"\xff" not in inside and set(outside) <= {0xFF}


@pytest.mark.proves("row-90")
async def test_settings_reach_the_vendor_once_and_in_its_ranges(sim: ElevenLabsSimulator, speech: Speech) -> None:
    wild = ElevenLabsVoice(voice_id="voice-1", speed=9, stability=0.3, similarity_boost=5, language="en-US")
    await _hear(await _say(speech(wild), "One. ", "Two. "))
    (connection,) = sim.connections
    assert connection.query["model_id"] == "eleven_flash_v2_5"
    assert connection.query["output_format"] == "ulaw_8000"
    assert connection.query["language_code"] == "en"
    assert connection.messages == [
        {
            "context_id": "u1",
            "text": " ",
            "voice_settings": {
                "stability": 0.3,
                "similarity_boost": 1.0,
                "style": 0.0,
                "use_speaker_boost": True,
                "speed": 1.2,
            },
        },
        {"context_id": "u1", "text": "One. ", "flush": True},
        {"context_id": "u1", "text": "Two. ", "flush": True},
        {"context_id": "u1", "close_context": True},
    ]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("alternative", [True, False])
async def test_words_are_timed_where_they_sound(
    sim: ElevenLabsSimulator, speech: Speech, absolute: bool, alternative: bool
) -> None:
    sim.manner = Manner(absolute_times=absolute, alternative_spelling=alternative)
    text = "Certainly, a table for four. Tomorrow at eight? "
    audio, words = await _hear(await _say(speech(), "Certainly, a table for four. ", "Tomorrow at eight? "))
    assert [word.word for word in words] == text.split()
    assert len(audio) == len(text) * 60 * 8
    assert [word for word in words if not _loud(audio, word)] == []


async def test_pcm_cut_inside_samples_is_put_together(sim: ElevenLabsSimulator, speech: Speech) -> None:
    sim.manner = Manner(odd_cuts=True)
    engine = speech(preferred=PCM_16K)
    assert engine.output == PCM_16K
    stream = await _say(engine, "A sentence that needs several chunks. ")
    chunks = [chunk.audio async for chunk in stream.chunks()]
    assert len(chunks) > 3
    assert all(len(chunk) % 2 == 0 for chunk in chunks)
    samples = memoryview(b"".join(chunks)).cast("h")
    assert set(samples) == {8000, -8000, 0}


async def test_one_warm_socket_serves_all_utterances(sim: ElevenLabsSimulator, speech: Speech) -> None:
    engine = speech()
    await engine.warm()
    assert sim.attempts == 1
    for text in ("One.", "Two.", "Three."):
        audio, words = await _hear(await _say(engine, text))
        assert [word.word for word in words] == [text]
        assert audio
    assert len(sim.connections) == 1
    assert {message["context_id"] for message in sim.connections[0].messages} == {"u1", "u2", "u3"}


async def test_audio_is_given_while_the_text_is_still_coming(speech: Speech) -> None:
    stream = speech().open()
    await stream.push("The first sentence. ")
    chunks = aiter(stream.chunks())
    assert (await anext(chunks)).audio
    await stream.push("The second one.")
    await stream.finish()
    words = [word.word async for chunk in chunks for word in chunk.words]
    assert words[-2:] == ["second", "one."]


@pytest.mark.parametrize("texts", [(), ("  ",), ("…", "?! ")])
async def test_an_utterance_without_words_ends_without_a_sound(
    sim: ElevenLabsSimulator, speech: Speech, texts: tuple[str, ...]
) -> None:
    assert await _hear(await _say(speech(), *texts)) == (b"", [])
    assert not any(connection.messages for connection in sim.connections)


async def test_after_cancel_nothing_more_is_heard_and_the_next_utterance_is_clean(
    sim: ElevenLabsSimulator, speech: Speech
) -> None:
    engine = speech()
    sim.manner = Manner(message_delay=0.02)
    first = engine.open()
    await first.push("A very long sentence that nobody will want to hear until its end. ")
    chunks = aiter(first.chunks())
    await anext(chunks)
    await first.cancel()
    await first.cancel()
    assert [chunk async for chunk in chunks] == []
    await first.push("ignored")
    audio, words = await _hear(await _say(engine, "Yes?"))
    assert [word.word for word in words] == ["Yes?"]
    assert len(audio) == 5 * 60 * 8
    assert len(sim.connections) == 1
    closes = [message["context_id"] for message in sim.connections[0].messages if message.get("close_context")]
    assert closes == ["u1", "u2"]


async def test_rapid_barge_ins_never_exceed_the_vendors_contexts(sim: ElevenLabsSimulator, speech: Speech) -> None:
    sim.manner = Manner(final_delay=0.1)
    engine = speech()
    for _ in range(12):
        stream = engine.open()
        await stream.push("Never mind. ")
        await stream.cancel()
    audio, _ = await _hear(await _say(engine, "Still here."))
    assert audio
    assert not any(connection.close_code == 1008 for connection in sim.connections)
    assert len(sim.connections) == 1


async def test_contexts_that_never_end_are_left_behind_with_their_socket(
    sim: ElevenLabsSimulator, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.elevenlabs, "ROOM_S", 0.05)
    sim.faults = lambda number: Faults(never_final=number == 0)
    engine = speech()
    for _ in range(5):
        stream = engine.open()
        await stream.push("Never mind. ")
        await stream.cancel()
    audio, _ = await _hear(await _say(engine, "Still here."))
    assert audio
    assert len(sim.connections) == 2
    await _eventually(lambda: sim.connections[0].close_code == 1000)


async def test_silence_before_the_first_audio_is_cured_by_a_fresh_socket(
    sim: ElevenLabsSimulator, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utterances, "FIRST_AUDIO_S", 0.1)
    sim.faults = lambda number: Faults(stall_after=0) if number == 0 else Faults()
    engine = speech()
    stream = engine.open()
    await stream.push("One. ")
    hearing = asyncio.create_task(_hear(stream))
    await _eventually(lambda: len(sim.connections) == 2)
    await stream.push("Two.")
    await stream.finish()
    _, words = await hearing
    assert [word.word for word in words] == ["One.", "Two."]


async def test_silence_twice_is_a_timeout(
    sim: ElevenLabsSimulator, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utterances, "FIRST_AUDIO_S", 0.1)
    sim.faults = lambda number: Faults(stall_after=0)
    stream = await _say(speech(), "Hello?")
    with pytest.raises(TimedOut) as failed:
        await _hear(stream)
    assert failed.value.code == "TTS_ERROR"
    assert sim.attempts == 2


async def test_silence_in_the_middle_is_a_timeout_and_the_next_utterance_gets_a_fresh_socket(
    sim: ElevenLabsSimulator, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utterances, "SILENCE_S", 0.1)
    sim.faults = lambda number: Faults(stall_after=1) if number == 0 else Faults()
    engine = speech()
    stream = await _say(engine, "A sentence of several chunks.")
    with pytest.raises(TimedOut, match="silent"):
        await _hear(stream)
    audio, _ = await _hear(await _say(engine, "Again."))
    assert audio
    assert len(sim.connections) == 2


async def test_waiting_for_more_text_is_no_silence(speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterances, "SILENCE_S", 0.05)
    stream = speech().open()
    await stream.push("One. ")
    chunks = aiter(stream.chunks())
    await anext(chunks)
    more = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0.15)
    assert not more.done()
    await stream.push("Two.")
    assert (await more).audio
    await stream.cancel()


async def test_a_socket_lost_after_the_first_audio_ends_the_utterance_and_the_next_reconnects(
    sim: ElevenLabsSimulator, speech: Speech
) -> None:
    sim.faults = lambda number: Faults(drop_after=1) if number == 0 else Faults()
    engine = speech()
    stream = await _say(engine, "A sentence of several chunks.")
    chunks = aiter(stream.chunks())
    assert (await anext(chunks)).audio
    with pytest.raises(Unavailable):
        await anext(chunks)
    with pytest.raises(Unavailable):
        await stream.push("More")
    audio, _ = await _hear(await _say(engine, "Again."))
    assert audio


@pytest.mark.parametrize("fault", [Faults(drop_after=0), Faults(garbage=True), Faults(handshake_status=503)])
async def test_a_socket_lost_before_the_first_audio_is_replaced_once_unheard(
    sim: ElevenLabsSimulator, speech: Speech, fault: Faults
) -> None:
    sim.faults = lambda number: fault if number == 0 else Faults()
    _, words = await _hear(await _say(speech(), "Hello there."))
    assert [word.word for word in words] == ["Hello", "there."]
    assert sim.attempts == 2


async def test_garbage_twice_is_garbled(sim: ElevenLabsSimulator, speech: Speech) -> None:
    sim.faults = lambda number: Faults(garbage=True)
    stream = await _say(speech(), "Hello?")
    with pytest.raises(Garbled):
        await _hear(stream)


def _bad_key(sim: ElevenLabsSimulator, speech: Speech) -> ElevenLabsSpeech:
    return speech(key="wrong-secret")


def _bad_voice(sim: ElevenLabsSimulator, speech: Speech) -> ElevenLabsSpeech:
    return speech(ElevenLabsVoice(voice_id="nobody"))


def _overloaded(sim: ElevenLabsSimulator, speech: Speech) -> ElevenLabsSpeech:
    sim.faults = lambda number: Faults(handshake_status=429, retry_after="9")
    return speech()


def _busy(sim: ElevenLabsSimulator, speech: Speech) -> ElevenLabsSpeech:
    sim.faults = lambda number: Faults(error={"error": "system_busy", "message": "busy", "code": 1008})
    return speech()


def _voice_gone(sim: ElevenLabsSimulator, speech: Speech) -> ElevenLabsSpeech:
    sim.faults = lambda number: Faults(close_reason="A voice with voice_id voice-1 does not exist")
    return speech()


@pytest.mark.parametrize(
    ("setting", "kind", "attempts"),
    [(_bad_key, Refused, 1), (_bad_voice, Refused, 1), (_overloaded, RateLimited, 1), (_busy, RateLimited, 2),
     (_voice_gone, Refused, 1)],
)  # fmt: skip
async def test_refusals_are_told_apart_and_only_what_may_pass_is_tried_again(
    sim: ElevenLabsSimulator,
    speech: Speech,
    setting: Callable[[ElevenLabsSimulator, Speech], ElevenLabsSpeech],
    kind: type[ProviderError],
    attempts: int,
) -> None:
    engine = setting(sim, speech)
    stream = engine.open()

    async def attempt() -> None:
        await stream.push("Hello?")
        await stream.finish()
        await _hear(stream)

    with pytest.raises(kind) as failed:
        await attempt()
    assert failed.value.code == "TTS_ERROR"
    assert "secret" not in str(failed.value)
    assert sim.attempts == attempts


async def test_warming_an_absent_vendor_is_no_error_but_speaking_tells() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    engine = ElevenLabsSpeech(VOICE, MULAW_8K, ElevenLabsAccess("key", f"ws://127.0.0.1:{port}"))
    await engine.warm()
    with pytest.raises(Unavailable):
        await engine.open().push("Hello?")
    await engine.aclose()


async def test_idle_sockets_and_contexts_that_wait_for_text_are_kept_alive(
    sim: ElevenLabsSimulator, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.elevenlabs_socket, "KEEP_ALIVE_S", 0.02)
    sim.manner = Manner(final_delay=0.1)
    engine = speech()
    await engine.warm()
    await _eventually(lambda: sim.connections[0].messages[:2] == [{"text": ""}, {"text": ""}])
    stream = engine.open()
    await stream.push("One. ")
    of_the_context = {"context_id": "u1", "text": ""}
    await _eventually(lambda: sim.connections[0].messages.count(of_the_context) >= 3)
    await stream.finish()
    _, words = await _hear(stream)
    assert [word.word for word in words] == ["One."]
    messages = sim.connections[0].messages
    assert of_the_context not in messages[messages.index({"context_id": "u1", "close_context": True}) :]


@pytest.mark.parametrize("when", ["idle", "connecting", "speaking"])
async def test_closing_leaves_no_task_and_no_connection_behind(sim: ElevenLabsSimulator, when: str) -> None:
    before = asyncio.all_tasks()
    engine = ElevenLabsSpeech(VOICE, MULAW_8K, ElevenLabsAccess(sim.key, sim.ws_url))
    waiting: Awaitable[object] | None = None
    if when == "connecting":
        sim.faults = lambda number: Faults(handshake_delay=0.2)
        waiting = asyncio.create_task(engine.open().push("Hello"))
        await _eventually(lambda: sim.attempts == 1)
    elif when == "speaking":
        sim.faults = lambda number: Faults(stall_after=0)
        waiting = asyncio.create_task(_hear(await _say(engine, "Hello")))
        await asyncio.sleep(0)
    else:
        await engine.warm()
    await engine.aclose()
    await engine.aclose()
    if waiting is not None:
        with pytest.raises(Unavailable):
            await waiting
    await _eventually(lambda: all(connection.close_code for connection in sim.connections))
    await _eventually(lambda: not {task for task in asyncio.all_tasks() - before if "elevenlabs" in task.get_name()})


async def test_cancel_while_connecting_opens_no_context(sim: ElevenLabsSimulator, speech: Speech) -> None:
    sim.faults = lambda number: Faults(handshake_delay=0.1)
    stream = speech().open()
    pushing = asyncio.create_task(stream.push("Hello"))
    await _eventually(lambda: sim.attempts == 1)
    await stream.cancel()
    await pushing
    assert await _hear(stream) == (b"", [])
    assert sim.connections[0].messages == []


def test_the_key_is_not_in_any_repr() -> None:
    assert "secret" not in repr(ElevenLabsAccess("secret", "wss://api.elevenlabs.io"))
