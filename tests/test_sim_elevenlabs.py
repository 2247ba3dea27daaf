"""The simulated ElevenLabs against the vendor's own package.

The package has no client for the multi-context socket: its synchronous helper drives `stream-input` here, and every
message of the multi-context socket, both ways, is checked with the package's own types for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from elevenlabs import ElevenLabs, VoiceSettings
from elevenlabs.types.audio_output_multi import AudioOutputMulti
from elevenlabs.types.close_context import CloseContext
from elevenlabs.types.final_output_multi import FinalOutputMulti
from elevenlabs.types.initialize_connection_multi import InitializeConnectionMulti
from elevenlabs.types.keep_context_alive import KeepContextAlive
from elevenlabs.types.send_text_multi import SendTextMulti
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.simulators.elevenlabs import ElevenLabsSimulator, Manner


@pytest.fixture
async def sim() -> AsyncIterator[ElevenLabsSimulator]:
    async with ElevenLabsSimulator() as running:
        yield running


def _connect(sim: ElevenLabsSimulator, *, voice: str = "voice-1", key: str | None = None, **query: str) -> connect:
    chosen = {"model_id": "eleven_flash_v2_5", "output_format": "ulaw_8000", "auto_mode": "true", **query}
    url = f"{sim.ws_url}/v1/text-to-speech/{voice}/multi-stream-input?{urlencode(chosen)}"
    return connect(url, additional_headers={"xi-api-key": key or sim.key})


async def _send(ws: ClientConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        await ws.send(json.dumps(message))


async def _until_final(ws: ClientConnection) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = []
    while not (got and got[-1].get("isFinal")):
        got.append(json.loads(await asyncio.wait_for(ws.recv(), 5)))
    return got


async def test_official_package_speaks_through_its_single_context_helper(sim: ElevenLabsSimulator) -> None:
    def speak() -> bytes:
        client = ElevenLabs(api_key=sim.key, base_url=sim.ws_url)
        speech: Any = client.text_to_speech
        # The helper always asks for TLS; everything else of it runs as published.
        speech._ws_base_url = sim.ws_url
        pieces = speech.convert_realtime(
            "voice-1",
            text=iter(["Hello there, ", "how are you?"]),
            model_id="eleven_flash_v2_5",
            output_format="pcm_16000",
            voice_settings=VoiceSettings(stability=0.4, similarity_boost=0.8, speed=1.0),
        )
        return b"".join(pieces)

    audio = await asyncio.to_thread(speak)
    text = "".join(message["text"] for message in sim.connections[0].messages).lstrip()
    assert text.split() == ["Hello", "there,", "how", "are", "you?"]
    assert len(audio) == len(text) * 60 * 32


async def test_messages_both_ways_fit_the_packages_types(sim: ElevenLabsSimulator) -> None:
    async with _connect(sim) as ws:
        settings = {"stability": 0.5, "similarity_boost": 0.8, "style": 0.0, "use_speaker_boost": False, "speed": 1.0}
        begin = InitializeConnectionMulti.model_validate({"text": " ", "context_id": "a", "voice_settings": settings})
        keep = KeepContextAlive.model_validate({"text": "", "context_id": "a"})
        text = SendTextMulti.model_validate({"text": "Two words ", "context_id": "a", "flush": True})
        close = CloseContext.model_validate({"context_id": "a", "close_context": True})
        for message in (begin, keep, text, close):
            await ws.send(message.model_dump_json(exclude_none=True))
        *audio, final = await _until_final(ws)
        parsed = [AudioOutputMulti.model_validate(message) for message in audio]
        assert {message.context_id for message in parsed} == {"a"}
        spoken = "".join(char for message in parsed if message.alignment for char in message.alignment.chars or [])
        assert spoken == "Two words "
        assert FinalOutputMulti.model_validate(final).context_id == "a"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"key": "wrong"}, 401),
        ({"voice": "nobody"}, 404),
        ({"output_format": "wav"}, 422),
        ({"model_id": "gpt"}, 422),
        ({"inactivity_timeout": "181"}, 422),
        ({"surprise": "1"}, 422),
        ({"model_id": "eleven_multilingual_v2", "language_code": "fr"}, 422),
    ],
)
async def test_bad_addresses_are_refused(sim: ElevenLabsSimulator, options: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await _connect(sim, **options)
    assert refused.value.response.status_code == status


BROKEN_RULES: list[tuple[list[dict[str, Any]], str]] = [
    ([{"text": " ", "context_id": str(number)} for number in range(6)], "max_active_conversations"),
    ([{"text": "", "context_id": "a"}, {"text": " ", "context_id": "a", "voice_settings": {}}], "invalid_voice"),
    ([{"text": " ", "context_id": "a", "voice_settings": {"speed": 2}}], "invalid_voice_settings"),
    ([{"text": "no space", "context_id": "a"}], "invalid_text"),
    ([{"text": "x ", "context_id": "a", "volume": 3}], "invalid_fields"),
    ([{"text": "x "}], "invalid_message"),
]


@pytest.mark.parametrize(
    ("messages", "error"),
    BROKEN_RULES,
    ids=["a sixth context", "settings later", "range", "no space", "unknown field", "no context"],
)
async def test_broken_rules_cost_the_socket(
    sim: ElevenLabsSimulator, messages: list[dict[str, Any]], error: str
) -> None:
    async with _connect(sim) as ws:
        await _send(ws, *messages)
        assert json.loads(await ws.recv())["error"].startswith(error)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_a_closed_context_counts_until_its_final_message(sim: ElevenLabsSimulator) -> None:
    opening = [{"text": " ", "context_id": str(number)} for number in range(5)]
    closing = {"close_context": True, "context_id": "0"}
    async with _connect(sim) as patient, _connect(sim) as hasty:
        await _send(patient, *opening, closing)
        await _until_final(patient)
        await _send(patient, {"text": "More. ", "context_id": "5"})
        assert json.loads(await patient.recv())["contextId"] == "5"
        await _send(hasty, *opening, closing, {"text": "More. ", "context_id": "5"})
        assert json.loads(await hasty.recv())["error"] == "max_active_conversations"


async def test_inactive_contexts_end_by_themselves(sim: ElevenLabsSimulator) -> None:
    sim.manner = Manner(second=0.01, final_delay=0.0)
    async with _connect(sim, inactivity_timeout="10") as ws:
        await _send(ws, {"text": " ", "context_id": "a"}, {"text": " ", "context_id": "b"})
        finals = await _until_final(ws) + await _until_final(ws)
        assert [final["contextId"] for final in finals] == ["a", "b"]


async def test_text_without_flush_waits_for_enough_of_it(sim: ElevenLabsSimulator) -> None:
    async with _connect(sim, auto_mode="false") as ws:
        await _send(ws, {"text": "Short. ", "context_id": "a"}, {"context_id": "a", "close_context": True})
        assert len(await _until_final(ws)) == 1
        await _send(ws, {"text": "Short. ", "context_id": "b"}, {"context_id": "b", "flush": True})
        await _send(ws, {"context_id": "b", "close_context": True})
        assert len(await _until_final(ws)) == 2
