"""The Flux simulator speaks the true wire: Deepgram's own client reads it, and it refuses what Flux refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v2.socket_client import AsyncV2SocketClient
from deepgram.listen.v2.types.listen_v2configure_success import ListenV2ConfigureSuccess
from deepgram.listen.v2.types.listen_v2connected import ListenV2Connected
from deepgram.listen.v2.types.listen_v2turn_info import ListenV2TurnInfo
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.simulators.deepgram_flux import Ending, FluxSimulator, Say

LOUD = b"\x10" * 160
QUIET = b"\xff" * 160
WORKING = {"model": "flux-general-en", "encoding": "mulaw", "sample_rate": "8000"}


def official_client(sim: FluxSimulator) -> AsyncDeepgramClient:
    nowhere = "http://127.0.0.1:9"
    there = DeepgramClientEnvironment(base=nowhere, production=sim.url, agent=nowhere, agent_rest=nowhere)
    return AsyncDeepgramClient(api_key=sim.key, environment=there)


async def next_report(stream: AsyncV2SocketClient) -> ListenV2TurnInfo:
    message = await stream.recv()
    assert isinstance(message, ListenV2TurnInfo)
    return message


async def read_all(socket: ClientConnection) -> tuple[list[dict[str, Any]], Close | None]:
    """Everything up to the end, and the close frame that came."""
    messages: list[dict[str, Any]] = []
    try:
        while True:
            messages.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        return messages, closed.rcvd


@pytest.fixture
async def sim() -> AsyncIterator[FluxSimulator]:
    async with FluxSimulator([Say("book a table for two"), Say("thank you", Ending.RESUMED)]) as simulator:
        yield simulator


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_reads_a_whole_turn(sim: FluxSimulator) -> None:
    seen: list[ListenV2TurnInfo] = []
    client = official_client(sim)
    async with (
        client.listen.v2.connect(
            model="flux-general-en", encoding="mulaw", sample_rate=8000, eager_eot_threshold=0.5, eot_threshold=0.7
        ) as stream,
        asyncio.timeout(10),
    ):
        assert isinstance(await stream.recv(), ListenV2Connected)
        await stream.send_media(LOUD * 50 + QUIET * 50)
        while not seen or seen[-1].event != "EndOfTurn":
            seen.append(await next_report(stream))
    events = [info.event for info in seen if info.event != "Update"]
    assert events == ["StartOfTurn", "EagerEndOfTurn", "EndOfTurn"]
    assert seen[-1].transcript == "book a table for two"
    assert [word.word for word in seen[-1].words] == ["book", "a", "table", "for", "two"]
    assert seen[-1].trigger == "model"
    assert [info.sequence_id for info in seen] == list(range(1, len(seen) + 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_official_client_forces_configures_and_closes(sim: FluxSimulator) -> None:
    client = official_client(sim)
    async with client.listen.v2.connect(model="flux-general-en", encoding="mulaw", sample_rate=8000) as stream:
        async with asyncio.timeout(10):
            await stream.recv()
            await stream.send_configure({"type": "Configure", "keyterms": ["Riviera"]})
            assert isinstance(await stream.recv(), ListenV2ConfigureSuccess)
            await stream.send_media(LOUD * 10)
            assert (await next_report(stream)).event == "StartOfTurn"
            await stream.send_force_end_turn()
            ended = await next_report(stream)
            while ended.event != "EndOfTurn":
                ended = await next_report(stream)
            assert ended.trigger == "manual"
            await stream.send_close_stream()
            await sim.connections[0].closed.wait()
    assert [message["type"] for message in sim.connections[0].messages] == ["Configure", "ForceEndTurn", "CloseStream"]


async def test_close_stream_flushes_an_update_and_closes_without_a_code(sim: FluxSimulator) -> None:
    async with open_raw(sim, WORKING) as socket:
        await socket.send(LOUD * 20)
        await socket.send('{"type":"CloseStream"}')
        messages, close = await read_all(socket)
    events = [message.get("event") for message in messages]
    assert events[-1] == "Update"
    assert "EndOfTurn" not in events
    assert close is not None
    assert close.code == 1005


@pytest.mark.parametrize("kind", ["KeepAlive", "Finalize"])
async def test_nova_messages_kill_the_connection(sim: FluxSimulator, kind: str) -> None:
    async with open_raw(sim, WORKING) as socket:
        await socket.send(json.dumps({"type": kind}))
        _, close = await read_all(socket)
    assert close is not None
    assert close.code == 1008


@pytest.mark.parametrize(
    "wrong",
    [
        {"language": "en"},
        {"model": "nova-3"},
        {"sample_rate": None},
        {"encoding": None},
        {"eot_threshold": "0.4"},
        {"eot_threshold": "0.5", "eager_eot_threshold": "0.7"},
        {"eager_eot_threshold": "0.2"},
        {"eot_timeout_ms": "100"},
        {"language_hint": "es"},
        {"model": "flux-general-multi", "language_hint": ""},
        {"numerals": "True"},
    ],
    ids=str,
)
async def test_what_flux_refuses_is_refused(sim: FluxSimulator, wrong: dict[str, str | None]) -> None:
    query = {name: value for name, value in (WORKING | wrong).items() if value is not None}
    with pytest.raises(InvalidStatus) as refusal:
        async with open_raw(sim, query):
            pass
    assert refusal.value.response.status_code == 400


async def test_a_wrong_key_is_refused(sim: FluxSimulator) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with open_raw(sim, WORKING, key="wrong"):
            pass
    assert refusal.value.response.status_code == 401


def open_raw(sim: FluxSimulator, query: dict[str, Any], key: str | None = None) -> connect:
    address = f"{sim.url}/v2/listen?" + "&".join(f"{name}={value}" for name, value in query.items())
    return connect(address, additional_headers={"Authorization": f"Token {key or sim.key}"}, compression=None)
