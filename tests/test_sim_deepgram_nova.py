"""The Nova simulator speaks the true wire: Deepgram's own client reads it, and it refuses what Nova refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
from deepgram.listen.v1.types.listen_v1results import ListenV1Results
from deepgram.listen.v1.types.listen_v1speech_started import ListenV1SpeechStarted
from deepgram.listen.v1.types.listen_v1utterance_end import ListenV1UtteranceEnd
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.simulators.deepgram_nova import Closing, Line, NovaSimulator
from tests.virtual_time import event_loop_policy as event_loop_policy

LOUD = b"\x10" * 160
QUIET = b"\xff" * 160
RAW = {"model": "nova-3", "encoding": "mulaw", "sample_rate": "8000"}
TALK = RAW | {"interim_results": "true", "endpointing": "300", "utterance_end_ms": "1000", "smart_format": "true"}


def official_client(sim: NovaSimulator) -> AsyncDeepgramClient:
    nowhere = "http://127.0.0.1:9"
    there = DeepgramClientEnvironment(base=nowhere, production=sim.url, agent=nowhere, agent_rest=nowhere)
    return AsyncDeepgramClient(api_key=sim.key, environment=there)


def open_raw(sim: NovaSimulator, query: dict[str, Any], key: str | None = None) -> connect:
    address = f"{sim.url}/v1/listen?" + "&".join(f"{name}={value}" for name, value in query.items())
    return connect(address, additional_headers={"Authorization": f"Token {key or sim.key}"}, compression=None)


async def read_all(socket: ClientConnection) -> tuple[list[dict[str, Any]], Close | None]:
    """Everything up to the end, and the close frame that came."""
    messages: list[dict[str, Any]] = []
    try:
        while True:
            messages.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        return messages, closed.rcvd


@pytest.fixture
async def sim() -> AsyncIterator[NovaSimulator]:
    async with NovaSimulator([Line("Book a table | for two."), Line("Thank you.", Closing.NOISE)]) as simulator:
        yield simulator


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_reads_a_whole_utterance(sim: NovaSimulator) -> None:
    results: list[ListenV1Results] = []
    others: list[object] = []
    client = official_client(sim)
    async with (
        client.listen.v1.connect(
            model="nova-3",
            language="multi",
            encoding="mulaw",
            sample_rate=8000,
            interim_results="true",
            endpointing=300,
            utterance_end_ms=1000,
            vad_events="true",
            punctuate="true",
            keyterm=["Riviera", "Trattoria"],
        ) as stream,
        asyncio.timeout(10),
    ):
        await stream.send_media(LOUD * 60 + QUIET * 80)
        while not others or not isinstance(others[-1], ListenV1UtteranceEnd):
            message = await stream.recv()
            if isinstance(message, ListenV1Results):
                results.append(message)
            else:
                others.append(message)
    assert isinstance(others[0], ListenV1SpeechStarted)
    finals = [message for message in results if message.is_final]
    assert [message.channel.alternatives[0].transcript for message in finals] == ["Book a table", "for two."]
    assert [message.speech_final for message in finals] == [False, True]
    assert any(not message.is_final for message in results)
    assert finals[0].start + finals[0].duration == pytest.approx(finals[1].start)
    best = finals[1].channel.alternatives[0]
    assert [(word.word, word.punctuated_word) for word in best.words] == [("for", "for"), ("two", "two.")]
    assert best.languages == ["en"]
    assert all(finals[1].start - 0.1 <= word.start < word.end for word in best.words)
    assert sim.connections[0].query["keyterm"] == ["Riviera", "Trattoria"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_finalizes_keeps_alive_and_closes(sim: NovaSimulator) -> None:
    client = official_client(sim)
    async with client.listen.v1.connect(model="nova-3", encoding="mulaw", sample_rate=8000) as stream:
        async with asyncio.timeout(10):
            await stream.send_media(LOUD * 20)
            await stream.send_finalize()
            result = await stream.recv()
            assert isinstance(result, ListenV1Results)
            assert (result.is_final, result.from_finalize) == (True, True)
            assert result.channel.alternatives[0].transcript == "book a table"
            await stream.send_keep_alive()
            await stream.send_close_stream()
            rest = [message async for message in stream]
    assert isinstance(rest[0], ListenV1Results)
    assert isinstance(rest[-1], ListenV1Metadata)
    assert rest[-1].duration == pytest.approx(0.4)
    kinds = [message["type"] for message in sim.connections[0].messages]
    assert kinds == ["Finalize", "KeepAlive", "CloseStream"]


async def test_close_stream_flushes_tells_the_duration_and_closes_normally(sim: NovaSimulator) -> None:
    async with open_raw(sim, TALK) as socket:
        await socket.send(LOUD * 20)
        await socket.send('{"type":"CloseStream"}')
        messages, close = await read_all(socket)
    assert [message["type"] for message in messages][-2:] == ["Results", "Metadata"]
    assert messages[-2]["is_final"]
    assert close is not None
    assert close.code == 1000


async def test_noise_leaves_the_end_to_utterance_end() -> None:
    async with NovaSimulator([Line("Thank you.", Closing.NOISE)]) as sim, open_raw(sim, TALK) as socket:
        await socket.send(LOUD * 40 + QUIET * 80)
        await socket.send('{"type":"CloseStream"}')
        messages, _ = await read_all(socket)
    results = [message for message in messages if message["type"] == "Results"]
    assert not any(message["speech_final"] for message in results)
    ends = [message["last_word_end"] for message in messages if message["type"] == "UtteranceEnd"]
    assert ends == [results[-1]["channel"]["alternatives"][0]["words"][-1]["end"]]


async def test_words_and_segments_are_timed_from_the_beginning_of_the_stream() -> None:
    async with NovaSimulator([Line("one two", at_ms=2000)]) as sim, open_raw(sim, TALK) as socket:
        await socket.send(QUIET * 200)
        await socket.send('{"type":"CloseStream"}')
        messages, _ = await read_all(socket)
    final = next(message for message in messages if message.get("speech_final"))
    words = final["channel"]["alternatives"][0]["words"]
    assert [word["start"] for word in words] == [pytest.approx(2.0), pytest.approx(2.5)]


async def test_after_ten_seconds_without_audio_or_keep_alive_the_line_is_cut(sim: NovaSimulator) -> None:
    loop = asyncio.get_running_loop()
    async with open_raw(sim, TALK) as socket:
        await socket.send(QUIET)
        began = loop.time()
        for _ in range(3):
            await asyncio.sleep(8)
            await socket.send('{"type":"KeepAlive"}')
        _, close = await read_all(socket)
    assert loop.time() - began == pytest.approx(34, abs=1)
    assert close is not None
    assert (close.code, close.reason[:8]) == (1011, "NET-0001")


async def test_keep_alive_before_any_audio_keeps_nothing_alive(sim: NovaSimulator) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with open_raw(sim, TALK) as socket:
        await asyncio.sleep(5)
        await socket.send('{"type":"KeepAlive"}')
        await read_all(socket)
    assert loop.time() - began == pytest.approx(10, abs=1)


@pytest.mark.parametrize("message", [b"", b'{"type":"KeepAlive"}', '{"type":"ForceEndTurn"}'], ids=str)
async def test_what_is_no_audio_and_no_message_ends_the_stream(sim: NovaSimulator, message: str | bytes) -> None:
    async with open_raw(sim, TALK) as socket:
        await socket.send(message)
        _, close = await read_all(socket)
    assert close is not None
    assert close.code == 1008
    assert sim.refused[0].startswith("1008")


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": None},
        {"encoding": None},
        {"model": None},
        {"model": "flux-general-en"},
        {"language": "es-AR"},
        {"smart_format": "True"},
        {"eot_threshold": "0.5"},
        {"keywords": "pinecall:2"},
        {"model": "nova-2", "keyterm": "Pinecall"},
        {"model": "nova-2", "keywords": "a:b"},
        {"keyterm": ""},
        {"utterance_end_ms": "999"},
        {"interim_results": "false"},
        {"endpointing": "soon"},
    ],
    ids=str,
)
async def test_what_nova_refuses_is_refused(sim: NovaSimulator, wrong: dict[str, str | None]) -> None:
    query = {name: value for name, value in (TALK | wrong).items() if value is not None}
    with pytest.raises(InvalidStatus) as refusal:
        async with open_raw(sim, query):
            pass
    assert refusal.value.response.status_code == 400


async def test_a_wrong_key_is_refused(sim: NovaSimulator) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with open_raw(sim, TALK, key="wrong"):
            pass
    assert refusal.value.response.status_code == 401
