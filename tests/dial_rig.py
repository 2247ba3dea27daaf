"""A gateway with a simulated Twilio account: agents dial, and callees answer or do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from demo.caller import Happening, SoftwareCaller
from tests.phone_rig import NUMBER, Agent, Frame, Rig, running
from tests.simulators.twilio_callee import Callee, DialledCall
from tests.simulators.twilio_rest import SimulatedTwilioRest

PUBLIC = "https://voice.example"
THEIRS = "+12025550142"
GREETING = "Hello, this is Mara calling from the bakery."


@dataclass
class DialRig:
    """The gateway, the carrier, and one agent that dials."""

    rig: Rig
    twilio: SimulatedTwilioRest
    agent: Agent

    async def dial(self, to: str = THEIRS, **fields: object) -> None:
        """The agent's command."""
        await self.agent.send("call.dial", agent_id="mara", to=to, **fields)

    async def dialled(self, to: str = THEIRS, **fields: object) -> DialledCall:
        """The carrier's call for a dial that it takes."""
        await self.dial(to, **fields)
        return await self.twilio.dialled(len(self.twilio.dials) + 1)

    async def talking(self, to: str = THEIRS, **fields: object) -> tuple[SoftwareCaller, str]:
        """A call that was picked up: the callee's telephone and the call's id."""
        call = await self.dialled(to, **fields)
        telephone = await call.picked_up(60)
        return telephone, (await self.agent.told(call.sid, "call.started"))["call_id"]

    async def ended(self, patience: float = 60.0) -> Frame:
        """The next end of a call."""
        return await self.agent.wait("call.ended", patience)

    def about(self, event: str) -> list[Frame]:
        """All frames of that kind so far."""
        return [frame for frame in self.agent.frames if frame["event"] == event]


@asynccontextmanager
async def dialling(
    callee: Callee | None = None,
    numbers: tuple[str, ...] = (NUMBER,),
    config: dict[str, object] | None = None,
    **options: Any,
) -> AsyncGenerator[DialRig]:
    """Everybody who is called behaves like `callee`; `options` are those of the phone rig."""
    twilio = SimulatedTwilioRest(callee=callee or Callee())
    twilio.own(*numbers)
    async with twilio.running():
        account: dict[str, Any] = {
            "twilio_account_sid": twilio.account_sid,
            "twilio_auth_token": twilio.auth_token,
            "twilio_base_url": twilio.base_url,
            "public_url": PUBLIC,
        }
        async with running(**{**account, **options}) as rig:
            twilio.gateway = rig.http
            agent = await rig.connected()
            said: dict[str, object] = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux", **(config or {})}
            await agent.ask("agent.create", "agent.created", agent_id="mara", **said)
            for number in numbers:
                await agent.ask("channel.add", "channel.added", agent_id="mara", type="phone", ref=number)
            yield DialRig(rig, twilio, agent)
            for call in twilio.dials:
                call.end("completed")
                await call.over.wait()


def moment(telephone: SoftwareCaller, what: Happening) -> float:
    """When that was first noticed."""
    return next(moment.at for moment in telephone.moments if moment.what is what)
