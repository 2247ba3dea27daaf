"""Screening and keys with unmodified SDK builds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from demo.dialling import Answer, Outcome
from tests.goertzel import tones
from tests.phone_rig import KEY, NUMBER, running
from tests.sdk.node_app import node_app

CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}


@pytest.mark.proves("row-50")
async def test_the_caller_hears_the_keys_that_the_app_presses(sdk: Path) -> None:
    async with running() as rig, node_app("control", sdk, rig.http, KEY, number=NUMBER, config=CONFIG) as app:
        await app.wait("channel.added", ref=NUMBER)
        caller = await rig.caller()
        await caller.ring()
        await app.wait("call.started")
        await app.order("press", digits="1234#")
        await asyncio.sleep(1.5)
        assert "".join(tone.key for tone in tones(caller.heard)) == "1234#"


@pytest.mark.proves("row-196")
async def test_the_app_screens_its_calls(sdk: Path) -> None:
    async with (
        running() as rig,
        node_app("control", sdk, rig.http, KEY, number=NUMBER, config=CONFIG, ringing=True) as app,
    ):
        if (await app.wait("connected")) and not await app.order("screens"):
            pytest.skip("call.ringing is unknown to 0.1.x")
        await app.wait("channel.added", ref=NUMBER)
        for reason in ("busy", "rejected"):
            caller = await rig.caller()
            answer = asyncio.create_task(caller.ring())
            told = await app.wait("call.ringing")
            assert (told["call"], told["from"], told["to"]) == (caller.dial.call_sid, "+15550100199", NUMBER)
            await app.order("reject", call=told["call"], reason=reason)
            assert await answer == Answer(Outcome.REJECTED, reason)
        assert app.count("call.started") == app.count("call.ended") == 0
        caller = await rig.caller()
        answer = asyncio.create_task(caller.ring())
        await app.order("accept", call=(await app.wait("call.ringing"))["call"])
        assert (await answer).outcome is Outcome.CONNECTED
        assert (await app.wait("call.started"))["call"] == caller.dial.call_sid
