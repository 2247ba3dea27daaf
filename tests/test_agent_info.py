"""What anybody may know of an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.door_rig import KEY_B, Door, opened
from tests.virtual_time import event_loop_policy as event_loop_policy

NUMBER = "+13186330963"
WEB = [{"type": "webrtc"}, {"type": "chat"}]


@pytest.fixture
async def door() -> AsyncGenerator[Door]:
    async with opened() as door:
        yield door


async def test_voice_and_chat_are_there_for_every_agent(door: Door) -> None:
    await door.agent()
    answer = await door.http.get("/api/sdk/agent-info/Mara_", headers={"Origin": "https://any.where"})
    assert answer.status_code == 200
    assert answer.json() == {"agent": "mara", "channels": WEB}
    assert answer.headers["access-control-allow-origin"] == "*"


async def add_channels(door: Door) -> None:
    client = await door.agent()
    secret = {"access_token": "EAAG-secret", "verify_token": "v", "app_secret": "s"}
    for fields in (
        {"type": "phone", "ref": NUMBER},
        {"type": "phone", "ref": "sip:mara@pbx.lan"},
        {"type": "webrtc"},
        {"type": "chat"},
        {"type": "mic"},
        {"type": "whatsapp", "ref": "1090001", "phone": "+15550101", **secret},
    ):
        assert (await client.ask("channel.add", agent_id="mara", **fields))["event"] == "channel.added"


async def test_declared_channels_are_told_and_nothing_else(door: Door) -> None:
    await add_channels(door)
    answer = await door.http.get("/api/sdk/agent-info/mara")
    phone = {"type": "phone", "numbers": [NUMBER]}
    assert answer.json()["channels"] == [*WEB, {"type": "mic"}, phone, {"type": "whatsapp", "phone": "+15550101"}]
    for secret in ("EAAG", "sip", "org_a", "1090001", "conn_"):
        assert secret not in answer.text


async def test_numbers_can_be_hidden() -> None:
    async with opened(agent_info_numbers=False) as door:
        await add_channels(door)
        answer = await door.http.get("/api/sdk/agent-info/mara")
        assert answer.json()["channels"] == [*WEB, {"type": "mic"}]


async def test_an_agent_that_is_not_connected_is_not_there(door: Door) -> None:
    for agent_id in ("ghost", "%20", "..", "a" * 3000):
        answer = await door.http.get(f"/api/sdk/agent-info/{agent_id}")
        assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_name_of_two_organisations_is_told_only_to_pages_of_one(door: Door) -> None:
    await door.agent(origins=("https://app.site.com",))
    client = await door.agent(key=KEY_B, origins=("https://shop.example",))
    await client.ask("channel.add", agent_id="mara", type="phone", ref=NUMBER)
    asked = "/api/sdk/agent-info/mara"
    assert (await door.http.get(asked)).status_code == 404
    assert (await door.http.get(asked, headers={"Origin": "https://evil.io"})).status_code == 404
    assert (await door.http.get(asked, headers={"Origin": "https://app.site.com"})).json()["channels"] == WEB
    assert NUMBER in (await door.http.get(asked, headers={"Origin": "https://shop.example"})).text


async def test_names_cannot_be_tried_out_in_a_flood(door: Door) -> None:
    await door.agent()
    statuses = [(await door.http.get(f"/api/sdk/agent-info/agent-{count}")).status_code for count in range(61)]
    assert statuses == [404] * 60 + [429]
