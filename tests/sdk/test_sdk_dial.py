"""`agent.dial()` of unmodified SDK builds: resolves when somebody picks up, rejects with the reason if nobody does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dial_rig import GREETING, PUBLIC, THEIRS
from tests.phone_rig import KEY, NUMBER, Rig, running, spoken
from tests.sdk.node_app import NodeApp, node_app
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.twilio_callee import Callee
from tests.simulators.twilio_rest import SimulatedTwilioRest

CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
METADATA: dict[str, Any] = {"order": 17, "nested": {"a": [1, None]}}
YES = "Yes I would like that"


@dataclass
class Outbound:
    """A gateway with a carrier, and an app of the SDK that dials."""

    app: NodeApp
    rig: Rig
    twilio: SimulatedTwilioRest

    async def dial(self, **options: object) -> None:
        """In all eras alike: `from` is required in the first."""
        await self.app.order("dial", **{"to": THEIRS, "from": NUMBER, **options})


@asynccontextmanager
async def outbound(sdk: Path, callee: Callee, script: list[Say] | None = None) -> AsyncGenerator[Outbound]:
    twilio = SimulatedTwilioRest(callee=callee)
    twilio.own(NUMBER)
    async with twilio.running():
        account: dict[str, Any] = {
            "twilio_account_sid": twilio.account_sid,
            "twilio_auth_token": twilio.auth_token,
            "twilio_base_url": twilio.base_url,
            "public_url": PUBLIC,
        }
        async with (
            running(script, **account) as rig,
            node_app("dial", sdk, rig.http, KEY, numbers=[NUMBER], config=CONFIG) as app,
        ):
            twilio.gateway = rig.http
            await app.wait("channel.added")
            yield Outbound(app, rig, twilio)
            for call in twilio.dials:
                call.end("completed")
                await call.over.wait()


@pytest.mark.proves("row-114", "row-115", "row-116", "row-117", "ws-37", "ws-52")
async def test_a_dial_resolves_at_pick_up_and_the_call_goes_on(sdk: Path) -> None:
    async with outbound(sdk, Callee(rings_s=0.2), [Say(YES)]) as it:
        await it.dial(greeting=GREETING, metadata=METADATA)
        call = await it.twilio.dialled()
        resolved = await it.app.wait("dial resolved")
        assert (resolved["call"], resolved["to"], resolved["from"]) == (call.sid, THEIRS, NUMBER)
        assert (resolved["direction"], resolved["metadata"]) == ("outbound", METADATA)
        telephone = await call.picked_up()
        assert (await it.app.wait("message.confirmed"))["text"] == GREETING
        await it.app.wait("bot.finished")
        telephone.say(spoken(YES))
        await it.app.wait("turn.end")
        await telephone.hang_up()
        over = await it.app.wait("over")
        assert (over["reason"], over["metadata"]) == ("hangup", METADATA)
        assert [line["content"] for line in over["transcript"]] == [GREETING, YES]
        assert it.app.count("call.started") == it.app.count("call.ended") == it.app.count("dial resolved") == 1


@pytest.mark.proves("row-121", "ws-38", "ws-52")
@pytest.mark.parametrize("reason", ["busy", "no-answer", "failed", "canceled"])
async def test_a_dial_rejects_at_once_with_the_reason(sdk: Path, reason: str) -> None:
    async with outbound(sdk, Callee("no-answer")) as it:
        await it.dial(metadata=METADATA)
        call = await it.twilio.dialled()
        call.end(reason)
        await expect_rejection(it, reason)
        assert it.twilio.calls[call.sid] == reason


@pytest.mark.proves("row-121", "ws-38")
async def test_a_dial_that_cannot_be_made_rejects_at_once(sdk: Path) -> None:
    async with outbound(sdk, Callee()) as it:
        await it.dial(to="+1", metadata=METADATA)
        await expect_rejection(it, "failed")
        assert it.twilio.requests == []


async def test_the_app_hangs_up_on_a_ringing_telephone(sdk: Path) -> None:
    async with outbound(sdk, Callee("no-answer")) as it:
        await it.dial(metadata=METADATA)
        call = await it.twilio.dialled()
        if await it.app.order("isFirstEra"):
            pytest.skip("0.1.x knows a call only once it has started")
        while not await it.app.order("calls"):
            pass
        await it.app.order("hangup")
        assert (await it.app.wait("dial rejected"))["error"] == "canceled"
        await call.over.wait()
        assert call.status == "canceled"


async def expect_rejection(it: Outbound, reason: str) -> None:
    """0.1.x hears of the end and still waits for its own 30 s; all others reject."""
    over = await it.app.wait("over", patience=10)
    assert (over["reason"], over["direction"]) == (reason, "outbound")
    if not await it.app.order("isFirstEra"):
        rejected = next(sight for sight in it.app.seen if sight["saw"] == "dial rejected")
        assert rejected["error"] == reason
        assert rejected["ms"] < 10_000
    assert it.app.count("call.started") == it.app.count("dial resolved") == it.app.count("error") == 0
