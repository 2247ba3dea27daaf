"""Organisations from the environment, a file and Redis: whose a key is, what each owns, and what a typo does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Never

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from server.auth import Keys, Source, digest_of
from server.keys import SettingsError
from server.organisations import file as organisations_file
from server.organisations import redis as organisations_redis
from server.organisations.directory import Organisations
from server.organisations.entries import BadEntry, KeyEntry, OrganisationEntry, read_document, read_hash, roll_of
from server.organisations.file import OrganisationsFile
from server.organisations.redis import OrganisationsRedis
from server.organisations.roll import KnownKey, Limits, TwilioAccess
from server.organisations.sources import OrganisationSources
from server.settings import Settings
from tests.redis_server import RedisServer, eventually
from tests.redis_server import redis_server as redis_server

ENV_KEY = "pk_live_of_the_environment_1"
FILE_KEY = "pk_live_of_the_file_00000001"
REDIS_KEY = "pk_live_of_redis_0000000001"
PAGE_KEY = "pk_publishable_of_the_file_1"
SID = "AC" + "1" * 32

DOCUMENT = f"""
org_acme:
  name: Acme
  keys:
    - {FILE_KEY}
    - {PAGE_KEY}
    - {{sha256: {digest_of("pk_shown_once_only").hex()}, preview: pk_show…only, name: laptop, created: 2026-01-31}}
  credentials: {{deepgram: dg-own}}
  twilio: {{account_sid: {SID}, auth_token: own-token}}
  limits: {{connections: 2, agents: 3, calls: 4, chats: 5}}
org_bare:
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organisations_file, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(organisations_redis, "LOOK_SECONDS", 0.05)


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # pyright: ignore[reportCallIssue, reportArgumentType]


@asynccontextmanager
async def known(**values: object) -> AsyncGenerator[Organisations]:
    """What a gateway with those settings knows, kept fresh."""
    sources = OrganisationSources(settings(**values), Keys([("org_main", ENV_KEY)]))
    following = asyncio.create_task(sources.run())
    try:
        yield sources.organisations
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def replace(path: Path, text: str) -> None:
    """As an editor does."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


# --- what is written ---


def test_a_file_says_who_the_organisations_are_and_what_they_own(tmp_path: Path) -> None:
    path = tmp_path / "organisations.yaml"
    path.write_text(DOCUMENT)
    keys = Keys([])
    values = settings(api_keys_file=path, twilio_auth_token="server-token")
    organisations = OrganisationSources(values, keys).organisations
    assert keys.org_of(FILE_KEY) == "org_acme"
    assert keys.org_of("pk_shown_once_only") == "org_acme"
    assert keys.org_of("pk_shown_once_onlx") is None
    acme = organisations.of("org_acme")
    assert (acme.name, acme.limits, acme.credentials) == ("Acme", Limits(2, 3, 4, 5), {"deepgram": "dg-own"})
    assert organisations.carrier("org_acme") == TwilioAccess(SID, "own-token")
    assert organisations.carrier_of_account(SID) == TwilioAccess(SID, "own-token")
    for org_id in ("org_bare", "org_nobody_wrote_down"):
        assert organisations.of(org_id).limits == Limits()
        assert organisations.carrier(org_id) == TwilioAccess("", "server-token")
    assert organisations.carrier_of_account("AC" + "2" * 32) == TwilioAccess("", "server-token")
    assert "own-token" not in repr(acme)
    assert "dg-own" not in repr(acme)


def test_a_publishable_key_names_its_organisation_and_opens_nothing(tmp_path: Path) -> None:
    keys = Keys([("org_main", PAGE_KEY), ("org_main", ENV_KEY)])
    assert keys.publishable_org(PAGE_KEY) == "org_main"
    assert keys.org_of(PAGE_KEY) is None
    assert keys.publishable_org(ENV_KEY) is None
    assert keys.publishable_org("pk_publishable_unknown") is None


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    as_yaml = roll_of(read_document(DOCUMENT.encode(), as_json=False))
    entries = {
        "org_acme": {
            "name": "Acme",
            "keys": [
                FILE_KEY,
                {"key": PAGE_KEY},
                {
                    "sha256": digest_of("pk_shown_once_only").hex(),
                    "preview": "pk_show…only",
                    "name": "laptop",
                    "created": "2026-01-31",
                },
            ],
            "credentials": {"deepgram": "dg-own"},
            "twilio": {"account_sid": SID, "auth_token": "own-token"},
            "limits": {"connections": 2, "agents": 3, "calls": 4, "chats": 5},
        },
        "org_bare": {},
    }
    assert roll_of(read_document(json.dumps(entries).encode(), as_json=True)) == as_yaml


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("org_a: {limits: {agnets: 3}}", "org_a.limits: Object contains unknown field `agnets`"),
        ("org_a: {limits: {agents: many-secret}}", "org_a.limits.agents: Expected `int`, got `str`"),
        ("org_a: {limits: {agents: -1}}", "org_a.limits.agents: Expected `int` >= 0"),
        ("org_a: {credentials: {deepgramm: secret}}", "org_a.credentials: 'deepgramm' is none of deepgram, elevenlabs"),
        ("org_a: {twilio: {account_sid: secret, auth_token: t}}", "org_a.twilio.account_sid: Expected `str` matching"),
        ("org_a: {keys: [secret]}", "org_a.keys: entry 1 must be 'pk_…'"),
        ("org_a: {keys: [{sha256: secret}]}", "org_a.keys: entry 1: sha256 must be 64 hexadecimal digits"),
        ("org_a: {keys: [{name: x}]}", "org_a.keys: entry 1 needs either the key or its sha256"),
        (
            "org_a: {keys: [pk_secret_1]}\norg_b: {keys: [pk_other_12, pk_secret_1]}",
            "org_b.keys: entry 2 is also a key of org_a",
        ),
        ("a b: {}", "an organisation's id must be letters"),
        ("- org_a", "must map organisations"),
        ("org_a: {keys: [secret\norg_b: x", "is not YAML, line 2"),
        ("\x00", "is not YAML"),
        ("org_a: {name: 0x_}", "is not YAML"),
        ("org_a: {name: " + "9" * 5000 + "}", "is not YAML"),
        ("org_a: " + "[" * 3000, "is not YAML"),
        ("org_a: {keys: [pk_secret_1]}\norg_b: {}\norg_a: {name: x}", "line 3: 'org_a' is written twice"),
        ("org_a: {pk_the_secret_key_of_org_a: a, pk_the_secret_key_of_org_a: b}", "line 1: pk_the_…rg_a is written"),
    ],
)
def test_a_typo_is_named_and_what_stood_there_is_not(text: str, why: str) -> None:
    with pytest.raises(BadEntry) as bad:
        roll_of(read_document(text.encode(), as_json=False))
    assert why in str(bad.value)
    assert "secret" not in str(bad.value)
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"org_a": {"name": "secret",}}', "is not JSON, line 1"),
        ('{"org_a": ' + "[" * 200_000, "is not JSON"),
        ('{"org_a": {"limits": {"calls": ' + "9" * 5000 + "}}}", "is not JSON"),
        ('{"org_a": {"limits": {"calls": NaN}}}', "org_a.limits.calls: Expected `int`, got `float`"),
        ('{"org_a": {"name": "secret", "name": "x"}}', "'name' is written twice"),
        ('{"org_a": {}, "org_a": {}}', "'org_a' is written twice"),
    ],
)
def test_a_typo_in_json_is_named_too(text: str, why: str) -> None:
    with pytest.raises(BadEntry) as bad:
        roll_of(read_document(text.encode(), as_json=True))
    assert why in str(bad.value)
    assert "secret" not in str(bad.value)


@pytest.mark.parametrize("limits", ["{", "[" * 3000, "9" * 5000, ""])
def test_a_hash_that_cannot_be_read_is_no_end_of_the_gateway(limits: str) -> None:
    with pytest.raises(BadEntry, match=r"^org_a\.limits: is not JSON$"):
        read_hash("org_a", {"limits": limits})


def test_entries_may_share_what_they_have_in_common() -> None:
    text = "org_a: &shared {name: A, limits: {calls: 5}}\norg_b: {<<: *shared, name: B}"
    entries = read_document(text.encode(), as_json=False)
    assert entries["org_a"].limits == entries["org_b"].limits is not None
    assert entries["org_b"].name == "B"


@pytest.mark.parametrize("text", [None, "org_a: [", "org_a: {keys: [x]}"])
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "organisations.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"^API_KEYS_FILE: .*organisations\.yaml: "):
        OrganisationSources(settings(api_keys_file=path), Keys([]))


def test_what_is_written_can_be_read_and_by_its_owner_only(tmp_path: Path) -> None:
    for name in ("organisations.json", "organisations.yaml"):
        file = OrganisationsFile(tmp_path / "new" / name)
        key = KeyEntry(key="pk_live_1", created="2026-01-31T12:00:00Z")
        document = {"org_a": OrganisationEntry(name="Ä", keys=[key])}
        file.write(document)
        assert roll_of(file.document()) == roll_of(document)
        assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
        assert [one.name for one in file.path.parent.iterdir() if one.name.startswith(".")] == []


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("org_a: {}")
    link.symlink_to(real)
    OrganisationsFile(link).write({"org_b": OrganisationEntry()})
    assert link.is_symlink()
    assert "org_b" in real.read_text()


# --- while it runs ---


async def test_a_change_of_the_file_counts_at_once_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "organisations.yaml"
    path.write_text(DOCUMENT)
    with capture_logs() as logs:
        async with known(api_keys_file=path) as organisations:
            keys = organisations.keys
            replace(path, f"org_new: {{keys: [{FILE_KEY}], limits: {{agents: 7}}}}")
            await eventually(lambda: keys.org_of(FILE_KEY) == "org_new")
            assert organisations.limits("org_new").agents == 7
            assert organisations.carrier_of_account(SID) is None
            replace(path, "org_new: {limits: {agents: seven}}")
            await eventually(lambda: any(line["event"] == "api_keys_file_unusable" for line in logs))
            await asyncio.sleep(0.1)
            path.unlink()
            await eventually(lambda: len([line for line in logs if line["event"] == "api_keys_file_unusable"]) == 2)
            assert keys.org_of(FILE_KEY) == "org_new"
            assert organisations.limits("org_new").agents == 7
            replace(path, "org_new: {}")
            await eventually(lambda: keys.org_of(FILE_KEY) is None)
    broken = [line for line in logs if line["event"] == "api_keys_file_unusable"]
    assert [line["why"] for line in broken] == [
        "org_new.limits.agents: Expected `int`, got `str`",
        "there is no such file; `voice-gateway keys make` begins one",
    ]


async def test_the_environment_comes_before_the_file_and_the_file_before_redis(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    path = tmp_path / "organisations.yaml"
    path.write_text(f"org_file: {{keys: [{ENV_KEY}, {FILE_KEY}]}}\norg_both: {{limits: {{agents: 1}}}}")
    for key in (ENV_KEY, FILE_KEY, REDIS_KEY):
        redis_server.ask("SET", f"keys:{hashlib.sha256(key.encode()).hexdigest()}", "org_redis")
    redis_server.ask("HSET", "org:org_both", "limits", '{"agents": 2}')
    redis_server.ask("HSET", "org:org_redis", "name", "In Redis", "limits", '{"agents": 3}')
    async with known(api_keys_file=path, redis_url=SecretStr(redis_server.url)) as organisations:
        keys = organisations.keys
        assert (keys.org_of(ENV_KEY), keys.org_of(FILE_KEY)) == ("org_main", "org_file")
        await eventually(lambda: keys.org_of(REDIS_KEY) == "org_redis")
        assert (keys.org_of(ENV_KEY), keys.org_of(FILE_KEY)) == ("org_main", "org_file")
        assert organisations.limits("org_both").agents == 1
        assert organisations.of("org_redis").name == "In Redis"
        replace(path, "org_file: {}")
        await eventually(lambda: keys.org_of(FILE_KEY) == "org_redis")


async def test_keys_in_redis_come_go_and_outlast_it(redis_server: RedisServer) -> None:
    name = f"keys:{digest_of(REDIS_KEY).hex()}"
    async with known(redis_url=SecretStr(redis_server.url)) as organisations:
        keys = organisations.keys
        await eventually(lambda: not keys.awaited)
        assert keys.org_of(REDIS_KEY) is None
        redis_server.ask("SET", name, "org_redis")
        await eventually(lambda: keys.org_of(REDIS_KEY) == "org_redis")
        redis_server.kill()
        await asyncio.sleep(0.2)
        assert keys.org_of(REDIS_KEY) == "org_redis"
        redis_server.start()  # it has forgotten everything, which is not the same as having been told to
        await asyncio.sleep(0.3)
        assert keys.org_of(REDIS_KEY) == "org_redis"
        redis_server.ask("SET", f"keys:{digest_of(FILE_KEY).hex()}", "org_redis")
        await eventually(lambda: keys.org_of(FILE_KEY) == "org_redis")
        assert keys.org_of(REDIS_KEY) is None
        redis_server.ask("DEL", f"keys:{digest_of(FILE_KEY).hex()}")
        await eventually(lambda: keys.org_of(FILE_KEY) is None)


async def test_a_broken_organisation_in_redis_keeps_what_it_was_and_leaves_the_others_alone(
    redis_server: RedisServer,
) -> None:
    for org_id, key in (("org_a", REDIS_KEY), ("org_b", FILE_KEY), ("org_c", ENV_KEY)):
        redis_server.ask("SET", f"keys:{digest_of(key).hex()}", org_id)
    redis_server.ask("SET", "keys:not-a-digest", "org_a")
    redis_server.ask("HSET", "org:org_a", "limits", '{"agents": 2}')
    redis_server.ask("SET", "org:org_b", "not a hash")
    redis = OrganisationsRedis(redis_server.url)
    with capture_logs() as logs:
        roll = await redis.load()
        assert roll.organisations["org_a"].limits.agents == 2
        assert {key.org_id for key in roll.keys} == {"org_a", "org_c"}, "whose limits nobody can read is not let in"
        redis_server.ask("HSET", "org:org_a", "limits", '{"agents": "two"}')
        redis_server.ask("DEL", "org:org_b")
        for _ in range(3):
            roll = await redis.load()
    await redis.aclose()
    assert roll.organisations["org_a"].limits.agents == 2
    assert {key.org_id for key in roll.keys} == {"org_a", "org_b", "org_c"}
    assert [line["why"] for line in logs] == ["is not a hash", "org_a.limits.agents: Expected `int`, got `str`"]


async def test_a_key_that_redis_tells_twice_counts_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def twice(_: object, match: str, **__: object) -> AsyncGenerator[str]:
        for _again in range(2):
            yield match.replace("*", digest_of(REDIS_KEY).hex() if match.startswith("keys:") else "org_a")

    redis_server.ask("SET", f"keys:{digest_of(REDIS_KEY).hex()}", "org_a")
    redis_server.ask("HSET", "org:org_a", "name", "A")
    monkeypatch.setattr(Redis, "scan_iter", twice)
    redis = OrganisationsRedis(redis_server.url)
    assert [key.org_id for key in await redis.keys()] == ["org_a"]
    await redis.aclose()


async def test_a_fault_of_ours_ends_neither_source_nor_gateway(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "organisations.yaml"
    path.write_text("org_a: {}")
    redis_server.ask("SET", f"keys:{digest_of(REDIS_KEY).hex()}", "org_redis")

    def fault(*_: object, **__: object) -> Never:
        raise KeyError("nobody foresaw this")

    async with known(api_keys_file=path, redis_url=SecretStr(redis_server.url)) as organisations:
        keys = organisations.keys
        await eventually(lambda: keys.org_of(REDIS_KEY) == "org_redis")
        with monkeypatch.context() as broken, capture_logs() as logs:
            broken.setattr(OrganisationsRedis, "load", fault)
            broken.setattr(OrganisationsFile, "load", fault)
            replace(path, "org_b: {}")
            await eventually(
                lambda: {"organisations_unreadable", "api_keys_file_unusable"} <= {line["event"] for line in logs}
            )
            await asyncio.sleep(0.15)
        assert len([line for line in logs if line["event"] == "organisations_unreadable"]) == 1
        replace(path, f"org_b: {{keys: [{FILE_KEY}]}}")
        redis_server.ask("DEL", f"keys:{digest_of(REDIS_KEY).hex()}")
        redis_server.ask("SET", f"keys:{digest_of(ENV_KEY).hex()}", "org_redis")
        await eventually(lambda: keys.org_of(FILE_KEY) == "org_b")
        await eventually(lambda: keys.org_of(REDIS_KEY) is None)


async def test_two_thousand_keys_in_redis_are_read_among_other_things(redis_server: RedisServer) -> None:
    redis = OrganisationsRedis(redis_server.url)
    made = [KnownKey(digest_of(f"pk_live_{number}"), f"org_{number % 7}", "pk_…") for number in range(2000)]
    for start in range(0, len(made), 500):
        words = [word for key in made[start : start + 500] for word in (f"keys:{key.digest.hex()}", key.org_id)]
        redis_server.ask("MSET", *words)
    redis_server.ask("SET", "vg:token:x", "y")
    assert {key.digest: key.org_id for key in (await redis.load()).keys} == {key.digest: key.org_id for key in made}
    await redis.aclose()


@pytest.mark.parametrize(
    ("account", "org_id", "allowed"),
    [
        (SID, "org_acme", True),
        (SID, "org_bare", False),
        ("AC" + "2" * 32, "org_bare", True),
        ("AC" + "2" * 32, "org_acme", True),
        ("", "org_bare", True),
    ],
)
def test_an_organisations_own_account_rings_its_own_agents_only(account: str, org_id: str, allowed: bool) -> None:
    organisations = Organisations(Keys([]), TwilioAccess("AC" + "2" * 32, "t"))
    organisations.learn(Source.FILE, roll_of(read_document(DOCUMENT.encode(), as_json=False)))
    assert organisations.may_ring(account, org_id) is allowed
