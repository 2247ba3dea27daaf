"""From one audio format to another, or straight through when they are the same."""

from __future__ import annotations

from pipelines.audio import ulaw
from pipelines.audio.resample import Quality, Resampler
from providers.base import AudioFormat, Encoding


class Converter:
    """Streaming conversion of mono audio. Equal formats pass bytes through untouched."""

    def __init__(self, source: AudioFormat, target: AudioFormat, quality: Quality = Quality.LIVE) -> None:
        self._source = source
        self._target = target
        self._through = source == target
        self._resampler = None if source.rate == target.rate else Resampler(source.rate, target.rate, quality)

    def convert(self, audio: bytes) -> bytes:
        """What can be given for `audio`; a resampler may keep some of it back until `flush`."""
        if self._through:
            return audio
        pcm = ulaw.decode(audio) if self._source.encoding is Encoding.MULAW else audio
        if self._resampler is not None:
            pcm = self._resampler.process(pcm)
        return ulaw.encode(pcm) if self._target.encoding is Encoding.MULAW else pcm

    def flush(self) -> bytes:
        """The rest of the stream."""
        if self._resampler is None:
            return b""
        pcm = self._resampler.flush()
        return ulaw.encode(pcm) if self._target.encoding is Encoding.MULAW else pcm
