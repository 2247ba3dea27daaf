"""What can be wrong with a configuration, in words that name the key."""

from __future__ import annotations


class ConfigError(ValueError):
    """A value that cannot be used.

    `key` is the dotted key as the agent would write it (`stt.eot_threshold`); `code` is the wire code (protocol §1.8):
    `REGISTRATION_ERROR` for what an agent or channel registers, else `CONFIG_ERROR`. The text quotes no value
    but provider names, so it is safe to log.
    """

    def __init__(self, key: str, message: str, *, code: str = "CONFIG_ERROR") -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.code = code


class ProviderKeyMissing(ConfigError):
    """The configuration is sound, but this server cannot reach that provider: no key, no engine, or no such name."""

    def __init__(self, key: str, provider: str) -> None:
        super().__init__(key, f"this server has no key for provider {provider[:40]!r}", code="PROVIDER_KEY_REQUIRED")
        self.provider = provider
