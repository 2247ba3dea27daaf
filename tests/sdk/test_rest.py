"""The HTTP helpers of unmodified SDK builds, and their command line where the build has one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.phone_rig import KEY, NUMBER, Rig, running
from tests.sdk.node_app import node_app
from tests.simulators.openai import Reply, Request
from tests.simulators.twilio_rest import SimulatedTwilioRest
from tests.test_voices import NADIA

FREE = "+12025550142"
CLOSING = "We are open until ten."


def _closing(_request: Request) -> Reply:
    return Reply(CLOSING)


@asynccontextmanager
async def with_carrier() -> AsyncGenerator[tuple[Rig, SimulatedTwilioRest]]:
    """A gateway whose carrier account has two numbers, an agent on one of them."""
    async with SimulatedTwilioRest().running() as twilio:
        account: dict[str, Any] = {
            "twilio_account_sid": twilio.account_sid,
            "twilio_auth_token": twilio.auth_token,
            "twilio_base_url": twilio.base_url,
        }
        async with running([], _closing, **account) as rig:
            twilio.own(NUMBER, FREE)
            rig.vendors.voice.catalogue = [NADIA]
            await rig.agent(llm="openai:gpt-4.1-mini", prompt="You take table bookings.")
            yield rig, twilio


async def command(sdk: Path, rig: Rig, *words: str, typed: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
    """Run the build's command line against the gateway: its exit code and what it printed, without colours.

    Each of `typed` is a text to wait for, and a line to type then.
    """
    named = json.loads((sdk / "package.json").read_text()).get("bin", {}).get("pinecall")
    if named is None:
        pytest.skip("this version of the client has no command line")
    program = sdk / named
    assert program.is_file(), f"the build lacks {named}, which its package.json promises"
    gateway = (f"--server={rig.http}/", f"--playground={rig.http}", f"--api-key={KEY}")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        *words,
        *gateway,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_COLOR": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seen = b""
    try:
        async with asyncio.timeout(20):
            for prompt, line in typed:
                while prompt.encode() not in seen and (more := await process.stdout.read(4096)):
                    seen += more
                process.stdin.write(line.encode() + b"\n")
            rest, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, (seen + rest).decode()


@pytest.mark.proves("row-173", "row-174", "row-175", "row-184")
async def test_the_helpers_read_voices_numbers_and_balance(sdk: Path) -> None:
    async with with_carrier() as (rig, twilio), node_app("rest", sdk, rig.http, KEY) as app:
        (nadia,) = await app.order("voices", provider="elevenlabs", language="es")
        assert (nadia["id"], nadia["name"], nadia["gender"]) == ("v_9f31ab", "Nadia - Calm, Narration", "female")
        assert (nadia.get("previewUrl") or nadia.get("preview_url")) == "https://cdn.example/nadia.mp3"
        spanish = {"code": "es", "name": "Spanish", "flag": "🇪🇸", "nativeName": "Español", "region": "ES"}
        assert nadia["languages"][0] == spanish
        assert await app.order("voices", provider="elevenlabs", language="de") == []
        assert await app.order("voices", provider="nobody") == []
        ours, free = await app.order("phones")
        assert (ours["number"], ours["isSdk"], free["number"], free["isSdk"]) == (NUMBER, True, FREE, False)
        assert "HTTP 401" in (await app.order("phones", apiKey="pk_wrong"))["thrown"]
        assert await app.order("balance") == {"balance": "41.07", "currency": "USD"}
        assert await app.order("balance", apiKey="") is None
        twilio.outages = [500, 500]
        assert await app.order("balance") is None


@pytest.mark.proves("row-202")
async def test_the_command_line_shows_agents_phones_and_voices_and_kicks(sdk: Path) -> None:
    async with with_carrier() as (rig, _):
        code, agents = await command(sdk, rig, "agents")
        assert (code, "1 agent connected" in agents, NUMBER in agents) == (0, True, True)
        code, phones = await command(sdk, rig, "phones")
        assert (code, "2 phone numbers, 1 available" in phones) == (0, True)
        assert "verified account" not in phones
        code, voices = await command(sdk, rig, "voices", "--provider=elevenlabs", "--language=es")
        assert (code, "elevenlabs/nadia" in voices) == (0, True)
        code, _ = await command(sdk, rig, "voices", "--provider=local")
        assert code == 0
        code, nobody = await command(sdk, rig, "kick", "nobody")
        assert (code, "not found" in nobody) == (1, True)
        code, kicked = await command(sdk, rig, "kick", "mara")
        assert (code, "mara disconnected" in kicked) == (0, True)
        code, agents = await command(sdk, rig, "agents")
        assert (code, "No agents connected" in agents) == (0, True)


@pytest.mark.proves("row-202")
async def test_the_command_line_chats_with_an_agent(sdk: Path) -> None:
    async with with_carrier() as (rig, _):
        code, talk = await command(
            sdk, rig, "chat", "mara", typed=[("Connected", "When do you close?"), (CLOSING, "/quit")]
        )
        assert (code, CLOSING in talk) == (0, True), talk
