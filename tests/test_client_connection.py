"""The `/client` socket itself: keys, deadlines, pings, abuse, back-pressure."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from server.agents.link import MAX_FRAME, LinkTimes
from server.auth import Keys, redact
from server.throttle import Failures, TokenBucket
from tests.client_rig import KEY, OTHER_KEY, PATIENCE, Client, goodbye, running
from tests.jumping_loop import jumping
from wire.events import AudioMetrics, MessageConfirmed


@pytest.mark.proves("ws-1")
async def test_commands_before_the_key_are_refused_and_the_socket_stays() -> None:
    async with running() as rig, rig.open() as socket:
        client = Client(socket)
        refused = await client.ask("agent.create", agent_id="mara")
        assert (refused["code"], refused["command"]) == ("NOT_AUTHENTICATED", "agent.create")
        huge = await client.ask("agent.create", agent_id="mara", prompt="x" * 200_000)
        assert huge["code"] == "NOT_AUTHENTICATED"
        assert (await client.ask("connect", api_key=KEY))["event"] == "connected"
        assert (await client.ask("agent.create", agent_id="mara"))["event"] == "agent.created"


@pytest.mark.proves("ws-2", "row-1", "row-3")
async def test_a_good_key_is_answered_by_exactly_one_connected() -> None:
    async with running() as rig, rig.open() as socket:
        client = Client(socket)
        connected = await client.ask("connect", api_key=OTHER_KEY)
        assert connected.pop("connection_id").startswith("conn_")
        assert connected == {"event": "connected", "org_id": "org_two", "protocol_version": "2"}
        await client.send("connect", api_key=OTHER_KEY)
        await client.silence()


@pytest.mark.proves("ws-3", "row-2", "row-182")
@pytest.mark.parametrize("fields", [{"api_key": "pk_wrong"}, {"api_key": "pk_publishable_x"}, {}])
async def test_a_bad_key_gets_an_error_then_1008(fields: dict[str, str]) -> None:
    async with running() as rig, rig.open() as socket:
        client = Client(socket)
        refused = await client.ask("connect", **fields)
        assert (refused["event"], refused["code"]) == ("error", "INVALID_KEY")
        assert refused["error"]
        assert await client.closed() == (1008, "INVALID_KEY")


@jumping
async def test_who_keeps_coming_with_bad_keys_is_held_but_told_at_once() -> None:
    async with running() as rig:
        held = 0.0
        for attempt in range(8):
            async with rig.open() as socket:
                client = Client(socket)
                before = rig.registry.clock.now()
                assert (await client.ask("connect", api_key="pk_wrong"))["code"] == "INVALID_KEY"
                assert rig.registry.clock.now() - before < 1.0
                assert (await client.closed())[0] == 1008
                held = rig.registry.clock.now() - before
            if attempt < 3:
                assert held < 1.0
        assert held >= LinkTimes().penalty
        assert (await rig.connected()).socket.state.name == "OPEN"


@jumping
@pytest.mark.proves("ws-4")
async def test_silence_before_the_key_ends_after_ten_seconds() -> None:
    async with running() as rig, rig.open() as socket:
        opened = rig.registry.clock.now()
        async with asyncio.timeout(20):
            frame = json.loads(await socket.recv())
        assert (frame["event"], frame["code"]) == ("error", "AUTH_TIMEOUT")
        assert 9.5 < rig.registry.clock.now() - opened < 12.0
        assert await Client(socket).closed() == (1008, "AUTH_TIMEOUT")


@pytest.mark.proves("ws-5", "row-6")
async def test_a_ping_is_answered_with_the_time() -> None:
    async with running() as rig:
        client = await rig.connected()
        pong = await client.ask("ping")
        assert pong["event"] == "pong"
        assert abs(pong["timestamp"] - rig.registry.clock.wall()) < 5
        await client.send("pong")
        await client.silence()


@jumping
@pytest.mark.proves("ws-5", "row-6")
async def test_an_idle_client_is_asked_after_twenty_seconds_and_stays_by_protocol_pongs_alone() -> None:
    async with running() as rig:
        client = await rig.connected(ping_interval=None)
        since = rig.registry.clock.now()
        async with asyncio.timeout(60):
            assert json.loads(await client.socket.recv())["event"] == "ping"
        assert 19.5 < rig.registry.clock.now() - since < 26.0
        await asyncio.sleep(70)
        assert len(rig.gateway) == 1
        await client.silence()


@jumping
@pytest.mark.proves("ws-5")
async def test_a_client_silent_for_45_seconds_is_closed_1001_and_its_agent_taken() -> None:
    async with running() as rig:
        deaf = await rig.connected(ping_interval=None)
        await deaf.ask("agent.create", agent_id="mara")
        since = rig.registry.clock.now()
        _mute(deaf)
        await rig.until_offline(patience=90.0)
        assert 44.0 < rig.registry.clock.now() - since < 55.0
        other = await rig.connected()
        assert (await other.ask("agent.create", agent_id="mara"))["event"] == "agent.created"


@pytest.mark.proves("ws-9")
async def test_unknown_commands_are_met_with_silence() -> None:
    async with running() as rig:
        client = await rig.connected()
        for frame in ('{"event":"zap"}', '{"event":"llm.ready","call_id":"CA1"}', "{}"):
            await client.socket.send(frame)
        await client.silence()


async def test_a_wrong_field_is_named_and_harmless() -> None:
    async with running() as rig:
        client = await rig.agent("mara")
        refused = await client.ask("channel.add", agent_id="mara", type=7)
        assert (refused["code"], refused["command"], refused["agent_id"]) == ("BAD_REQUEST", "channel.add", "mara")
        assert "type" in refused["error"]
        unsupported = await client.ask("call.bridge", agent_id="mara", target="zoe")
        assert (unsupported["code"], unsupported["command"]) == ("BAD_REQUEST", "call.bridge")
        await client.silence()


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_flood_of_nonsense_ends_in_1007_and_disturbs_nobody(key: str | None) -> None:
    async with running() as rig:
        other = await rig.connected()
        client = await rig.connected(key) if key else Client(await rig.open())
        for _ in range(60):
            await client.socket.send("}{")
        assert await client.closed() == (1007, "too_many_bad_frames")
        await other.silence()


async def test_frames_of_megabytes_are_taken_and_enormous_ones_end_in_1009() -> None:
    async with running() as rig:
        client = await rig.connected()
        created = await client.ask("agent.create", agent_id="mara", prompt="x" * (3 * 1024 * 1024))
        assert created["event"] == "agent.created"
        with suppress(ConnectionClosed):
            await client.socket.send('{"event":"ping","x":"' + "x" * MAX_FRAME + '"}')
        # 1006: the reset of what was still under way may overtake the close frame.
        assert (await client.closed())[0] in (1009, 1006)
        await rig.until_offline()
        link = rig.gateway.open("peer")
        link.receive("x" * (MAX_FRAME + 1))
        assert link.closure is not None
        assert link.closure.code == 1009
        await rig.gateway.leave(link)


@pytest.mark.parametrize("reads_again", [True, False])
async def test_a_client_that_does_not_read_is_closed_1013_and_never_waited_for(reads_again: bool) -> None:
    async with running(LinkTimes(close=PATIENCE if reads_again else 0.1)) as rig:
        slow = await rig.agent("mara")
        link = rig.registry.of_org("org_main")[0].link
        assert link is not None
        _mute(slow)
        metrics = AudioMetrics(
            source="user", energy_db=-20, rms=0.1, peak=0.2, is_speech=True, vad_prob=0.9, timestamp=1.0
        )
        fact = MessageConfirmed(message_id="m", text="x" * 1024 * 1024)
        for _ in range(40):
            link.deliver(fact)
            link.deliver(metrics)
            await asyncio.sleep(0)
        assert link.closure is not None
        assert (link.closure.code, link.closure.reason) == (1013, "slow_consumer")
        assert link.outbox.dropped > 10
        if reads_again:
            slow.socket.transport.resume_reading()
            assert await slow.closed() == (1013, "slow_consumer")
        await rig.until_offline()


async def test_a_gateway_that_goes_away_says_so_and_takes_nobody_new() -> None:
    async with running() as rig:
        client = await rig.connected()
        rig.gateway.close()
        assert await client.closed() == (1012, "service_restart")
        async with rig.open() as socket:
            assert await Client(socket).closed() == (1012, "service_restart")


@pytest.mark.proves("row-7")
async def test_a_goodbye_is_final() -> None:
    async with running() as rig:
        client = await rig.agent("mara", "+13186330963")
        await goodbye(client)
        await rig.until_offline()
        assert rig.registry.of_org("org_main") == []


def test_keys_belong_to_organisations_and_are_never_shown() -> None:
    keys = Keys([("org_main", "pk_live_one"), ("org_demo", "pk_live_two"), ("org_main", "pk_publishable_x")])
    assert [keys.org_of(key) for key in ("pk_live_one", "pk_live_two", "pk_live_three", "", "pk_publishable_x")] == [
        "org_main",
        "org_demo",
        None,
        None,
        None,
    ]
    assert redact("pk_live_abcdefghijklmnop") == "pk_live…mnop"
    assert redact("pk_short") == redact("secret") == "pk_…"
    assert redact("") == "none"


def test_throttles_forgive_with_time_and_remember_a_bounded_number() -> None:
    bucket = TokenBucket(rate=1.0, burst=2.0)
    assert [bucket.take(0.0), bucket.take(0.0), bucket.take(0.5), bucket.take(1.5)] == [True, True, False, True]
    failures = Failures(rate=0.1, burst=1.0)
    assert [failures.too_many("a", 0.0), failures.too_many("a", 1.0), failures.too_many("b", 1.0)] == [
        False,
        True,
        False,
    ]
    for number in range(10_000):
        failures.too_many(f"peer {number}", 2.0)
    assert len(failures) <= 4096


def _mute(client: Client) -> None:
    """The client's side stops reading: nothing it is sent is taken or answered."""
    client.socket.transport.pause_reading()
