"""What the gateway asks of the carrier's own API."""

from __future__ import annotations

import asyncio
from typing import Any

from demo.dialling import Dial, place_call
from tests.phone_rig import NUMBER, running
from tests.simulators.twilio_rest import SimulatedTwilioRest
from tests.virtual_time import event_loop_policy as event_loop_policy


async def test_a_caller_whose_stream_never_opens_is_let_go_at_the_carrier() -> None:
    async with SimulatedTwilioRest().running() as carrier:
        account: dict[str, Any] = {
            "twilio_account_sid": carrier.account_sid,
            "twilio_auth_token": carrier.auth_token,
            "twilio_base_url": carrier.base_url,
        }
        async with running(public_url="https://voice.example", **account) as rig:
            await rig.agent()
            dial = Dial(rig.http, NUMBER, auth_token=carrier.auth_token, public_url="https://voice.example")
            carrier.calls[dial.call_sid] = "in-progress"
            await place_call(dial)
            await asyncio.sleep(29)
            assert carrier.calls[dial.call_sid] == "in-progress"
            await asyncio.sleep(3)
            assert carrier.calls[dial.call_sid] == "completed"
