"""What is left of a call, on disk and in Redis, and organisations that several gateways share (behaviour §2)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from server.auth import digest_of
from tests.phone_rig import running, spoken
from tests.redis_server import RedisServer, eventually
from tests.redis_server import redis_server as redis_server
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.test_two_gateways import sharing

ACME = "pk_live_the_key_of_acme_1"


@pytest.mark.proves("row-191")
async def test_nothing_that_was_said_is_left_anywhere_after_a_call(
    tmp_path: Path, redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("zanzibar", "quetzal", "marmalade")

    def model(_request: Request) -> Reply:
        return Reply("The word is quetzal.")

    url = SecretStr(redis_server.url)
    async with running([Say("My word is zanzibar")], model, redis_url=url, data_dir=tmp_path / "var") as rig:
        await eventually(lambda: rig.gateway.ready)
        agent = await rig.agent("mara", prompt="Keep marmalade.", llm="openai:gpt-test")
        caller, call = await rig.call(agent)
        caller.say(spoken("My word is zanzibar"))
        await agent.wait("bot.finished")
        await caller.hang_up()
        ended = await agent.told(call, "call.ended")
        assert "zanzibar" in json.dumps(ended["messages"]), "the agent is given what was said"
        kept = redis_server.ask("KEYS", "*").split("\n")
        read = {"string": "GET", "hash": "HGETALL"}
        dumped = " ".join(redis_server.ask(read[redis_server.ask("TYPE", key)], key) for key in kept)
    out, err = capfd.readouterr()
    files = contents(tmp_path)
    for word in words:
        assert word not in (dumped + files + out + err).lower()


def contents(folder: Path) -> str:
    """Everything that lies there."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode(errors="replace")


# --- several gateways ---


async def test_gateways_on_one_redis_know_the_same_organisations(redis_server: RedisServer) -> None:
    redis_server.ask("SET", f"keys:{digest_of(ACME).hex()}", "org_acme")
    async with sharing(redis_server) as one, sharing(redis_server) as other:
        for rig in (one, other):
            await eventually(lambda rig=rig: rig.gateway.organisations.keys.org_of(ACME) == "org_acme")
        agent = await one.connected(ACME, "org_acme")
        await agent.ask("agent.create", "agent.created", agent_id="mara")
        await other.agent("mara", "+442071838750")
        rival = await other.connected(ACME, "org_acme")
        assert (await rival.ask("agent.create", "error", agent_id="mara"))["code"] == "AGENT_IN_USE"
        redis_server.ask("DEL", f"keys:{digest_of(ACME).hex()}")
        for connection in (agent, rival):
            assert (await connection.wait("error", code="INVALID_KEY"))["error"] == "This API key was revoked"
