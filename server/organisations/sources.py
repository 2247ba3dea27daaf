"""Where organisations are read from: `API_KEYS_FILE` and Redis, as the settings say. Keeps what is known fresh."""

from __future__ import annotations

import asyncio

from server.auth import Keys, Source
from server.keys import SettingsError
from server.organisations.directory import Organisations
from server.organisations.entries import BadEntry
from server.organisations.file import OrganisationsFile
from server.organisations.redis import OrganisationsRedis
from server.organisations.roll import TwilioAccess
from server.settings import Settings


class OrganisationSources:
    """The sources of one gateway, and what they say together. `run` follows them."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        """Reads the file, blocking. Raises SettingsError when it cannot be used: there is nothing to go on with yet."""
        self.organisations = organisations = Organisations(keys, server_account(settings))
        self._file = None if settings.api_keys_file is None else OrganisationsFile(settings.api_keys_file)
        self._redis_url = settings.redis_url
        if self._file is not None:
            try:
                organisations.learn(Source.FILE, self._file.load())
            except BadEntry as bad:
                raise SettingsError(f"API_KEYS_FILE: {self._file.path}: {bad}") from None
        if self._redis_url is not None:
            keys.awaited.add(Source.REDIS)

    async def run(self) -> None:
        """Follow them. Runs until cancelled."""
        redis = None if self._redis_url is None else OrganisationsRedis(self._redis_url.get_secret_value())
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._file is not None:
                    tasks.create_task(self._file.follow(self.organisations), name="organisations in a file")
                if redis is not None:
                    tasks.create_task(redis.follow(self.organisations), name="organisations in Redis")
        finally:
            if redis is not None:
                await redis.aclose()


def server_account(settings: Settings) -> TwilioAccess | None:
    """The server's own Twilio account, if there is a token for one."""
    token = settings.twilio_auth_token
    return None if token is None else TwilioAccess(settings.twilio_account_sid or "", token.get_secret_value())
