"""The server's settings: one variable a field, bad values named and never shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from server.keys import SettingsError, load_or_create_key
from server.settings import Settings, load_settings
from wire.config import FluxStt, LocalStt, LocalVoice
from wire.resolve import Layer, normalise, resolve

ROOT = Path(__file__).parent.parent
SECRET = "sk-very-secret-value"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(env_file=None)


def variables() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


# --- documentation ---


def test_the_example_file_names_every_setting_and_no_other() -> None:
    named = re.findall(r"^([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(variables())


def test_the_example_file_as_it_is_changes_nothing() -> None:
    assert load_settings(ROOT / ".env.example") == load_settings(None)


@pytest.mark.proves("row-209")
def test_the_settings_page_has_a_row_for_every_setting_and_no_other() -> None:
    named = re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(variables())


# --- reading ---


def test_nothing_set_listens_on_loopback_with_the_built_in_engines() -> None:
    settings = load_settings(None)
    config = resolve([Layer(normalise({"stt": "flux", "voice": "elevenlabs:x"}))], settings.server_defaults())

    assert (settings.host, settings.port, settings.falls_back_to_local) == ("127.0.0.1", 1337, True)
    assert isinstance(config.stt, LocalStt)
    assert isinstance(config.voice, LocalVoice)
    assert resolve([], settings.server_defaults()).warnings == ()


def test_an_empty_or_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, PORT="", DEEPGRAM_API_KEY="  ", PUBLIC_URL="", LOCAL_FALLBACK="", API_KEYS=" ")

    assert settings == load_settings(None)
    assert settings.port == 1337


def test_the_env_file_is_read_and_the_environment_beats_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('PORT=4000\nLOG_FORMAT="JSON"\nSOMETHING_ELSE=1\n')
    monkeypatch.setenv("PORT", "4001")

    settings = load_settings(file)

    assert (settings.port, settings.log_format) == (4001, "json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "secret"),
        ("LOG_LEVEL", "secret"),
        ("LOG_FORMAT", "secret"),
        ("PUBLIC_URL", "secret.example.com"),
        ("DEEPGRAM_BASE_URL", "ftp://secret"),
        ("DEEPGRAM_WS_URL", "https://secret"),
        ("REDIS_URL", "http://secret"),
        ("LOCAL_FALLBACK", "secret"),
        ("AGENT_GRACE_SECONDS", "-1"),
        ("MAX_CONCURRENT_CALLS", "secret"),
        ("API_KEYS", "org_a:secret"),
        ("API_KEYS", "pk_secret_one, org_b:pk_secret_one"),
        ("API_KEYS", ":pk_secret_one"),
        ("DEFAULT_STT", "whisper"),
        ("DEFAULT_VOICE", "acme:x"),
        ("DEFAULT_LLM", "gpt-realtime-secret"),
        ("DEFAULT_TIMEZONE", "Secret/Place"),
        ("TWILIO_ACCOUNT_SID", "secret"),
        ("AWS_ACCESS_KEY_ID", "secret"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{name: value})

    text = str(caught.value)
    assert name in text
    assert "\n" not in text
    assert "secret" not in text.lower().replace("aws_secret_access_key", "")


def test_several_bad_values_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"PORT: .*; LOG_LEVEL: "):
        load(monkeypatch, PORT="x", LOG_LEVEL="x")


def test_no_secret_shows_in_a_printed_settings_object(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = [
        name for name in variables() if re.search(r"_API_KEY$|TOKEN$|SECRET", name) and name != "AWS_ACCESS_KEY_ID"
    ]
    settings = load(
        monkeypatch,
        **dict.fromkeys(hidden, SECRET),
        API_KEYS=f"org_a:pk_{SECRET}",
        REDIS_URL=f"redis://:{SECRET}@host",
        AWS_ACCESS_KEY_ID="AKIA",
    )

    assert len(hidden) >= 11
    for shown in (repr(settings), str(settings), repr(settings.organisation_keys), settings.model_dump_json()):
        assert SECRET not in shown


# --- derived values ---


def test_socket_addresses_follow_the_base_url_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        DEEPGRAM_BASE_URL="http://127.0.0.1:9001/",
        CARTESIA_WS_URL="wss://tts.example",
        AWS_REGION="eu-west-1",
    )

    assert settings.deepgram_base_url == "http://127.0.0.1:9001"
    assert settings.deepgram_ws == "ws://127.0.0.1:9001"
    assert settings.elevenlabs_ws == "wss://api.elevenlabs.io"
    assert settings.cartesia_ws == "wss://tts.example"
    assert settings.transcribe_ws == "wss://transcribestreaming.eu-west-1.amazonaws.com:8443"
    assert settings.polly_url == "https://polly.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("variables", "fallback", "stt", "voice"),
    [
        ({}, True, "local", "local"),
        ({"TWILIO_AUTH_TOKEN": "t"}, True, "local", "local"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, True, "local", "local"),
        ({"OPENAI_API_KEY": "k"}, False, "local", "local"),
        ({"OPENAI_API_KEY": "k", "LOCAL_FALLBACK": "true"}, True, "local", "local"),
        ({"LOCAL_FALLBACK": "false"}, False, "local", "local"),
        ({"DEEPGRAM_API_KEY": "k", "ELEVENLABS_API_KEY": "k"}, False, "deepgram-flux", "elevenlabs"),
        ({"DEEPGRAM_API_KEY": "k", "DEFAULT_STT": "deepgram:nova-3"}, False, "deepgram:nova-3", "local"),
    ],
)
def test_what_agents_inherit_depends_on_the_keys(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], fallback: bool, stt: str, voice: str
) -> None:
    defaults = load(monkeypatch, **variables).server_defaults()
    assert (defaults.local_fallback, defaults.stt, defaults.voice) == (fallback, stt, voice)


def test_a_key_serves_only_what_has_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, DEEPGRAM_API_KEY="k", CARTESIA_API_KEY="k")
    defaults = settings.server_defaults(served={"deepgram-flux", "openai"})

    assert defaults.keys == {"deepgram-flux"}
    assert defaults.voice == "local"
    assert resolve([], defaults).stt == FluxStt()


def test_an_openai_compatible_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load(monkeypatch, OPENAI_BASE_URL="http://127.0.0.1:11434/v1").server_defaults()
    assert resolve([Layer(normalise({"prompt": "p"}))], defaults).llm is not None


# --- keys ---


def test_keys_open_their_organisation(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = load(monkeypatch, API_KEYS="org_a:pk_live_abc, pk_live_def ,").organisation_keys

    assert [(key.organisation, key.key.get_secret_value()) for key in keys] == [
        ("org_a", "pk_live_abc"),
        ("org_main", "pk_live_def"),
    ]


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "var"

    first, second = load_or_create_key(data_dir), load_or_create_key(data_dir)

    assert (first.created, second.created) == (True, False)
    assert first.key == second.key
    assert first.key.get_secret_value().startswith("pk_")
    assert first.key.get_secret_value() not in repr(first)
    assert stat.S_IMODE((data_dir / "api_key").stat().st_mode) == 0o600
    assert [path.name for path in data_dir.iterdir()] == ["api_key"]


def test_a_key_file_that_holds_no_key_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("something of mine")

    with pytest.raises(SettingsError, match=r"^DATA_DIR: .*api_key"):
        load_or_create_key(tmp_path)
    assert (tmp_path / "api_key").read_text() == "something of mine"


def test_a_data_dir_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"^DATA_DIR: "):
        load_or_create_key(tmp_path / "file")
