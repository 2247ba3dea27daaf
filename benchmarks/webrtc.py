"""What a browser's voice costs: the gateway's own path beside aiortc as it comes, back to back.

    python -m benchmarks.webrtc                      # 15 and 30 calls, both ways, speech
    python -m benchmarks.webrtc --calls 30 --seconds 10 --sound noise --only gateway

A call is full duplex: packets of the caller are decoded to 16 kHz PCM, and a voice of 16 kHz PCM is paced and encoded
all the time. Recognisers, models and voices are not part of it. The callers run in a process of their own and send
packets that were encoded before; what is counted is the processor time of the answering process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import fractions
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.audio.resampler import AudioResampler

from pipelines.clock import LoopClock
from pipelines.metronome import Metronome
from transports.webrtc.offer import read_offer
from transports.webrtc.opus import VoiceEncoder
from transports.webrtc.pacer import FRAME_BYTES
from transports.webrtc.peer import Peer
from transports.webrtc.track import VoiceTrack
from transports.webrtc.tuning import Network, receive_directly

TEXT = "The quick brown fox jumps over the lazy dog while five boxing wizards watch from the hill. "


def sound(kind: str) -> bytes:
    """Some seconds of 16 kHz PCM16."""
    if kind == "noise":
        return np.random.default_rng(1).normal(0, 3000, 64000).astype(np.int16).tobytes()
    command = ["espeak-ng", "--stdout", "--stdin"]
    wave = subprocess.run(command, input=(TEXT * 3).encode(), capture_output=True, check=True).stdout[44:]
    samples = np.frombuffer(wave[: len(wave) // 2 * 2], dtype=np.int16)
    at = np.arange(0, len(samples), 22050 / 16000)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.int16).tobytes()


@dataclass(eq=False)
class Session:
    """What a peer tells, and the call's ears."""

    heard: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    def on_connected(self) -> None:
        self.connected.set()

    def on_lost(self, reason: str) -> None: ...

    def on_frame(self, frame: str | bytes) -> None: ...

    def on_audio(self, audio: bytes) -> None:
        self.heard += len(audio)

    def on_mark(self, name: str) -> None: ...

    def on_digit(self, digit: str) -> None: ...

    def on_gone(self, reason: str) -> None: ...


@dataclass
class Answering:
    """One way of answering: an answer for each offer, and how much was heard of all callers (bytes)."""

    answer: Callable[[str], Awaitable[str]]
    heard: Callable[[], int]
    close: Callable[[], Awaitable[None]]


def gateway(pcm: bytes) -> Answering:
    """The gateway's own path."""
    clock = LoopClock()
    metronome = Metronome(clock)
    sessions: list[Session] = []
    peers: list[Peer] = []

    async def answer(sdp: str) -> str:
        session = Session()
        peer = Peer(clock, metronome, Network(), session)
        sessions.append(session)
        peers.append(peer)
        text = await peer.answer(read_offer(sdp))
        at = 0

        def talk(_now: float) -> None:
            nonlocal at
            peer.send_audio(pcm[at : at + FRAME_BYTES])
            at = (at + FRAME_BYTES) % (len(pcm) - FRAME_BYTES)

        def begin() -> None:
            metronome.join(session, talk)
            peer.start(session)

        session.on_connected = begin
        return text

    async def close() -> None:
        await asyncio.gather(*(peer.hang_up() for peer in peers))
        metronome.close()

    return Answering(answer, lambda: sum(session.heard for session in sessions), close)


class _Talking(MediaStreamTrack):
    """A voice as aiortc's documentation has one written: a frame each 20 ms, encoded by aiortc."""

    kind = "audio"

    def __init__(self, pcm: bytes) -> None:
        super().__init__()
        self._pcm, self._at, self._number = pcm, 0, 0
        self._began = asyncio.get_running_loop().time()

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(self._began + self._number * 0.02 - asyncio.get_running_loop().time())
        frame = av.AudioFrame("s16", "mono", FRAME_BYTES // 2)
        frame.planes[0].update(self._pcm[self._at : self._at + FRAME_BYTES])
        self._at = (self._at + FRAME_BYTES) % (len(self._pcm) - FRAME_BYTES)
        frame.sample_rate, frame.pts = 16000, self._number * 320
        frame.time_base = fractions.Fraction(1, 16000)
        self._number += 1
        return frame


def stock(pcm: bytes) -> Answering:
    """aiortc as it comes."""
    connections: list[RTCPeerConnection] = []
    listening: list[asyncio.Task[None]] = []
    heard = 0

    async def listen(track: MediaStreamTrack) -> None:
        nonlocal heard
        resampler = AudioResampler(format="s16", layout="mono", rate=16000)
        with suppress(MediaStreamError):
            while True:
                frame: object = await track.recv()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                assert isinstance(frame, av.AudioFrame)
                heard += sum(2 * out.samples for out in resampler.resample(frame))

    async def answer(sdp: str) -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)
        connection.on("track", lambda track: listening.append(asyncio.create_task(listen(track))))  # pyright: ignore
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        connection.addTrack(_Talking(pcm))
        await connection.setLocalDescription(await connection.createAnswer())
        return connection.localDescription.sdp

    async def close() -> None:
        await asyncio.gather(*(connection.close() for connection in connections))
        for task in listening:
            task.cancel()

    return Answering(answer, lambda: heard, close)


WAYS = {"gateway": gateway, "stock": stock}


def _notice(connection: RTCPeerConnection, connected: asyncio.Event) -> None:
    if connection.connectionState == "connected":
        connected.set()


async def call(count: int) -> None:
    """The other process: `count` callers, whose offers and answers go over stdout and stdin."""
    loop = asyncio.get_running_loop()
    encoder, pcm = VoiceEncoder(), sound("noise")
    packets = [encoder.encode(pcm[at : at + FRAME_BYTES]) for at in range(0, 64000, FRAME_BYTES)]
    received = 0

    def take(_packet: object) -> None:
        nonlocal received
        received += 1

    tracks: list[VoiceTrack] = []
    connections: list[RTCPeerConnection] = []
    for _ in range(count):
        connection, track = RTCPeerConnection(RTCConfiguration(iceServers=[])), VoiceTrack()
        receive_directly(connection.addTransceiver(track, "sendrecv"), take)
        connection.createDataChannel("events")
        connected = asyncio.Event()
        connection.on("connectionstatechange", functools.partial(_notice, connection, connected))
        await connection.setLocalDescription(await connection.createOffer())
        print(json.dumps(connection.localDescription.sdp), flush=True)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        await connection.setRemoteDescription(RTCSessionDescription(json.loads(line), "answer"))
        await connected.wait()
        print("connected", flush=True)
        tracks.append(track)
        connections.append(connection)
    stop = loop.run_in_executor(None, sys.stdin.readline)
    began, number = loop.time(), 0
    while not stop.done():
        for track in tracks:
            track.put(packets[number % len(packets)], number)
        number += 1
        await asyncio.sleep(max(0.0, began + number * 0.02 - loop.time()))
    print(json.dumps({"received": received}), flush=True)
    await asyncio.gather(*(connection.close() for connection in connections))


def rss_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


async def measure(way: str, count: int, seconds: float, kind: str) -> str:
    """One row."""
    answering = WAYS[way](sound(kind))
    command = [sys.executable, "-m", "benchmarks.webrtc", "--callers", str(count)]
    callers = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert callers.stdin is not None
    assert callers.stdout is not None
    before, cpu, wall = rss_mb(), time.process_time(), 0.0
    for _ in range(count):
        offer = json.loads(await callers.stdout.readline())
        began = time.perf_counter()
        answer = await answering.answer(offer)
        callers.stdin.write(json.dumps(answer).encode() + b"\n")
        assert (await callers.stdout.readline()).strip() == b"connected"
        wall += time.perf_counter() - began
    set_up = time.process_time() - cpu
    await asyncio.sleep(2)
    cpu, began, heard = time.process_time(), time.perf_counter(), answering.heard()
    await asyncio.sleep(seconds)
    cpu, took, heard = time.process_time() - cpu, time.perf_counter() - began, answering.heard() - heard
    memory = rss_mb() - before
    callers.stdin.write(b"stop\n")
    told = json.loads(await callers.stdout.readline())
    await callers.wait()
    await answering.close()
    # aiortc closes once more by itself when it hears that the other side has.
    await asyncio.sleep(0.5)
    per_call = cpu / took / count
    share = heard / 32000 / took / count
    print(
        f"| {way} | {count} | {1000 * per_call:.1f} | {1 / per_call:.0f} | {memory / count:.2f} | "
        f"{1000 * wall / count:.0f} / {1000 * set_up / count:.0f} | {share:.0%} | {told['received'] // count} |",
        flush=True,
    )
    return way


def main() -> None:
    """Read the arguments and print the table. Each row runs in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", default="15,30")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--sound", choices=("speech", "noise"), default="speech")
    parser.add_argument("--only", choices=sorted(WAYS))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--callers", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.callers is not None:
        asyncio.run(call(wanted.callers))
        return
    if wanted.row is not None:
        way, count = wanted.row.split(":")
        asyncio.run(measure(way, int(count), wanted.seconds, wanted.sound))
        return
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{load}; {wanted.sound}, {wanted.seconds:g} s a row\n")
    columns = (
        "path",
        "calls",
        "ms CPU / call-s",
        "calls a core",
        "MB / call",
        "set-up ms: wall / CPU",
        "heard",
        "back",
    )
    print("| " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * (len(columns) - 1), flush=True)
    for count in wanted.calls.split(","):
        for way in WAYS if wanted.only is None else (wanted.only,):
            row = [sys.executable, "-m", "benchmarks.webrtc", "--row", f"{way}:{count}"]
            subprocess.run([*row, "--seconds", str(wanted.seconds), "--sound", wanted.sound], check=False)


if __name__ == "__main__":
    main()
