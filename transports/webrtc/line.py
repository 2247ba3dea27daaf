"""The voice line to one browser: a `Medium` of packets, without the network.

What comes in goes to the call at once; what goes out is paced here, one packet every 20 ms for the whole session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipelines.clock import Clock
from pipelines.medium import MediumSink
from pipelines.metronome import Metronome
from providers.base import PCM_16K
from transports.webrtc.opus import RATE, VoiceDecoder, VoiceEncoder
from transports.webrtc.pacer import Pacer
from transports.webrtc.uplink import Packet, Reorder, Timeline

MAX_PACKETS: Final = 300
"""Within a second, of one caller: a voice has 50, or 100 of 10 ms; more are not even decoded."""
MAX_HEARD_SECONDS: Final = 6
"""Likewise of audio: packets may be six times as long, or far apart, and a recogniser costs by the second."""

_MAX_HEARD: Final = MAX_HEARD_SECONDS * 2 * RATE


class BrowserLine:
    """The audio of one session. Silent until `start`; nothing leaves after `stop`."""

    audio = PCM_16K

    def __init__(self, clock: Clock, metronome: Metronome, send: Callable[[bytes, int], None]) -> None:
        """`send` takes each packet of Opus when it is due, and the number of its frame."""
        self._clock = clock
        self._metronome = metronome
        self._send = send
        self._pacer = Pacer()
        self._encoder = VoiceEncoder()
        self._decoder = VoiceDecoder()
        self._reorder = Reorder()
        self._timeline = Timeline()
        self._sink: MediumSink | None = None
        self.deaf = False
        """The page muted itself: nothing of its audio goes any further, only the time it takes."""
        self.heard_at = clock.now()
        """When a packet last came."""
        self._window_began, self._window_packets, self._window_room = self.heard_at, 0, _MAX_HEARD

    def start(self, sink: MediumSink) -> None:
        """The call begins."""
        self._sink = sink
        self._pacer.start(self._clock.now())
        self._metronome.join(self, self._beat)

    def stop(self) -> None:
        """The line is gone. Idempotent."""
        self._sink = None
        self._metronome.leave(self)

    # --- from the call ---

    def send_audio(self, audio: bytes) -> None:
        """Hand over 16 kHz PCM16, to be played after all that was sent before."""
        self._pacer.push(audio)

    def send_mark(self, name: str) -> None:
        """Ask for an echo when everything sent so far has left."""
        self._pacer.mark(name)

    def send_clear(self) -> None:
        """Let nothing of what was sent leave any more."""
        self._pacer.clear()

    # --- from the network ---

    def receive(self, packet: Packet) -> None:
        """A packet of the caller's voice, in whatever order the network brought it."""
        now = self.heard_at = self._clock.now()
        if now - self._window_began >= 1.0:
            self._window_began, self._window_packets, self._window_room = now, 0, _MAX_HEARD
        self._window_packets += 1
        if self._sink is None or self._window_packets > MAX_PACKETS:
            return
        for following in self._reorder.put(packet):
            self._hear(following)

    def _hear(self, packet: Packet) -> None:
        if not self._window_room:
            return
        gap = self._timeline.gap(packet.timestamp)
        pcm, samples = self._decoder.decode(packet.payload)
        self._timeline.played(packet.timestamp, samples)
        if gap:
            pcm = bytes(2 * int(gap * RATE)) + pcm
        if self.deaf:
            pcm = bytes(len(pcm))
        pcm = pcm[: self._window_room]
        self._window_room -= len(pcm)
        if pcm and self._sink is not None:
            self._sink.on_audio(pcm)

    # --- the tick ---

    def _beat(self, now: float) -> None:
        for name in self._pacer.echoes(now):
            if self._sink is not None:
                self._sink.on_mark(name)
        for frame in self._pacer.due(now):
            self._send(self._encoder.encode(frame.pcm), frame.number)
