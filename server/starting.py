"""What a gateway needs of its settings before it can begin."""

from __future__ import annotations

from pipelines.audio.wav import read_wav
from pipelines.clock import LoopClock
from providers.base import MULAW_8K
from server.keys import SettingsError
from server.settings import Settings
from server.store.base import Store
from server.store.connection import is_redis_address
from server.store.memory import MemoryStore
from server.store.redis import RedisStore


def hold_music(settings: Settings) -> bytes:
    """The operator's hold music, a WAV file. Raises SettingsError when it cannot be played."""
    path = settings.hold_music_file
    if path is None:
        return b""
    try:
        music = path.read_bytes()
        read_wav(music, MULAW_8K)
        return music
    except (OSError, ValueError) as error:
        raise SettingsError(f"HOLD_MUSIC_FILE: {error}") from None


def open_store(settings: Settings, clock: LoopClock) -> Store:
    """What gateways share: in Redis, or in this process."""
    if settings.redis_url is None:
        return MemoryStore(clock.now)
    return RedisStore(settings.redis_url.get_secret_value(), clock)


def check_store(settings: Settings) -> None:
    """Raises SettingsError when nothing can be reached at that address; what is in it may be a password."""
    if settings.redis_url is not None and not is_redis_address(settings.redis_url.get_secret_value()):
        raise SettingsError("REDIS_URL: is not an address that the Redis client understands")
