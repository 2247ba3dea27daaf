"""The server's settings: environment variables and `.env`, read once at start.

Every variable is described in `.env.example` and docs/settings.md. A variable that is set but empty counts as unset.
A bad value stops the start with one line that names the variable and never shows what it held.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.ice import read_ports, read_urls
from server.keys import OrganisationKey, SettingsError, read_api_keys
from wire.errors import ConfigError
from wire.resolve import Layer, ServerDefaults, normalise, resolve
from wire.shortcuts import LLM_PROVIDERS, STT_PROVIDERS, VOICE_PROVIDERS

_OPENAI = "https://api.openai.com/v1"
_PROVIDERS = {"deepgram": ("deepgram", "deepgram-flux")}
"""Vendors that serve under several names on the wire."""


class Settings(BaseSettings):
    """One field a variable; the variable is the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    host: str = "127.0.0.1"
    port: int = Field(default=1337, ge=0, le=65535)
    public_url: str | None = None
    forwarded_allow_ips: str = "127.0.0.1,::1"
    api_keys: SecretStr | None = None
    api_keys_file: Path | None = None
    data_dir: Path = Path("var")
    redis_url: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    max_concurrent_calls: int = Field(default=0, ge=0)
    max_concurrent_chats: int = Field(default=2000, ge=0)
    max_loop_lag_ms: int = Field(default=150, ge=0)
    page_tokens_per_ip: int = Field(default=20, ge=0)
    page_tokens_per_agent: int = Field(default=60, ge=0)
    key_tokens_per_org: int = Field(default=600, ge=0)
    unused_tokens_per_agent: int = Field(default=1000, ge=0)
    agent_info_per_ip: int = Field(default=60, ge=0)
    api_requests_per_second: int = Field(default=20, ge=0)
    agent_info_numbers: bool = True
    ringing_timeout_ms: int = Field(default=5000, ge=0, le=9000)
    stun_urls: str | None = None
    turn_urls: str | None = None
    turn_secret: SecretStr | None = None
    webrtc_public_ip: str | None = None
    webrtc_udp_ports: str | None = None
    webrtc_offers_per_ip: int = Field(default=20, ge=0)
    webrtc_ice_servers_per_ip: int = Field(default=60, ge=0)
    webrtc_sessions_per_agent: int = Field(default=0, ge=0)
    webrtc_sessions_per_org: int = Field(default=0, ge=0)
    pinecall_webrtc_startup_config_wait_ms: int = Field(default=600, ge=0, le=5000)
    agent_grace_seconds: float = Field(default=20, ge=0, le=600)
    no_agent_message: str | None = None
    dial_amd: bool = False
    hold_music_file: Path | None = None
    console: bool = True
    console_recent_calls: int = Field(default=50, ge=0, le=1000)
    demo_agent: bool = True

    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None
    twilio_base_url: str = "https://api.twilio.com"
    twilio_validate_signature: bool = True
    twilio_auto_configure: bool = False
    strict_phone_ownership: bool = False

    deepgram_api_key: SecretStr | None = None
    deepgram_base_url: str = "https://api.deepgram.com"
    deepgram_ws_url: str | None = None
    elevenlabs_api_key: SecretStr | None = None
    elevenlabs_base_url: str = "https://api.elevenlabs.io"
    elevenlabs_ws_url: str | None = None
    cartesia_api_key: SecretStr | None = None
    cartesia_base_url: str = "https://api.cartesia.ai"
    cartesia_ws_url: str | None = None
    gladia_api_key: SecretStr | None = None
    gladia_base_url: str = "https://api.gladia.io"
    openai_api_key: SecretStr | None = None
    openai_base_url: str = _OPENAI
    mistral_api_key: SecretStr | None = None
    mistral_base_url: str = "https://api.mistral.ai/v1"
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_region: str = "us-east-1"
    polly_base_url: str | None = None
    transcribe_base_url: str | None = None
    transcribe_ws_url: str | None = None

    default_stt: str | None = None
    default_voice: str | None = None
    default_llm: str = "openai:gpt-4.1-mini"
    default_timezone: str = "UTC"
    local_fallback: bool | None = None

    whatsapp_graph_url: str = "https://graph.facebook.com"
    whatsapp_verify_token: SecretStr | None = None
    whatsapp_app_secret: SecretStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        trimmed = {
            key: value.strip() if isinstance(value, str) else value
            for key, value in cast("dict[str, object]", values).items()
        }
        return {key: value for key, value in trimmed.items() if value != ""}

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _address(cls, value: object, info: object) -> object:
        name = getattr(info, "field_name", "")
        if name == "redis_url" and isinstance(value, SecretStr):
            if urlsplit(value.get_secret_value()).scheme not in ("redis", "rediss", "unix"):
                raise ValueError("must be a redis://, rediss:// or unix:// address")
            return value
        if not isinstance(value, str) or not name.endswith("_url"):
            return value
        schemes = ("ws", "wss") if name.endswith("_ws_url") else ("http", "https")
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"must be a {schemes[0]}:// or {schemes[1]}:// address without query")
        return value.rstrip("/")

    @field_validator("api_keys")
    @classmethod
    def _keys_are_well_formed(cls, value: SecretStr | None) -> SecretStr | None:
        read_api_keys(value)
        return value

    @field_validator("stun_urls", "turn_urls")
    @classmethod
    def _ice_urls(cls, value: str | None, info: ValidationInfo) -> str | None:
        read_urls(value, str(info.field_name).partition("_")[0])
        return value

    @field_validator("webrtc_udp_ports")
    @classmethod
    def _port_range(cls, value: str | None) -> str | None:
        read_ports(value)
        return value

    @field_validator("webrtc_public_ip")
    @classmethod
    def _ip(cls, value: str | None) -> str | None:
        if value is not None:
            ip_address(value)
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Settings:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together")
        if self.twilio_account_sid is not None and self.twilio_auth_token is None:
            raise ValueError("TWILIO_AUTH_TOKEN must be set when TWILIO_ACCOUNT_SID is")
        if self.turn_urls is not None and self.turn_secret is None:
            raise ValueError("TURN_SECRET must be set when TURN_URLS is")
        if self.twilio_auto_configure and self.public_url is None:
            raise ValueError("PUBLIC_URL must be set when TWILIO_AUTO_CONFIGURE is: numbers are pointed at it")
        return self

    # --- derived ---

    @property
    def organisation_keys(self) -> tuple[OrganisationKey, ...]:
        """The keys of `API_KEYS`; empty when none is set (then `load_or_create_key` gives one)."""
        return read_api_keys(self.api_keys)

    @property
    def deepgram_ws(self) -> str:
        """Origin of Deepgram's sockets."""
        return self.deepgram_ws_url or as_ws(self.deepgram_base_url)

    @property
    def elevenlabs_ws(self) -> str:
        """Origin of ElevenLabs' sockets."""
        return self.elevenlabs_ws_url or as_ws(self.elevenlabs_base_url)

    @property
    def cartesia_ws(self) -> str:
        """Origin of Cartesia's sockets."""
        return self.cartesia_ws_url or as_ws(self.cartesia_base_url)

    @property
    def polly_url(self) -> str:
        """Origin of Polly in the configured region."""
        return self.polly_base_url or f"https://polly.{self.aws_region}.amazonaws.com"

    @property
    def transcribe_ws(self) -> str:
        """Origin of Transcribe's sockets in the configured region."""
        if self.transcribe_ws_url is not None:
            return self.transcribe_ws_url
        return as_ws(self.transcribe_base_url or f"https://transcribestreaming.{self.aws_region}.amazonaws.com:8443")

    @property
    def vendor_keys(self) -> frozenset[str]:
        """The providers there is a key for, as the wire names them."""
        providers = {
            "deepgram-flux": self.deepgram_api_key,
            "deepgram": self.deepgram_api_key,
            "elevenlabs": self.elevenlabs_api_key,
            "cartesia": self.cartesia_api_key,
            "gladia": self.gladia_api_key,
            "openai": self.openai_api_key,
            "mistral": self.mistral_api_key,
            "polly": self.aws_secret_access_key,
            "transcribe": self.aws_secret_access_key,
        }
        return frozenset(name for name, key in providers.items() if key is not None)

    @property
    def falls_back_to_local(self) -> bool:
        """`LOCAL_FALLBACK`, or, when it is not set, whether there is no vendor key at all."""
        return not self.vendor_keys if self.local_fallback is None else self.local_fallback

    def server_defaults(self, served: Collection[str] | None = None, own: Collection[str] = ()) -> ServerDefaults:
        """What calls inherit from the server; `own` names the vendors their organisation has keys of its own for.

        `served` names the providers that this build has an engine for; a key for any other one is of no use. An
        OpenAI-compatible server of one's own (`OPENAI_BASE_URL`) may need no key.
        """
        keys = self.vendor_keys.union(*(_PROVIDERS.get(vendor, (vendor,)) for vendor in own))
        if self.openai_base_url != _OPENAI:
            keys |= {"openai"}
        if served is not None:
            keys &= frozenset(served)
        return ServerDefaults(
            stt=self.default_stt or _first_of(keys, ("deepgram-flux", "deepgram", "gladia", "transcribe")),
            voice=self.default_voice or _first_of(keys, ("elevenlabs", "cartesia", "polly")),
            llm=self.default_llm,
            timezone=self.default_timezone,
            keys=keys,
            local_fallback=self.falls_back_to_local and (not own or self.local_fallback is True),
        )


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, and `env_file` beneath it. Raises `SettingsError` naming every variable at fault."""
    try:
        settings = Settings(_env_file=env_file)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        raise SettingsError("; ".join(_fault(item["loc"], item["msg"]) for item in error.errors())) from None
    _check_defaults(settings)
    return settings


def _fault(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{str(location[0]).upper()}: {text}" if location else text


def _check_defaults(settings: Settings) -> None:
    """The `DEFAULT_*` values are read as an agent's would be, so that a typo stops the start and not the first call."""
    everyone = ServerDefaults(keys=STT_PROVIDERS | VOICE_PROVIDERS | LLM_PROVIDERS, local_fallback=True)
    named = {"stt": settings.default_stt, "voice": settings.default_voice, "llm": settings.default_llm}
    for key, value in {**named, "timezone": settings.default_timezone}.items():
        try:
            resolve([Layer(normalise({key: value}))], everyone)
        except ConfigError as error:
            raise SettingsError(f"DEFAULT_{key.upper()}: {str(error).partition(': ')[2]}") from None


def _first_of(keys: frozenset[str], providers: tuple[str, ...]) -> str:
    return next((provider for provider in providers if provider in keys), "local")


def as_ws(url: str) -> str:
    """The websocket form of an http(s) address."""
    return "ws" + url.removeprefix("http")
