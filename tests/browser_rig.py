"""A browser in software: offers, speaks, hears and reads the data channel, with aiortc's own client.

`Browser` runs on a clock that jumps as well: its audio is packed and unpacked without threads. `StockBrowser` is aiortc
as it comes, encoder and decoder threads and all; it needs real time.
"""

from __future__ import annotations

import asyncio
import fractions
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import av
import httpx2
import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from pipelines.clock import LoopClock
from pipelines.metronome import Metronome
from tests.frame_log import FrameLog
from tests.phone_rig import KEY, PATIENCE, Agent, Rig
from transports.webrtc.line import BrowserLine
from transports.webrtc.track import VoiceTrack
from transports.webrtc.tuning import receive_directly

SOUND = 200
"""RMS of 16-bit samples above which a frame of 20 ms is audible."""


@dataclass
class Heard:
    """What came out of the loudspeaker: pieces with the loop time at which they came."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])

    def audible(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """When audible pieces came."""
        return [at for at, pcm in self.pieces if since <= at < until and loud(pcm)]

    @property
    def pcm(self) -> bytes:
        return b"".join(pcm for _, pcm in self.pieces)


def loud(pcm: bytes) -> bool:
    samples = np.frombuffer(pcm, dtype=np.int16).astype(np.float64)
    return len(samples) > 0 and float(np.sqrt(np.mean(samples**2))) > SOUND


class _Ear:
    """The far end of a `BrowserLine`, which a browser uses the other way round."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def on_audio(self, audio: bytes) -> None:
        self._heard.pieces.append((asyncio.get_running_loop().time(), audio))

    def on_mark(self, name: str) -> None: ...

    def on_digit(self, digit: str) -> None: ...

    def on_gone(self, reason: str) -> None: ...


class Page(FrameLog):
    """A page with a connection; what it was told is in `frames`."""

    def __init__(self, rig: Rig, *, pings: bool = True) -> None:
        super().__init__()
        self.rig = rig
        self.heard = Heard()
        self.answer: dict[str, Any] = {}
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.opened = asyncio.Event()
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel | None = None
        self._pings = pings
        self._pinging: asyncio.Task[None] | None = None
        self.connection.on("connectionstatechange", self._on_state)

    @property
    def call_id(self) -> str:
        return self.answer["call_id"]

    def add_audio(self) -> None:
        raise NotImplementedError

    def say(self, pcm: bytes) -> None:
        """Speak: 16 kHz PCM16."""
        raise NotImplementedError

    async def offer(self, *, channel: bool = True) -> str:
        """What the page offers, all candidates in it."""
        self.add_audio()
        if channel:
            self.channel = self.connection.createDataChannel("events", ordered=True)
            self.channel.on("message", self._on_message)
            self.channel.on("open", self._on_open)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    async def connect(self, token: str | None = None, **fields: object) -> Page:
        """Offer, be answered, and wait until the connection stands."""
        response = await post_offer(self.rig, await self.offer(), token, **fields)
        assert response.status_code == 200, response.text
        await self.accept(response.json())
        async with asyncio.timeout(PATIENCE):
            await self.connected.wait()
        return self

    async def send(self, frame: dict[str, object] | str | bytes) -> None:
        """Send one frame, once the channel is open."""
        assert self.channel is not None
        async with asyncio.timeout(PATIENCE):
            await self.opened.wait()
        self.channel.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def close(self) -> None:
        """The user leaves the page."""
        if self._pinging is not None:
            self._pinging.cancel()
        await self.connection.close()

    async def vanish(self) -> None:
        """The tab is killed, or the network is gone: no goodbye, no more packets, nothing heard."""
        if self._pinging is not None:
            self._pinging.cancel()
        for transceiver in self.connection.getTransceivers():
            ice = transceiver.receiver.transport.transport._connection  # pyright: ignore[reportPrivateUsage]
            for protocol in ice._protocols:  # pyright: ignore[reportPrivateUsage]
                protocol.transport.close()

    def _on_state(self) -> None:
        if self.connection.connectionState == "connected":
            self.connected.set()
            self.on_connected()
        elif self.connection.connectionState in ("closed", "failed"):
            self.closed.set()

    def on_connected(self) -> None: ...

    def _on_open(self) -> None:
        self.opened.set()
        if self._pings:
            self._pinging = asyncio.get_running_loop().create_task(self._ping())

    async def _ping(self) -> None:
        with suppress(Exception):
            while self.channel is not None:
                self.channel.send("ping")
                await asyncio.sleep(1)

    def _on_message(self, text: str) -> None:
        assert isinstance(text, str)
        self.note(json.loads(text))


class Browser(Page):
    """Without threads, for a clock that jumps."""

    def __init__(self, rig: Rig, *, pings: bool = True) -> None:
        super().__init__(rig, pings=pings)
        self._track = VoiceTrack()
        self._metronome = Metronome(LoopClock())
        self.line = BrowserLine(LoopClock(), self._metronome, self._track.put)

    def add_audio(self) -> None:
        transceiver = self.connection.addTransceiver(self._track, "sendrecv")
        receive_directly(transceiver, self.line.receive)

    def on_connected(self) -> None:
        self.line.start(_Ear(self.heard))

    def say(self, pcm: bytes) -> None:
        self.line.send_audio(pcm)

    async def close(self) -> None:
        self.line.stop()
        self._metronome.close()
        await super().close()

    async def vanish(self) -> None:
        self.line.stop()
        self._metronome.close()
        await super().vanish()


class _Microphone(MediaStreamTrack):
    """48 kHz stereo frames in real time, as a browser's are."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pcm = bytearray()
        self._number = 0
        self._began = 0.0

    def say(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, dtype=np.int16)
        self._pcm += np.repeat(np.repeat(samples, 3), 2).tobytes()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        await asyncio.sleep(self._began + self._number * 0.02 - now)
        pcm = bytes(self._pcm[:3840]).ljust(3840, b"\0")
        del self._pcm[:3840]
        frame = av.AudioFrame("s16", "stereo", 960)
        frame.planes[0].update(pcm)
        frame.sample_rate, frame.pts, frame.time_base = 48000, self._number * 960, fractions.Fraction(1, 48000)
        self._number += 1
        return frame


class StockBrowser(Page):
    """aiortc as it comes, in real time."""

    def __init__(self, rig: Rig, *, pings: bool = True) -> None:
        super().__init__(rig, pings=pings)
        self._microphone = _Microphone()
        self._listening: asyncio.Task[None] | None = None
        self.connection.on("track", self._on_track)

    def add_audio(self) -> None:
        self.connection.addTrack(self._microphone)

    def say(self, pcm: bytes) -> None:
        self._microphone.say(pcm)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._listening = asyncio.get_running_loop().create_task(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = cast("object", await track.recv())  # pyright: ignore[reportUnknownMemberType]
                assert isinstance(frame, av.AudioFrame)
                stereo = np.frombuffer(bytes(frame.planes[0]), dtype=np.int16)[: 2 * frame.samples]
                self.heard.pieces.append((asyncio.get_running_loop().time(), stereo[::6].tobytes()))

    async def close(self) -> None:
        await super().close()
        if self._listening is not None:
            self._listening.cancel()


async def mint(rig: Rig, agent_id: str = "mara", **query: str) -> str:
    """A token, as the agent's backend gets it."""
    async with httpx2.AsyncClient() as http:
        answer = await http.get(
            f"{rig.http}/webrtc/token",
            params={"agent_id": agent_id, **query},
            headers={"Authorization": f"Bearer {KEY}"},
        )
    assert answer.status_code == 200, answer.text
    return answer.json()["token"]


async def post_offer(rig: Rig, sdp: str, token: str | None = None, **fields: object) -> httpx2.Response:
    """Send an offer as pages do. `headers` adds to the request's."""
    headers: Any = fields.pop("headers", {})
    body = {"sdp": sdp, "type": "offer", "token": token or await mint(rig), **fields}
    async with httpx2.AsyncClient(timeout=20) as http:
        return await http.post(f"{rig.http}/webrtc/offer", json=body, headers=headers)


@asynccontextmanager
async def browsing(rig: Rig, kind: type[Page] = Browser, **fields: object) -> AsyncGenerator[Page]:
    """A page in a session, which it leaves at the end."""
    async with AsyncExitStack() as stack:
        page = kind(rig)
        stack.push_async_callback(page.close)
        yield await page.connect(**fields)  # pyright: ignore[reportArgumentType]


async def visit(rig: Rig, agent: Agent, stack: AsyncExitStack, **fields: object) -> tuple[Browser, str]:
    """A page in a session that its agent knows of, and the call's id."""
    page = await stack.enter_async_context(browsing(rig, Browser, **fields))
    assert isinstance(page, Browser)
    started = await agent.wait("call.started", call_id=page.call_id)
    return page, started["call_id"]
