"""What keeps organisations, agents and calls apart: the nine rules of behaviour §2, on a whole gateway."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from demo.caller import SoftwareCaller
from demo.dialling import Dial, Outcome
from tests.client_rig import OTHER_KEY, RecordedCall, vanish
from tests.client_rig import running as agents_running
from tests.listening import LIVE
from tests.phone_rig import KEY, NUMBER, Agent, Rig, running, spoken
from tests.redis_server import eventually
from tests.redis_server import redis_server as redis_server
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

ACME, ACME_NUMBER = "pk_live_the_key_of_acme_1", "+12025550142"
CONFIG: dict[str, Any] = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
MODEL: dict[str, Any] = {**CONFIG, "llm": "openai:gpt-test"}
SID_ACME, SID_SERVER = "AC" + "a" * 32, "AC" + "0" * 32


@asynccontextmanager
async def two_organisations(tmp_path: Path, about_acme: str = "", **options: Any) -> AsyncGenerator[Rig]:
    """A gateway with `org_main` (KEY) and `org_acme` (ACME)."""
    path = tmp_path / "organisations.yaml"
    path.write_text(f"org_acme:\n  keys: [{ACME}]\n{about_acme}")
    async with running(api_keys_file=path, data_dir=tmp_path / "var", **options) as rig:
        yield rig


async def acme_agent(rig: Rig, agent_id: str = "mara", number: str = ACME_NUMBER, **config: object) -> Agent:
    agent = await rig.connected(ACME, "org_acme")
    await agent.ask("agent.create", "agent.created", agent_id=agent_id, **{**CONFIG, **config})
    if number:
        await agent.ask("channel.add", "channel.added", agent_id=agent_id, type="phone", ref=number)
    return agent


def calls_seen(agent: Agent) -> set[str]:
    return {frame["call_id"] for frame in agent.frames if "call_id" in frame}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# --- 1 and 3: slugs and events ---


@pytest.mark.proves("row-188", "row-192")
async def test_two_organisations_have_the_same_slug_at_once_and_each_gets_its_own_events(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig:
        ours, theirs = await rig.agent("mara"), await acme_agent(rig)
        _, our_call = await rig.call(ours)
        _, their_call = await rig.call(theirs, ACME_NUMBER)
        await ours.say(our_call, "Here is ours.", "m1")
        await theirs.say(their_call, "Here is theirs.", "m1")
        await ours.wait("bot.finished")
        await theirs.wait("bot.finished")
        assert calls_seen(ours) == {our_call}
        assert calls_seen(theirs) == {their_call}
        told = [frame for agent in (ours, theirs) for frame in agent.frames if "call_id" in frame]
        assert {frame["agent_id"] for frame in told} == {"mara"}


@pytest.mark.proves("row-188")
async def test_commands_for_a_call_of_another_organisation_are_met_with_silence(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig:
        ours, theirs = await rig.agent("mara"), await acme_agent(rig)
        caller, call = await rig.call(ours)
        theirs.forget()
        for command in ("call.hangup", "call.hold", "call.mute", "bot.cancel", "bot.clear", "history.get"):
            await theirs.send(command, call_id=call, agent_id="mara")
        await theirs.say(call, "I am not supposed to be heard.", "m9")
        await theirs.send("call.forward", call_id=call, to="+15550009999")
        await theirs.send("session.configure", call_id=call, config={"language": "es"})
        await theirs.send("ping")
        await theirs.wait("pong")
        assert theirs.count("error") == 0
        assert calls_seen(theirs) == set()
        await ours.say(call, "Still here.", "m1")
        await ours.wait("bot.finished", message_id="m1")
        assert not caller.is_over
        assert {frame.get("message_id") for frame in ours.of_call(call)} <= {None, "m1"}


@pytest.mark.proves("row-186", "row-189")
async def test_connections_of_one_organisation_see_the_calls_of_their_own_agents_only(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig:
        north, south = await rig.agent("north"), await rig.agent("south", "+442071838750")
        _, call = await rig.call(north)
        _, other = await rig.call(south, "+442071838750")
        await south.send("call.hangup", call_id=call)
        await north.say(call, "Hello from the north.", "m1")
        await north.wait("bot.finished")
        assert (calls_seen(north), calls_seen(south)) == ({call}, {other})


# --- 2: numbers ---


@pytest.mark.proves("row-188")
@pytest.mark.parametrize(
    ("channel", "code", "named"),
    [
        ({"type": "phone", "ref": NUMBER}, "PHONE_IN_USE", "phone"),
        ({"type": "phone", "ref": "sip:desk@acme.sip.twilio.com"}, "PHONE_IN_USE", "phone"),
        ({"type": "whatsapp", "ref": "1060001", "accessToken": "t"}, "CHANNEL_IN_USE", "ref"),
    ],
)
@pytest.mark.parametrize("slug", ["zoe", "dev-ana-zoe"])
async def test_a_number_of_another_organisation_is_in_use_and_nobody_says_by_whom(
    tmp_path: Path, channel: dict[str, str], code: str, named: str, slug: str
) -> None:
    async with two_organisations(tmp_path) as rig:
        ours = await rig.agent("mara", "+442071838750")
        added = {**channel, "accessToken": "t"} if channel["type"] == "whatsapp" else channel
        await ours.ask("channel.add", "channel.added", agent_id="mara", **added)
        theirs = await acme_agent(rig, slug)
        refused = await theirs.ask("channel.add", "error", agent_id=slug, **added)
        assert (refused["code"], refused[named]) == (code, channel["ref"])
        assert "owner" not in refused
        assert "mara" not in json.dumps({**refused, "agent_id": ""})
        assert "org_main" not in json.dumps(refused)


@pytest.mark.proves("row-188")
async def test_a_development_agent_shares_no_number_across_organisations(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig:
        ours = await rig.agent("mara")
        theirs = await acme_agent(rig, "dev-eve-mara", "")
        await theirs.send("dev.config", callers=["+15550100199"])
        await theirs.ask("channel.add", "error", agent_id="dev-eve-mara", type="phone", ref=NUMBER)
        await rig.call(ours)
        assert theirs.count("call.started") == 0


# --- the carrier ---


async def test_what_an_organisations_own_carrier_account_says_concerns_nobody_else(tmp_path: Path) -> None:
    twilio = f"  twilio: {{account_sid: {SID_ACME}, auth_token: token-of-acme}}\n"
    async with two_organisations(tmp_path, twilio, twilio_auth_token=SecretStr("token-of-all")) as rig:
        ours, theirs = await rig.agent("mara"), await acme_agent(rig)

        async def rings(to: str, sid: str, token: str) -> Outcome | int:
            try:
                caller = await rig.dialling(Dial(rig.http, to, account_sid=sid, auth_token=token))
                return (await caller.ring()).outcome
            except httpx2.HTTPStatusError as refused:
                return refused.response.status_code

        assert await rings(ACME_NUMBER, SID_ACME, "token-of-acme") is Outcome.CONNECTED
        assert await rings(NUMBER, SID_SERVER, "token-of-all") is Outcome.CONNECTED
        assert await rings(NUMBER, SID_ACME, "token-of-acme") is Outcome.REJECTED, "not their number"
        await ours.wait("call.started")
        await theirs.wait("call.started")
        form = {"CallSid": next(iter(calls_seen(ours))), "CallStatus": "completed", "AccountSid": SID_ACME}
        rig.gateway.phone.status(form)
        assert len(rig.gateway.calls) == 2
        for sid, token in ((SID_ACME, "token-of-all"), (SID_SERVER, "token-of-acme"), ("", "token-of-acme")):
            dial = Dial(rig.http, ACME_NUMBER, account_sid=sid, auth_token=token)
            form = {"CallSid": "CA1", "To": ACME_NUMBER, "From": "+15550100199", "AccountSid": sid}
            async with httpx2.AsyncClient() as http:
                url = f"{rig.http}/twilio/voice"
                answer = await http.post(url, data=form, headers=dial.signature(url, form))
            assert answer.status_code == 403, (sid, token)


# --- 4: tokens ---


@pytest.mark.proves("row-187")
@pytest.mark.parametrize("channel", ["chat", "webrtc"])
async def test_a_token_is_for_one_agent_of_one_organisation(tmp_path: Path, channel: str) -> None:
    async with two_organisations(tmp_path) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        await rig.agent("mara")
        await acme_agent(rig, "zoe")
        path = f"/{channel}/token"
        assert (await http.get(path, params={"agent_id": "zoe"}, headers=bearer(ACME))).status_code == 200
        foreign = await http.get(path, params={"agent_id": "zoe"}, headers=bearer(KEY))
        unknown = await http.get(path, params={"agent_id": "nobody"}, headers=bearer(KEY))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == json.loads(unknown.text.replace("nobody", "zoe")), "it might as well not be there"


@pytest.mark.proves("row-187")
async def test_a_chat_token_opens_its_own_agent_whatever_the_page_asks_for(tmp_path: Path) -> None:
    def model(request: Request) -> Reply:
        return Reply(f"I am {request.body['messages'][0]['content']}")

    async with two_organisations(tmp_path, model=model) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        tenants = await rig.agent("mara", prompt="Mara.", **{"llm": "openai:gpt-test"})
        await tenants.ask("agent.create", "agent.created", agent_id="zoe", prompt="Zoe.", **MODEL)
        theirs = await acme_agent(rig, "mara", prompt="Mara of Acme.", llm="openai:gpt-test")
        minted = await http.get("/chat/token", params={"agent_id": "mara"}, headers=bearer(KEY))
        address = rig.http.replace("http", "ws") + "/chat/ws?token=" + minted.json()["token"]
        async with connect(f"{address}&agent_id=zoe") as wrong:
            with suppress(ConnectionClosed):
                while True:
                    assert json.loads(await wrong.recv())["event"] == "error"
            assert wrong.close_code == 1008
        minted = await http.get("/chat/token", params={"agent_id": "mara"}, headers=bearer(KEY))
        async with connect(rig.http.replace("http", "ws") + "/chat/ws?token=" + minted.json()["token"]) as page:
            await page.send(json.dumps({"event": "message", "text": "Who are you?"}))
            async with asyncio.timeout(10):
                while (frame := json.loads(await page.recv()))["event"] != "chat.done":
                    pass
        assert frame["text"] == "I am Mara."
        assert theirs.count("llm.chat.started") == 0


# --- 5: listening ---


@pytest.mark.proves("row-135")
async def test_a_call_of_another_organisation_cannot_be_listened_to(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        agent = await rig.agent("mara", media=LIVE)
        _, call = await rig.call(agent)
        page = await http.get(f"/live/{call}/player", params={"token": ACME})
        assert page.status_code == 403
        assert "org_main" not in page.text
        with pytest.raises(InvalidStatus) as refused:
            await connect(rig.http.replace("http", "ws") + f"/live/{call}/ws?token={ACME}")
        assert refused.value.response.status_code == 403
        async with connect(rig.http.replace("http", "ws") + f"/live/{call}/ws?token={KEY}"):
            pass


# --- 6: lists ---


@pytest.mark.proves("row-188")
async def test_lists_and_kicks_reach_no_further_than_the_organisation(tmp_path: Path) -> None:
    async with two_organisations(tmp_path) as rig, httpx2.AsyncClient(base_url=rig.http) as http:
        ours = await rig.agent("mara")
        theirs = await acme_agent(rig, "zoe")
        listed = (await http.get("/api/sdk/agents", headers=bearer(KEY))).json()
        assert [agent["slug"] for agent in listed["agents"]] == ["mara"]
        assert listed["phone_map"] == {NUMBER: "mara"}
        assert "zoe" not in json.dumps(listed)
        assert ACME_NUMBER not in json.dumps(listed)
        phones = (await http.get("/api/sdk/phone-numbers", headers=bearer(KEY))).text
        assert ACME_NUMBER not in phones
        refused = await http.delete("/api/sdk/agents/zoe", headers=bearer(KEY))
        assert refused.status_code == 404
        assert "org_acme" not in refused.text
        assert theirs.count("agent.displaced") == ours.count("agent.displaced") == 0
        assert (await http.get("/api/sdk/agents", headers=bearer("pk_publishable_0000"))).status_code == 401


# --- 7: what is said ---


@pytest.mark.proves("row-187", "row-192")
async def test_prompts_variables_tools_and_histories_never_cross_calls(tmp_path: Path) -> None:
    """Six calls at once, three each of two agents of the same name: every request holds what belongs to its call."""
    tool: dict[str, Any] = {
        "type": "function",
        "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}},
    }

    def model(request: Request) -> Reply:
        mine = re.findall(r"secret-\w+", json.dumps(request.body["messages"]))
        assert len(set(mine)) == 1, f"a request that mixes {set(mine)}"
        if any(entry["role"] == "tool" for entry in request.body["messages"]):
            return Reply(f"It is {mine[0]}.")
        return Reply(tools=(CalledTool("look_up", "{}", "c1"),))

    async with two_organisations(tmp_path, model=model, script=[Say("What is it")]) as rig:
        ours = await rig.agent("mara", prompt="You keep {{mine}}.", llm="openai:gpt-test", tools=[tool])
        theirs = await acme_agent(rig, prompt="You keep {{mine}}.", llm="openai:gpt-test", tools=[tool])
        owners: dict[str, Agent] = {}
        callers: list[SoftwareCaller] = []
        for agent, number in ((ours, NUMBER), (theirs, ACME_NUMBER)) * 3:
            caller, call = await rig.call(agent, number)
            owners[call] = agent
            callers.append(caller)
            await agent.send("history.set_vars", call_id=call, vars={"mine": f"secret-{call}"})
        await asyncio.sleep(0.1)
        for caller in callers:
            caller.say(spoken("What is it"))
        for call, agent in owners.items():
            asked = await agent.told(call, "llm.tool_call")
            result = [{"tool_call_id": one["id"], "result": f"secret-{call}"} for one in asked["tool_calls"]]
            await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=result)
        for call, agent in owners.items():
            done = await agent.told(call, "bot.finished")
            assert done["text"] == f"It is secret-{call}."
        assert calls_seen(ours) | calls_seen(theirs) == set(owners)
        assert not calls_seen(ours) & calls_seen(theirs)


# --- 8: many agents, many sockets ---


@pytest.mark.proves("row-10", "row-189")
async def test_hundreds_of_agents_on_one_socket_are_told_apart() -> None:
    async with agents_running() as rig:
        many, few = await rig.connected(), await rig.connected(OTHER_KEY)
        for number in range(300):
            assert (await many.ask("agent.create", agent_id=f"Agent {number}"))["event"] == "agent.created"
        await few.ask("agent.create", agent_id="Agent 7")
        for number in (0, 7, 299):
            call = RecordedCall(f"agent-{number}")
            agent = rig.registry.admit(call)
            assert agent.link is not None
            call.attach(agent.link, agent.agent_id)
            started = await many.receive()
            assert (started["agent_id"], started["call_id"]) == (f"Agent {number}", call.call_id)
        await few.silence()
        vanish(few)
        await many.silence()


async def test_an_organisations_calls_are_limited_and_the_others_do_not_notice(tmp_path: Path) -> None:
    async with two_organisations(tmp_path, "  limits: {calls: 1}\n") as rig:
        ours, theirs = await rig.agent("mara"), await acme_agent(rig)
        caller, call = await rig.call(theirs, ACME_NUMBER)
        answer = await (await rig.caller(ACME_NUMBER)).ring()
        assert (answer.outcome, answer.detail) == (Outcome.REJECTED, "busy")
        await rig.call(ours)
        await rig.call(ours)
        await theirs.say(call, "I did not notice.", "m1")
        await theirs.wait("bot.finished")
        await caller.hang_up()
        await theirs.wait("call.ended")
        await eventually(lambda: len(rig.gateway.calls) == 2)
        await rig.call(theirs, ACME_NUMBER)


async def test_an_organisation_is_served_with_its_own_vendor_keys(tmp_path: Path) -> None:
    """The server has no key for the voice; Acme has one, and org_main is not served with it."""
    own = "  credentials: {elevenlabs: xi-simulated}\n"
    async with two_organisations(tmp_path, own, elevenlabs_api_key=None) as rig:
        ours = await rig.connected()
        refused = await ours.ask("agent.create", "error", agent_id="mara", **CONFIG)
        assert refused["code"] == "PROVIDER_KEY_REQUIRED"
        theirs = await acme_agent(rig)
        _, call = await rig.call(theirs, ACME_NUMBER)
        await theirs.say(call, "With a key of my own.", "m1")
        assert (await theirs.wait("bot.finished"))["text"] == "With a key of my own."
        assert len(rig.vendors.voice.connections) == 1


async def test_a_vendor_key_of_an_organisation_that_is_wrong_hurts_nobody_else(tmp_path: Path) -> None:
    async with two_organisations(tmp_path, "  credentials: {elevenlabs: stolen-key}\n") as rig:
        ours, theirs = await rig.agent("mara"), await acme_agent(rig)
        _, call = await rig.call(theirs, ACME_NUMBER)
        await theirs.say(call, "Nobody hears this.", "m1")
        error = await theirs.wait("error")
        assert (error["code"], error["call_id"]) == ("TTS_ERROR", call)
        assert "stolen-key" not in json.dumps(theirs.frames)
        _, call = await rig.call(ours)
        await ours.say(call, "All is well here.", "m1")
        await ours.wait("bot.finished")
        assert ours.count("error") == 0
