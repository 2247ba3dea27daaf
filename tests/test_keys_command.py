"""`voice-gateway keys`: as an operator types it, over a file and over Redis."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server import cli
from server.auth import Keys, digest_of
from server.organisations.entries import read_document, roll_of
from server.organisations.sources import OrganisationSources
from server.settings import Settings
from tests.redis_server import RedisServer
from tests.redis_server import redis_server as redis_server

Run = Callable[..., tuple[int, str, str]]
ENV_KEY = "pk_live_of_the_environment_1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command with settings; answers exit code, output and complaints."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **settings: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name.upper(), value)
            patch.setattr(sys, "argv", ["voice-gateway", "keys", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return run


def known(path: Path) -> Keys:
    keys = Keys([])
    OrganisationSources(Settings(_env_file=None, api_keys_file=path), keys)  # pyright: ignore[reportCallIssue]
    return keys


@pytest.mark.parametrize("name", ["keys.json", "deep/keys.yaml"])
def test_a_key_is_shown_once_works_and_can_be_revoked(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    code, key, said = run("make", "--org", "org_acme", "--name", "laptop of Ana", api_keys_file=str(path))
    key = key.strip()
    assert code == 0
    assert "not shown again" in said
    assert key not in said
    assert known(path).org_of(key) == "org_acme"
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code, listed, _ = run("list", api_keys_file=str(path), api_keys=f"org_env:{ENV_KEY}")
    assert code == 0
    rows = [line.split() for line in listed.splitlines()]
    assert [row[:2] for row in rows] == [["pk_live…nt_1", "org_env"], [f"{key[:7]}…{key[-4:]}", "org_acme"]]
    assert key not in listed
    assert ENV_KEY not in listed
    assert "laptop of Ana" in listed
    code, said, _ = run("revoke", f"{key[:7]}…{key[-4:]}", api_keys_file=str(path))
    assert code == 0
    assert said.startswith("revoked ")
    assert known(path).org_of(key) is None


def test_what_an_operator_wrote_stays(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        "org_acme: {name: Acme, keys: [pk_written_by_hand], limits: {agents: 3}, credentials: {openai: sk-1}}\n"
    )
    before = roll_of(read_document(path.read_bytes(), as_json=False))
    _, key, _ = run("make", "--org", "org_acme", api_keys_file=str(path))
    after = roll_of(read_document(path.read_bytes(), as_json=False))
    assert after.organisations == before.organisations
    assert {one.digest for one in after.keys} == {digest_of("pk_written_by_hand"), digest_of(key.strip())}
    code, _, _ = run("revoke", "pk_written_by_hand", api_keys_file=str(path))
    assert code == 0
    assert known(path).org_of("pk_written_by_hand") is None
    assert known(path).org_of(key.strip()) == "org_acme"


def test_keys_are_revoked_by_any_of_their_names_but_never_by_accident(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    made = [run("make", "--name", name, api_keys_file=path)[1].strip() for name in ("one", "two", "two", "four")]
    code, _, said = run("revoke", "two", api_keys_file=path)
    assert code == 1
    assert "several keys" in said
    assert run("revoke", "nobody", api_keys_file=path)[0] == 1
    assert run("revoke", "pk_", api_keys_file=path)[0] == 1
    assert run("revoke", "", api_keys_file=path)[0] == 1
    assert len(known(Path(path))) == 4
    assert run("revoke", "one", api_keys_file=path)[0] == 0
    assert run("revoke", made[1], api_keys_file=path)[0] == 0
    digest = digest_of(made[3]).hex()
    assert run("revoke", digest[:12], api_keys_file=path)[0] == 0
    _, listed, _ = run("list", "--json", api_keys_file=path)
    assert [row["sha256"] for row in json.loads(listed)] == [digest_of(made[2]).hex()]


@pytest.mark.parametrize("wanted", ["", " "])
def test_nothing_names_no_key(run: Run, tmp_path: Path, wanted: str) -> None:
    path = tmp_path / "keys.yaml"
    _, key, _ = run("make", "--org", "org_acme", api_keys_file=str(path))
    code, _, said = run("revoke", wanted, api_keys_file=str(path))
    assert (code, "say which key" in said) == (1, True)
    assert known(path).org_of(key.strip()) == "org_acme"


@pytest.mark.parametrize("name", ["x" * 201, "two\nlines", "\x1b[31mred", "\udcff"])
def test_a_name_that_would_spoil_the_file_or_the_terminal_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / "keys.yaml"
    _, key, _ = run("make", "--org", "org_acme", api_keys_file=str(path))
    before = path.read_bytes()
    code, out, said = run("make", "--org", "org_acme", "--name", name, api_keys_file=str(path))
    assert (code, out, "printable" in said) == (1, "", True)
    assert path.read_bytes() == before
    assert known(path).org_of(key.strip()) == "org_acme"


def test_a_publishable_key_opens_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, key, _ = run("make", "--publishable", api_keys_file=str(path))
    assert key.startswith("pk_publishable_")
    assert known(path).publishable_org(key.strip()) == "org_main"
    assert known(path).org_of(key.strip()) is None


def test_in_redis_it_is_the_same(run: Run, redis_server: RedisServer) -> None:
    _, key, said = run("make", "--org", "org_acme", "--name", "laptop", redis_url=redis_server.url)
    key = key.strip()
    digest = digest_of(key).hex()
    assert "Redis" in said
    assert redis_server.ask("GET", f"keys:{digest}") == "org_acme"
    redis_server.ask("SET", f"keys:{digest_of(ENV_KEY).hex()}", "org_by_hand")
    _, listed, _ = run("list", "--json", "--org", "org_acme", redis_url=redis_server.url)
    assert [(row["org"], row["name"], row["preview"]) for row in json.loads(listed)] == [
        ("org_acme", "laptop", f"{key[:7]}…{key[-4:]}")
    ]
    assert run("revoke", "laptop", redis_url=redis_server.url)[0] == 0
    assert redis_server.ask("KEYS", f"*{digest}*") == ""
    assert run("revoke", ENV_KEY, redis_url=redis_server.url)[0] == 0
    assert redis_server.ask("KEYS", "*") == ""


@pytest.mark.parametrize(
    ("words", "settings", "why"),
    [
        (("make",), {}, "set API_KEYS_FILE (a file to be made) or REDIS_URL"),
        (("make",), {"redis_url": "redis://127.0.0.1:1/0"}, "Redis does not answer"),
        (("make", "--org", "a b"), {"api_keys_file": "keys.json"}, "an organisation's id must be letters"),
        (("make",), {"api_keys_file": "broken.yaml"}, "broken.yaml: org_a.keys: entry 1"),
        (("list",), {"api_keys_file": "broken.yaml"}, "broken.yaml: org_a.keys: entry 1"),
        (("make",), {"api_keys_file": "/proc/keys.json"}, "cannot be written"),
        (("revoke", ENV_KEY), {"api_keys": ENV_KEY}, "take it out there and restart"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, tmp_path: Path, words: tuple[str, ...], settings: dict[str, str], why: str
) -> None:
    (tmp_path / "broken.yaml").write_text("org_a: {keys: [secret]}")
    code, out, said = run(*words, **settings)
    assert (code, out) == (1, "")
    assert why in said
    assert said.count("\n") == 1
    assert "secret" not in said
    assert (tmp_path / "broken.yaml").read_text() == "org_a: {keys: [secret]}"


def test_the_key_that_the_gateway_made_is_listed_and_not_revoked_behind_its_back(run: Run, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "api_key").write_text("pk_made_by_the_gateway_1\n")
    _, listed, _ = run("list")
    assert listed.split()[:2] == ["pk_made…ay_1", "org_main"]
    code, _, said = run("revoke", "pk_made_by_the_gateway_1")
    assert code == 1
    assert "delete var/api_key" in said


def test_two_operators_at_once_lose_no_key(tmp_path: Path) -> None:
    import asyncio

    from server.organisations.keyring import Keyring

    settings = Settings(_env_file=None, api_keys_file=tmp_path / "keys.yaml")  # pyright: ignore[reportCallIssue]

    def make(number: int) -> str:
        return asyncio.run(Keyring(settings).make("org_main", str(number), publishable=False))[0]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(16)))
    keys = known(tmp_path / "keys.yaml")
    assert [keys.org_of(key) for key in made] == ["org_main"] * 16
