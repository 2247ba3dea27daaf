"""Unmodified SDK builds against a whole gateway: every era gives its app the same story of the same call.

`make test-sdk SDK=<folder with dist/index.js>`; see docs/sdk.md. Real time, as Node keeps its own clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from demo.dialling import Outcome
from server.agents.endpoint import ObservedWebSocket
from server.agents.link import LinkTimes
from server.store.base import AgentKey
from tests.phone_rig import KEY, NUMBER, Rig, running, spoken
from tests.sdk.node_app import NodeApp, Sight, node_app
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request

CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
MODEL = "gpt-4.1-mini"
NUMBERS = (NUMBER, "+12025550142", "+442071838750")
WISH = "A table for two please"
STOP = "No stop I meant three people"


def app_of(sdk: Path, rig: Rig, scenario: str, **options: Any) -> AbstractAsyncContextManager[NodeApp]:
    return node_app(scenario, sdk, rig.http, KEY, **options)


def one_agent(**config: object) -> list[dict[str, object]]:
    return [{"id": "mara", "numbers": [NUMBER], "config": {**CONFIG, **config}}]


async def is_first_era(app: NodeApp) -> bool:
    """0.1.x, where the client says goodbye for each agent and takes `pingInterval`."""
    return bool(await app.order("isFirstEra"))


def cut_agent_sockets(rig: Rig) -> None:
    """Lose every agent's connection without a word."""
    for connection in list(rig.server.server_state.connections):
        if isinstance(connection, ObservedWebSocket):
            connection.abort()


def story(seen: Iterable[Sight]) -> list[str]:
    """What happened, one line each: words together, messages and turns by order of appearance, no interim guesses."""
    lines: list[str] = []
    names: dict[str, str] = {}
    words: list[str] = []
    for sight in seen:
        name, message = sight["saw"], sight.get("message")
        if name == "bot.word":
            words.append(sight["word"])
            continue
        if words:
            lines.append("words " + " ".join(words))
            words = []
        if name in ("user.speaking", "ready", "connected", "channel.added", "exit", "record"):
            continue
        label = names.setdefault(message, f"m{len(names) + 1}") if message else ""
        turn = f"turn {sight['turn']}" if name in ("speech.started", "user.message", "turn.end") else ""
        said = sight.get("text") or (sight.get("reason") if name == "call.ended" else "") or ""
        lines.append(" ".join(filter(None, (name, label, turn, said))))
    return lines


EXPECTED_STORY = [
    "call.started",
    "bot.speaking m1 Good evening, how may I help?",
    "words Good evening, how may I help?",
    "message.confirmed m1 Good evening, how may I help?",
    "bot.finished m1 Good evening, how may I help?",
    "speech.started turn 1",
    "speech.ended",
    f"user.message m2 turn 1 {WISH}",
    f"eager.turn m2 {WISH}",
    f"turn.end m2 turn 1 {WISH}",
    "bot.speaking m3",
    "words Of course. A table for two it is.",
    "message.confirmed m3 Of course. A table for two it is.",
    "bot.finished m3 Of course. A table for two it is.",
    "call.ended client_hangup",
]
EXPECTED_TRANSCRIPT = [
    {"role": "assistant", "content": "Good evening, how may I help?"},
    {"role": "user", "content": WISH},
    {"role": "assistant", "content": "Of course. A table for two it is."},
]


@pytest.mark.proves("row-1", "row-3", "row-42", "row-43", "row-44", "row-48", "row-184", "ws-14", "ws-15", "ws-52")
async def test_every_era_tells_the_same_story_of_a_phone_call(sdk: Path) -> None:
    async with running([Say(WISH)]) as rig, app_of(sdk, rig, "phone_call", number=NUMBER, config=CONFIG) as app:
        await app.wait("channel.added", ref=NUMBER)
        caller = await rig.caller()
        await caller.ring()
        await app.wait("bot.finished")
        caller.say(spoken(WISH))
        ended = await app.wait("call.ended")
        record = await app.wait("record")
        await caller.wait_ended()
    assert story(app.seen) == EXPECTED_STORY
    assert {sight["call"] for sight in app.seen if "call" in sight} == {ended["call"]}
    assert record["transcript"] == EXPECTED_TRANSCRIPT
    assert [(entry["role"], entry["content"]) for entry in record["messages"]] == [
        (entry["role"], entry["content"]) for entry in EXPECTED_TRANSCRIPT
    ]
    facts = {key: record[key] for key in ("reason", "direction", "transport", "from", "to")}
    assert facts == {
        "reason": "client_hangup",
        "direction": "inbound",
        "transport": "phone",
        "from": "+15550100199",
        "to": NUMBER,
    }
    assert record["duration"] > 2


@pytest.mark.proves("row-2", "row-8", "ws-3")
async def test_a_wrong_key_is_refused_and_said_to_be_invalid(sdk: Path) -> None:
    async with running() as rig, node_app("host", sdk, rig.http, "pk_wrong_key_00000000") as app:
        error = await app.wait("error")
        if await is_first_era(app):
            assert error["code"] == "INVALID_KEY"
            rejected = next(sight for sight in app.seen if sight["saw"] == "connect rejected")
            assert rejected["code"] == "INVALID_KEY"
        assert error["error"] == "Invalid API key"
        assert app.count("connected") == app.count("connect resolved") == 0


@pytest.mark.proves("row-4", "row-8", "ws-13", "ws-48")
async def test_a_lost_connection_comes_back_with_its_agents_numbers_and_calls(sdk: Path) -> None:
    async with running() as rig, app_of(sdk, rig, "host", agents=one_agent()) as app:
        await app.wait("channel.added")
        caller = await rig.caller()
        await caller.ring()
        call = (await app.wait("call.started"))["call"]
        await app.wait("bot.finished")
        cut_agent_sockets(rig)
        await app.wait("disconnected", reason="connection_lost")
        await app.wait("reconnecting")
        await app.wait("connected")
        resumed = await app.wait("call.started")
        await app.wait("channel.added", ref=NUMBER)
        again = await app.wait("bot.finished")
        assert resumed["call"] == call
        assert again["agent"] == "mara"
        second = await rig.caller(caller="+15550100200")
        await second.ring()
        assert (await app.wait("call.started"))["from"] == "+15550100200"
        assert not caller.is_over


@pytest.mark.proves("row-5")
async def test_without_reconnect_a_lost_client_stays_away_and_its_agent_is_free(sdk: Path) -> None:
    async with (
        running() as rig,
        app_of(sdk, rig, "host", agents=one_agent(), client={"reconnect": False}) as app,
    ):
        await app.wait("channel.added")
        cut_agent_sockets(rig)
        await app.wait("disconnected", reason="connection_lost")
        await rig.agent("mara")
        await asyncio.sleep(1.5)  # its first attempt would have come after 1.25 s
        assert app.count("connected") == 1
        assert app.count("reconnecting") == 0


@pytest.mark.proves("row-6", "ws-5")
async def test_the_client_pings_as_often_as_it_was_told(sdk: Path, tmp_path: Path) -> None:
    log = tmp_path / "wire.log"
    async with running() as rig, app_of(sdk, rig, "host", client={"pingInterval": 100}, log=log) as app:
        await app.wait("connect resolved")
        if not await is_first_era(app):
            pytest.skip("0.2.0 and later ping every 30 s, with no option for it")
        await asyncio.sleep(0.6)
    pongs = [line for line in log.read_text().splitlines() if "← " in line and '"pong"' in line]
    assert len(pongs) >= 3
    assert all(json.loads(line.split("← ")[1])["timestamp"] > 1e9 for line in pongs)


@pytest.mark.proves("row-6", "ws-5")
async def test_a_client_that_never_pings_is_kept_by_the_gateways_own_pings(sdk: Path) -> None:
    async with running() as rig:
        rig.gateway.agents.times = LinkTimes(ping_after=0.3, stale_after=1.5)
        async with app_of(sdk, rig, "host", client={"pingInterval": 0}) as app:
            await app.wait("connect resolved")
            await asyncio.sleep(2.2)
            assert app.count("disconnected") == 0
            assert len(rig.gateway.agents) == 1


@pytest.mark.proves("row-7")
async def test_a_client_that_says_goodbye_leaves_its_agent_and_number_free_at_once(sdk: Path) -> None:
    async with running() as rig, app_of(sdk, rig, "host", agents=one_agent()) as app:
        await app.wait("channel.added")
        await app.order("disconnect")
        caller = await rig.caller()
        assert (await caller.ring()).outcome is Outcome.REJECTED
        other = await rig.agent("mara")
        assert other.count("error") == 0


@pytest.mark.proves("row-9", "row-29", "ws-8")
async def test_three_agents_on_one_socket_each_get_their_own_calls(sdk: Path) -> None:
    ids = ("mara", "luca", "ines")
    agents = [{"id": name, "numbers": [number], "config": CONFIG} for name, number in zip(ids, NUMBERS, strict=True)]
    async with running() as rig, app_of(sdk, rig, "host", agents=agents) as app:
        for _ in ids:
            await app.wait("channel.added")
        calls: dict[str, str] = {}
        for name, number in zip(ids, NUMBERS, strict=True):
            caller = await rig.caller(number)
            await caller.ring()
            started = await app.wait("call.started", to=number)
            assert started["agent"] == name
            calls[name] = started["call"]
            assert await app.order("calls", id=name) == [started["call"]]
        for name in ids:
            await app.order("hangup", id=name)
            await app.wait("call.ended", agent=name, call=calls[name], reason="client_hangup")
            assert await app.order("calls", id=name) == []
        for name in ids:
            own = {sight["call"] for sight in app.seen if sight.get("agent") == name and "call" in sight}
            assert own == {calls[name]}
        assert app.count("call.ended") == 3


@pytest.mark.proves("row-11", "row-12")
async def test_an_agent_can_be_named_again_found_and_removed(sdk: Path) -> None:
    async with running() as rig, app_of(sdk, rig, "host", agents=one_agent()) as app:
        await app.wait("channel.added")
        assert await app.order("agentAgain", id="mara", config={"language": "fr"})
        first = await is_first_era(app)
        assert await app.order("language", id="mara") == ("fr" if first else None)
        assert await app.order("getAgent", id="mara") == "mara"
        assert await app.order("getAgent", id="nobody") is None
        assert await app.order("removeAgent", id="nobody") is False
        assert await app.order("removeAgent", id="mara") is True
        assert await app.order("getAgent", id="mara") is None
        if first:  # later eras say nothing to the gateway when an agent is removed
            caller = await rig.caller()
            assert (await caller.ring()).outcome is Outcome.REJECTED
        assert app.count("error") == 0


def asked_of(rig: Rig) -> dict[str, Any]:
    """The first question to the model."""
    return next(request.body for request in rig.vendors.model.requests if "messages" in request.body)


def answer(request: Request) -> Reply:
    """The simulated model: asks for the booking once, then tells what it was told."""
    told = [entry for entry in request.body["messages"] if entry["role"] == "tool"]
    if told:
        return Reply(f"I found it, {json.loads(told[-1]['content'])['guest']}.")
    return Reply(tools=[CalledTool("findBooking", '{"code":"A1"}', "tc_1")])


@pytest.mark.proves("row-28", "row-31", "row-38", "row-192", "ws-29", "ws-52")
async def test_the_app_carries_out_a_tool_call_of_the_servers_model(sdk: Path) -> None:
    llm: dict[str, Any] = {"engine": "openai", "model": MODEL, "enabled": True, "prompt": "You find bookings."}
    config = {**CONFIG, "llm": llm}
    async with running([Say(WISH)], answer) as rig, app_of(sdk, rig, "tool", number=NUMBER, config=config) as app:
        await app.wait("channel.added")
        caller = await rig.caller()
        await caller.ring()
        await app.wait("call.started")
        caller.say(spoken(WISH))
        assert (await app.wait("tool"))["code"] == "A1"
        confirmed = await app.wait("message.confirmed")
        await app.wait("bot.finished")
        await caller.hang_up()
        record = await app.wait("record")
    assert confirmed["text"] == "I found it, Ada."
    assert app.count("tool") == 1
    assert [entry["role"] for entry in record["messages"] if entry["role"] != "system"] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    offered = asked_of(rig)["tools"][0]["function"]
    assert offered["name"] == "findBooking"
    assert offered["parameters"]["required"] == ["code"]


@pytest.mark.proves("row-13", "row-14", "row-15", "row-16", "row-31", "ws-35")
@pytest.mark.parametrize("model", [MODEL, None])
async def test_deploy_answers_calls_with_the_servers_model(sdk: Path, model: str | None) -> None:
    def hello(request: Request) -> Reply:
        return Reply("Hello there.")

    async with running([Say(WISH)], hello) as rig, app_of(sdk, rig, "host") as app:
        await app.wait("connect resolved")
        if not await is_first_era(app):
            pytest.skip("deploy() is of 0.1.x only")
        config: dict[str, object] = {
            "prompt": "Be brief.",
            "voice": "elevenlabs:voice-1",
            "phones": [NUMBERS[0]],
            "channels": ["webrtc", "mic", "chat", NUMBERS[1], {"type": "phone", "ref": NUMBERS[2]}],
        }
        await app.order("deploy", id="mara", config=config | ({"model": model} if model else {}))
        added = [(await app.wait("channel.added"))["ref"] for _ in range(6)]
        assert added == [NUMBERS[0], "webrtc", "mic", "chat", NUMBERS[1], NUMBERS[2]]
        caller = await rig.caller(NUMBERS[2])
        await caller.ring()
        await app.wait("call.started")
        caller.say(spoken(WISH))
        assert (await app.wait("message.confirmed"))["text"] == "Hello there."
        assert app.count("error") == 0
    asked = asked_of(rig)
    assert asked["model"] == MODEL
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert len(rig.vendors.flux.connections) == 1


@pytest.mark.proves("row-31", "row-35")
async def test_an_agent_of_a_later_era_says_all_in_one_go(sdk: Path) -> None:
    """Model as a shortcut, prompt and greeting beside it; who speaks the greeting differs by era, not what is heard."""

    def hello(request: Request) -> Reply:
        return Reply("Hello there.")

    config = {**CONFIG, "llm": f"openai/{MODEL}", "prompt": "Be brief.", "greeting": "Welcome."}
    async with running([Say(WISH)], hello) as rig, app_of(sdk, rig, "tool", number=NUMBER, config=config) as app:
        if await is_first_era(app):
            pytest.skip("0.1.x has no greeting, and deploy() for the rest")
        await app.wait("channel.added")
        caller = await rig.caller()
        await caller.ring()
        assert (await app.wait("message.confirmed"))["text"] == "Welcome."
        await app.wait("bot.finished")
        caller.say(spoken(WISH))
        assert (await app.wait("message.confirmed"))["text"] == "Hello there."
    asked = asked_of(rig)
    assert asked["model"] == MODEL
    assert [entry["content"] for entry in asked["messages"]] == ["Be brief.", "Welcome.", WISH]


@pytest.mark.proves("row-45")
async def test_barge_in_aborts_the_apps_stream(sdk: Path) -> None:
    says = [Say(WISH), Say(STOP)]
    async with running(says) as rig, app_of(sdk, rig, "stream", number=NUMBER, config=CONFIG) as app:
        await app.wait("channel.added")
        caller = await rig.caller()
        await caller.ring()
        await app.wait("call.started")
        caller.say(spoken(WISH))
        await app.wait("bot.speaking")
        await caller.wait_bot_audible()
        caller.say(spoken(STOP))
        await app.wait("bot.interrupted")
        await app.wait("turn.continued")
        over = await app.wait("stream over")
        assert over["aborted"]
        assert app.count("signal") == 1
        assert (await app.wait("turn.end"))["text"].endswith("three people")


@pytest.mark.proves("row-185", "row-186")
async def test_event_streams_carry_every_event_of_the_agents_they_are_for(sdk: Path) -> None:
    agents = [{"id": name, "number": number, "config": CONFIG} for name, number in zip("ab", NUMBERS[:2], strict=True)]
    async with running([Say(WISH), Say(STOP)]) as rig, app_of(sdk, rig, "events", agents=agents) as app:
        for _ in agents:
            await app.wait("channel.added")
        for number in NUMBERS[:2]:
            caller = await rig.caller(number)
            await caller.ring()
            await app.wait("bot.finished")
            caller.say(spoken(WISH))
            await app.wait("bot.word", word="all")
            caller.say(spoken(STOP))
            await app.wait("bot.interrupted")
            await caller.hang_up()
            await app.wait("call.ended")
        await app.wait("sse", stream="all", event="call.ended")
    streams: dict[str, list[Sight]] = {}
    for sight in app.seen:
        if sight["saw"] == "sse":
            streams.setdefault(sight["stream"], []).append(sight)
    told = {name: {sight["event"] for sight in sights} for name, sights in streams.items()}
    for name in ("one agent", "tenant", "all"):
        assert told[name] >= SSE_EVENTS
    for name in ("one agent", "tenant"):
        assert {sight["data"]["agent"] for sight in streams[name][1:]} == {"a"}
    assert {sight["data"]["agent"] for sight in streams["all"][1:]} == {"a", "b"}


SSE_EVENTS = {
    *("connected", "call.started", "call.ended", "user.speaking", "user.message", "turn.end"),
    *("speech.started", "speech.ended", "bot.speaking", "bot.word", "bot.finished", "bot.interrupted"),
}
"""Of the thirteen, all but `turn.pause`, which a recogniser with turns of its own (Flux) never causes."""


@pytest.mark.proves("row-145", "row-146", "row-147", "row-148", "row-149", "row-152", "row-155")
@pytest.mark.parametrize("mode", ["dev", "staging"])
async def test_a_developers_app_gets_its_own_callers_and_production_all_others(sdk: Path, mode: str) -> None:
    """0.1.x writes the slug by itself and never repeats the callers; later eras are told the slug and repeat them."""
    environment = {"PINECALL_MODE": mode, "PINECALL_DEV_ID": "berna"}
    slug = "dev-berna-mara" if mode == "dev" else "staging-mara"
    async with running() as rig, app_of(sdk, rig, "host", agents=one_agent()) as production:
        await production.wait("channel.added", ref=NUMBER)
        first = await is_first_era(production)
        name = "mara" if first else slug
        mine = [{**one, "id": name} for one in one_agent()]
        async with app_of(sdk, rig, "host", agents=mine, mode=environment) as dev:
            await dev.wait("channel.added", ref=NUMBER)
            agents = {agent.key.slug for agent in rig.gateway.registry.of_org("org_main")}
            assert agents == {"mara", slug}
            await dev.order("callers", id=name, callers=["+34 600 000 001"])
            await _heard(rig, slug)
            for caller, app in (("+34600000001", dev), ("+15550009999", production)):
                await (await rig.caller(NUMBER, caller)).ring()
                assert (await app.wait("call.started"))["from"] == caller
            cut_agent_sockets(rig)
            await dev.wait("connected")
            await dev.wait("channel.added", ref=NUMBER)
            await _heard(rig, slug)
            await (await rig.caller(NUMBER, "+34600000001")).ring()
            started = await dev.wait("call.started")
            while started["from"] != "+34600000001":
                started = await dev.wait("call.started")
            assert dev.count("error") == production.count("error") == 0


async def _heard(rig: Rig, slug: str) -> None:
    """Until the gateway knows whose calls that agent gets."""
    async with asyncio.timeout(10):
        dev = AgentKey("org_main", slug)
        while (agent := rig.gateway.registry.find(dev)) is None or not agent.callers:  # noqa: ASYNC110 - nobody's event
            await asyncio.sleep(0.02)
