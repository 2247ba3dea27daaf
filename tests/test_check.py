"""`voice-gateway check`: what it finds on a fresh machine, with vendors, Twilio and Redis, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import SecretStr

from server import cli
from server.check.command import as_json, as_text, examine
from server.check.findings import Finding, Level
from server.settings import Settings
from tests.phone_rig import NUMBER, running
from tests.redis_server import RedisServer
from tests.redis_server import redis_server as redis_server
from tests.simulators.twilio_resources import Domain
from tests.simulators.twilio_rest import SimulatedTwilioRest

GOOD = "good-key"
SECRETS = ("good-key", "bad-key", "simulated-token", "hunter2")


@asynccontextmanager
async def vendors(skew: timedelta = timedelta()) -> AsyncGenerator[str]:
    """Every vendor's cheap request on one origin, with that vendor's way to show a key."""
    app = FastAPI()

    async def answer(request: Request) -> Response:
        headers = request.headers
        path = request.url.path
        shown = {
            "/v1/projects": headers.get("authorization", "").removeprefix("Token "),
            "/v1/user": headers.get("xi-api-key"),
            "/v1/models": headers.get("authorization", "").removeprefix("Bearer "),
            "/voices": headers.get("x-api-key") if headers.get("cartesia-version") else None,
            "/v2/pre-recorded": headers.get("x-gladia-key"),
        }.get(path)
        date = {"Date": format_datetime(datetime.now(UTC) + skew, usegmt=True)}
        if shown == "limited-key":
            return JSONResponse({"detail": {"status": "missing_permissions"}}, 401, date)
        if shown == "empty-key":
            return JSONResponse({}, 402, date)
        if shown == "narrow-key":
            return JSONResponse({}, 403, date)
        return JSONResponse({}, 200 if shown == GOOD else 401, date)

    app.add_api_route("/{path:path}", answer)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_config=None, date_header=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def found(tmp_path: Path, **values: Any) -> list[Finding]:
    """What a check with these settings finds."""
    values = {"port": free_port(), "data_dir": tmp_path / "var", **values}
    findings = await examine(Settings(_env_file=None, **values))  # pyright: ignore[reportCallIssue]
    shown = as_text(findings, passed=True) + as_json(findings, passed=True)
    assert not any(secret in shown for secret in SECRETS)
    assert all(finding.advice for finding in findings if finding.level in (Level.WARNING, Level.FAILED))
    return findings


def levels(findings: list[Finding], what: str) -> list[Level]:
    return [finding.level for finding in findings if finding.what.startswith(what)]


def texts(findings: list[Finding], what: str) -> str:
    return "\n".join(finding.text for finding in findings if finding.what.startswith(what))


def test_a_fresh_machine_without_any_setting_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", str(free_port()))
    for words, passed in ((["--json"], True), ([], True)):
        monkeypatch.setattr(sys, "argv", ["voice-gateway", "check", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, _ = capsys.readouterr()
        assert ended.value.code == 0, out
        if words:
            answer = json.loads(out)
            assert answer["ok"] is passed
            assert {"what", "level", "text", "advice"} == answer["findings"][0].keys()
        else:
            assert out.endswith("\nall is well\n")
    assert list(tmp_path.iterdir()) == [], "a check leaves nothing behind"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("PORT", "many-hunter2", 2), ("API_KEYS_FILE", "missing.yaml", 2), ("DATA_DIR", "/proc/x", 1)],
)
def test_the_exit_code_tells_failing_from_not_being_able_to_look(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", str(free_port()))
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["voice-gateway", "check", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == code
    assert json.loads(out)["ok"] is False
    assert name in out
    assert "hunter2" not in out + err


async def test_each_vendor_is_shown_its_key_the_way_it_wants(tmp_path: Path) -> None:
    async with vendors() as origin:
        bases = {f"{name}_base_url": origin for name in ("deepgram", "elevenlabs", "cartesia", "gladia")}
        bases |= {f"{name}_base_url": origin + "/v1" for name in ("openai", "mistral")}
        names = ("deepgram", "elevenlabs", "cartesia", "gladia", "openai", "mistral")
        good = await found(tmp_path, **bases, **{f"{name}_api_key": SecretStr(GOOD) for name in names})
        assert [levels(good, name)[0] for name in names] == [Level.OK] * 6
        bad = await found(tmp_path, **bases, **{f"{name}_api_key": SecretStr("bad-key") for name in names})
        assert [levels(bad, name)[0] for name in names] == [Level.FAILED] * 6
        gladia = next(finding for finding in bad if finding.what == "gladia")
        assert gladia.advice == "Put a valid key into GLADIA_API_KEY."
        odd = await found(
            tmp_path,
            **bases,
            elevenlabs_api_key=SecretStr("limited-key"),
            deepgram_api_key=SecretStr("empty-key"),
            openai_api_key=SecretStr("narrow-key"),
        )
        assert levels(odd, "elevenlabs") == [Level.OK], "a key made for speech alone is a good key"
        assert levels(odd, "deepgram") == [Level.WARNING]
        assert levels(odd, "openai") == [Level.WARNING]


async def test_keys_of_organisations_are_checked_too_and_said_whose_they_are(tmp_path: Path) -> None:
    path = tmp_path / "orgs.yaml"
    path.write_text("org_acme: {keys: [pk_live_12], credentials: {deepgram: bad-key}}")
    async with vendors() as origin:
        findings = await found(tmp_path, api_keys_file=path, deepgram_base_url=origin, deepgram_api_key=SecretStr(GOOD))
    assert levels(findings, "deepgram") == [Level.OK, Level.FAILED]
    assert next(one for one in findings if one.what == "deepgram (org_acme)").advice.endswith("of org_acme.")
    assert levels(findings, "API keys") == [Level.OK]
    assert levels(findings, "API_KEYS_FILE") == [Level.WARNING], "others may read it"


async def test_a_vendor_that_cannot_be_reached_is_told_at_once(tmp_path: Path) -> None:
    async with asyncio.timeout(4):
        findings = await found(
            tmp_path, deepgram_base_url=f"http://127.0.0.1:{free_port()}", deepgram_api_key=SecretStr(GOOD)
        )
    assert levels(findings, "deepgram") == [Level.FAILED]
    assert "cannot be reached: no connection" in texts(findings, "deepgram")


async def test_an_openai_of_ones_own_needs_no_key(tmp_path: Path) -> None:
    async with vendors() as origin:
        findings = await found(tmp_path, openai_base_url=origin + "/v1")
    assert levels(findings, "openai") == [Level.FAILED], "this one does"


@pytest.mark.parametrize(
    ("skew", "level", "text"),
    [(0, Level.OK, "agrees"), (30, Level.WARNING, "30 s behind"), (-3600, Level.FAILED, "3600 s ahead")],
)
async def test_a_clock_that_is_wrong_is_noticed(tmp_path: Path, skew: int, level: Level, text: str) -> None:
    async with vendors(timedelta(seconds=skew)) as origin:
        findings = await found(tmp_path, deepgram_base_url=origin, deepgram_api_key=SecretStr(GOOD))
    assert levels(findings, "clock") == [level]
    assert text in texts(findings, "clock")


async def test_a_port_is_free_ours_or_somebody_elses(tmp_path: Path) -> None:
    findings = await found(tmp_path)
    assert "free" in texts(findings, "port")
    async with running() as rig:
        findings = await found(tmp_path, port=rig.port)
        assert levels(findings, "port") == [Level.OK]
        assert "our gateway is running" in texts(findings, "port")
    async with vendors() as origin:
        findings = await found(tmp_path, port=int(origin.rpartition(":")[2]))
        assert levels(findings, "port") == [Level.FAILED]


async def test_redis_is_there_or_what_to_do(tmp_path: Path, redis_server: RedisServer) -> None:
    redis_server.ask("HSET", "org:org_acme", "limits", "{")
    findings = await found(tmp_path, redis_url=SecretStr(redis_server.url))
    assert levels(findings, "Redis") == [Level.OK]
    assert "answers in" in texts(findings, "Redis")
    assert levels(findings, "org:org_acme") == [Level.FAILED]
    redis_server.ask("CONFIG", "SET", "requirepass", "other-password")
    secret = SecretStr(redis_server.url.replace("redis://", "redis://:hunter2@"))
    findings = await found(tmp_path, redis_url=secret)
    assert levels(findings, "Redis") == [Level.FAILED]
    assert "password" in texts(findings, "Redis")
    redis_server.kill()
    findings = await found(tmp_path, redis_url=secret)
    assert levels(findings, "Redis") == [Level.FAILED]
    assert "does not answer" in texts(findings, "Redis")


async def test_redis_that_hangs_does_not_hang_the_check(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.check.shared.DEADLINE", 0.2)
    redis_server.freeze()
    try:
        findings = await found(tmp_path, redis_url=SecretStr(redis_server.url))
    finally:
        redis_server.thaw()
    assert levels(findings, "Redis") == [Level.FAILED]


def account(twilio: SimulatedTwilioRest) -> dict[str, Any]:
    return {
        "twilio_account_sid": twilio.account_sid,
        "twilio_auth_token": SecretStr(twilio.auth_token),
        "twilio_base_url": twilio.base_url,
    }


async def test_numbers_and_domains_that_send_their_calls_here_and_elsewhere(tmp_path: Path) -> None:
    async with SimulatedTwilioRest().running() as twilio:
        twilio.own(NUMBER, "+12025550142")
        twilio.domains.append(Domain(twilio.account_sid, "acme.sip.twilio.com"))
        public = "https://voice.example.invalid"
        findings = await found(tmp_path, public_url=public, **account(twilio))
        assert Level.WARNING in levels(findings, "Twilio")
        assert "no number and no SIP domain sends its calls here" in texts(findings, "Twilio")
        twilio.numbers[0].voice_url = "https://VOICE.example.invalid:443/twilio/voice"
        twilio.domains[0].voice_url = public + "/twilio/voice"
        findings = await found(tmp_path, public_url=public, **account(twilio))
        assert levels(findings, "Twilio") == [Level.OK, Level.OK, Level.NOTE]
        assert f"calls of {NUMBER}, acme.sip.twilio.com come here" in texts(findings, "Twilio")
        assert "calls of +12025550142 go elsewhere" in texts(findings, "Twilio")
        twilio.balance = "0.00"
        findings = await found(tmp_path, public_url=public, **account(twilio))
        assert levels(findings, "Twilio")[0] is Level.WARNING


async def test_a_twilio_account_that_is_refused_or_cannot_be_reached(tmp_path: Path) -> None:
    async with SimulatedTwilioRest().running() as twilio:
        wrong = {**account(twilio), "twilio_auth_token": SecretStr("bad-key")}
        findings = await found(tmp_path, public_url="https://voice.example.invalid", **wrong)
        assert levels(findings, "Twilio") == [Level.FAILED]
    findings = await found(tmp_path, **{**wrong, "twilio_base_url": f"http://127.0.0.1:{free_port()}"})
    assert levels(findings, "Twilio") == [Level.FAILED]
    assert "cannot reach Twilio" in texts(findings, "Twilio")
    assert levels(findings, "PUBLIC_URL") == [Level.FAILED], "Twilio without an address to call"


async def test_the_public_address_is_tried_from_outside(tmp_path: Path) -> None:
    async with running() as rig:
        findings = await found(tmp_path, port=rig.port, public_url=rig.http)
        assert levels(findings, "websockets") == [Level.OK]
        assert "reaches a gateway" in texts(findings, "PUBLIC_URL")
        assert Level.FAILED in levels(findings, "PUBLIC_URL"), "it is not https"
        async with vendors() as elsewhere:
            findings = await found(tmp_path, port=rig.port, public_url=elsewhere)
            assert "is not our gateway" in texts(findings, "PUBLIC_URL")
    findings = await found(tmp_path, public_url="https://nowhere.invalid")
    assert levels(findings, "PUBLIC_URL")[-1] is Level.FAILED


async def test_a_check_that_breaks_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_visit: object) -> list[Finding]:
        raise RuntimeError("good-key")

    monkeypatch.setattr("server.check.command.check_redis", broken)
    findings = await found(tmp_path)
    assert levels(findings, "Redis") == [Level.FAILED]
    assert levels(findings, "models") == [Level.OK]
