"""Unmodified SDK builds ask for browser tokens: three call styles, and the one that came before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.tokens import TokenChannel
from tests.phone_rig import KEY, Rig, running
from tests.sdk.node_app import NodeApp, node_app

CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
PUBLIC_URL = "https://voice.example.org"


async def opens(rig: Rig, channel: TokenChannel, token: dict[str, Any]) -> dict[str, str]:
    """Use the token, if the app was handed what it needs; what was sealed in."""
    assert token["server"] == PUBLIC_URL, token
    life = [token[name] for name in ("expires_in", "expiresIn") if name in token]
    assert life in ([60], [60, 60])
    grant = await rig.gateway.tokens.consume(channel, token["token"], None, None)
    assert (grant.agent.org_id, grant.agent.slug) == ("org_main", "mara")
    return {key: bytes(value).decode() for key, value in grant.metadata.items()}


async def is_first_era(app: NodeApp) -> bool:
    return bool(await app.order("isFirstEra"))


async def test_every_call_style_gets_a_token_that_opens_the_agent(sdk: Path) -> None:
    async with running(public_url=PUBLIC_URL) as rig, node_app("tokens", sdk, rig.http, KEY, agent="mara") as app:
        # Not a word is waited for: the client may ask before the gateway has read `agent.create`.
        await app.wait("connect resolved")
        channels: tuple[TokenChannel, ...] = ("webrtc", "chat")
        for channel in channels:
            await opens(rig, channel, await app.order("byAgent", channel=channel))
            await opens(rig, channel, await app.order("byClient", channel=channel, agentId="mara"))
            await opens(rig, channel, await app.order("byFunction", channel=channel, agentId="mara"))
        if not await is_first_era(app):
            sealed = {"userId": "ñ 1", "plan": {"seats": 3}}
            for style in ("byAgent", "byClient", "byFunction"):
                token = await app.order(style, channel="webrtc", agentId="mara", metadata=sealed)
                assert await opens(rig, "webrtc", token) == {"userId": '"ñ 1"', "plan": '{"seats":3}'}


async def test_a_program_without_the_agent_gets_a_token_and_reads_why_not(sdk: Path) -> None:
    async with running(public_url=PUBLIC_URL) as rig, node_app("tokens", sdk, rig.http, KEY) as app:
        await rig.agent(allowed_origins=["https://app.site.com"])
        await opens(rig, "webrtc", await app.order("byFunction", channel="webrtc", agentId="mara"))
        offline = await app.order("byFunction", channel="chat", agentId="ghost")
        assert offline == {"error": "Failed to create chat token: Agent 'ghost' is not online"}
        refused = await app.order("byFunction", channel="webrtc", agentId="mara", apiKey="pk_wrong_key")
        assert refused == {"error": "Failed to create webrtc token: Invalid API key"}


async def test_the_deprecated_fetch_needs_a_key_or_an_origin(sdk: Path) -> None:
    async with running(public_url=PUBLIC_URL) as rig, node_app("tokens", sdk, rig.http, KEY) as app:
        await rig.agent(allowed_origins=["https://app.site.com"])
        if not await is_first_era(app):
            pytest.skip("fetchWebRTCToken is of 0.1.x only")
        without = await app.order("deprecated", agentId="mara", withKey=False)
        told = "Failed to fetch WebRTC token: An API key or an allowed origin is required"
        assert without == {"error": told}
        token = await app.order("deprecated", agentId="mara", withKey=True)
        assert token["server"] == PUBLIC_URL
        await rig.gateway.tokens.consume("webrtc", token["token"], None, None)
