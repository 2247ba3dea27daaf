"""What a page really hears: the samples that come out of its peer connection, and what its data channel told when."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.speech import say_pcm, silence_pcm

RATE = 16000
SILENT_DB = -55.0

LISTEN = """
(() => {
  window.heard = [];
  window.events = [];
  const listen = (stream) => {
    const context = new AudioContext();
    const tap = context.createScriptProcessor(1024, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) => {
      const samples = inputBuffer.getChannelData(0);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      window.heard.push([performance.now(), 10 * Math.log10(sum / samples.length + 1e-12)]);
    };
    context.createMediaStreamSource(stream).connect(tap);
    tap.connect(context.destination);
  };
  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(...settings) {
      super(...settings);
      this.addEventListener("track", (event) => listen(event.streams[0]));
    }
    createDataChannel(...settings) {
      const channel = super.createDataChannel(...settings);
      channel.addEventListener("message", ({ data }) => {
        if (data.startsWith("{")) window.events.push([performance.now(), JSON.parse(data)]);
      });
      return channel;
    }
  };
})();
"""
"""To be run in a page before its own scripts, which notice nothing of it."""


def speech_file(path: Path, *said: str | int) -> Path:
    """A WAV of sentences and of silences (ms), and a minute of silence after it."""
    pcm = b"".join(silence_pcm(one, RATE) if isinstance(one, int) else say_pcm(one, RATE) for one in (*said, 60_000))
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(pcm)
    return path


@dataclass(frozen=True, slots=True)
class Heard:
    """Levels (dBFS) and events of a page, each with the ms of its clock."""

    levels: list[tuple[float, float]]
    events: list[tuple[float, dict[str, Any]]]

    def at(self, event: str, number: int = 0) -> float:
        """When the page was told that, the first or a later time."""
        return [at for at, told in self.events if told["event"] == event][number]

    def loud(self, since: float, until: float) -> float:
        """The share of that time in which there was sound."""
        levels = [level for at, level in self.levels if since <= at <= until]
        assert levels, f"nothing was measured from {since} to {until}"
        return sum(level > SILENT_DB for level in levels) / len(levels)

    def count(self, event: str) -> int:
        return sum(told["event"] == event for _, told in self.events)


async def heard_by(page: Page) -> Heard:
    """What the page has heard until now."""
    levels, events = await page.evaluate("[window.heard, window.events]")
    return Heard([tuple(one) for one in levels], [tuple(one) for one in events])
