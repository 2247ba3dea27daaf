"""A listener at the live socket of a call, frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.phone_rig import KEY, Rig

LIVE = {"live": True}
KEEP_ALIVE = b"\0\0"


@dataclass
class Ear:
    """What came, and when (the loop's time)."""

    socket: ClientConnection
    metadata: dict[str, Any]
    joined_at: float
    frames: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        now = asyncio.get_running_loop().time
        with suppress(ConnectionClosed):
            async for frame in self.socket:
                assert isinstance(frame, bytes), f"text after the metadata: {frame}"
                self.frames.append((now(), frame))
        self.closed.set()

    @property
    def sound(self) -> bytes:
        """The samples that came, keep-alives left out."""
        return b"".join(frame for _, frame in self.frames if len(frame) >= 4)

    def times(self, what: bytes | None = None) -> list[float]:
        """When frames of sound came, or frames of just that."""
        return [at for at, frame in self.frames if (len(frame) >= 4 if what is None else frame == what)]


def address(rig: Rig, call_id: str, token: str | None = KEY, scheme: str = "ws", page: str = "ws") -> str:
    query = "" if token is None else f"?token={token}"
    return f"{scheme}://127.0.0.1:{rig.port}/live/{call_id}/{page}{query}"


@asynccontextmanager
async def hearing(rig: Rig, call_id: str, token: str = KEY) -> AsyncGenerator[Ear]:
    """Listen from now on."""
    async with connect(address(rig, call_id, token), max_size=None, compression=None) as socket:
        first = await socket.recv()
        assert isinstance(first, str), "the metadata come first"
        ear = Ear(socket, json.loads(first), asyncio.get_running_loop().time())
        listening = asyncio.create_task(ear.listen())
        try:
            yield ear
        finally:
            listening.cancel()


def samples(pcm: bytes) -> NDArray[np.int16]:
    return np.frombuffer(pcm, np.int16)


def power_db(pcm: NDArray[np.int16], hz: float, rate: int) -> float:
    """Of that frequency alone, dBFS of its rms (Goertzel)."""
    at = np.arange(len(pcm))
    wave = np.exp(-2j * np.pi * hz * at / rate)
    amplitude = 2 * abs(np.dot(pcm.astype(np.float64), wave)) / len(pcm)
    return 20 * np.log10(max(amplitude, 1e-6) / np.sqrt(2) / 32768)


def delay(part: NDArray[np.int16], whole: NDArray[np.int16], around: int, reach: int) -> int:
    """Where `part` lies best in `whole`, in samples after `around`; looked for `reach` samples to either side.

    By cross-correlation, corrected for how loud `whole` is there. Of equally good places (a steady tone has many) the
    nearest.
    """
    start = max(0, around - reach)
    window, wanted = whole[start : around + reach + len(part)].astype(np.float64), part.astype(np.float64)
    energy = np.convolve(window**2, np.ones(len(part)), "valid")
    errors = energy - 2 * np.correlate(window, wanted, "valid")
    best = np.flatnonzero(errors <= errors.min() + 1e-6 * np.dot(wanted, wanted))
    offsets = best + start - around
    return int(offsets[np.argmin(np.abs(offsets))])
