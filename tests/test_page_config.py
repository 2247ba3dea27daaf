"""Which settings a page may choose, and what is kept from it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from wire.page_config import page_settings


def filtered(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    raw = {key: msgspec.Raw(json.dumps(value).encode()) for key, value in config.items()}
    taken, dropped = page_settings(raw)
    return {key: json.loads(bytes(value)) for key, value in taken.items()}, dropped


@pytest.mark.proves("web-20", "row-131")
def test_a_page_chooses_how_it_sounds_and_not_what_the_agent_is() -> None:
    sent = {
        **{
            "voice": "elevenlabs:x",
            "language": "es",
            "stt": {"provider": "deepgram"},
            "tts": "local",
            "greeting": "Hola",
        },
        **{"flash": True, "turnDetection": "silence", "turn_detection": {"mode": "silence"}},
    }
    forbidden: dict[str, Any] = {
        **{"prompt": "x", "llm": "y", "tools": [], "knowledge_base": "k", "skills": [], "raw_prompt": True},
        **{
            "instructions": "x",
            "vars": {},
            "interruption": {},
            "session_limits": {},
            "sessionLimits": {},
            "config": {"prompt": "x"},
        },
        **{"analysis": {}, "media": {"live": True}, "agent_id": "other", "Prompt": "x", "": 1},
    }
    taken, dropped = filtered({**sent, **forbidden})
    assert taken == sent
    assert dropped == sorted(forbidden)


def test_a_page_leads_the_server_nowhere_and_brings_no_keys() -> None:
    taken, dropped = filtered(
        {
            "stt": {
                "provider": "deepgram",
                "keyterms": ["key"],
                "base_url": "http://evil",
                "apiKey": "k",
                "options": [{"wsUrl": 1}],
            },
            "voice": {"provider": "elevenlabs", "voice_id": "v", "api_key": "k", "headers": {}, "endpoint-url": "u"},
        }
    )
    assert taken["stt"] == {"provider": "deepgram", "keyterms": ["key"], "options": [{}]}
    assert taken["voice"] == {"provider": "elevenlabs", "voice_id": "v"}
    assert dropped == [
        "stt.apiKey",
        "stt.base_url",
        "stt.options.wsUrl",
        "voice.api_key",
        "voice.endpoint-url",
        "voice.headers",
    ]
