"""The recogniser process: pocketsphinx for all calls, one after the other. Run by `sphinx_process`; ends with stdin.

A decoder costs 150-300 ms and tens of MB, and is busy only while somebody speaks: calls share a pool of them and take
one for a segment. What a decoder learnt about a call's line (its cepstral mean) goes with the call.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, cast

import msgspec
import pocketsphinx

from providers.local.sphinx_messages import Audio, Close, Finish, Open, Opened, Report, Request, Text, bodies, pack

INTERIM_BYTES = 6400
"""At most one interim text each 200 ms of audio."""
MAX_SEGMENT_BYTES = 30 * 32000
"""A segment that nobody finishes is finished here: a decoder remembers all of it."""
MAX_BENCHES = 8
"""Decoders of each kind that are kept (31 MB each): callers who speak at the same moment. Beyond, a segment is kept as
sound until a decoder is free or the segment ends; for its end one is made (150-300 ms) and thrown away."""
MAX_GRAMMARS = 32
"""Grammars that one decoder keeps compiled."""


class _Hypothesis(Protocol):
    """What was understood."""

    hypstr: str


class _Decoder(Protocol):
    """The part of pocketsphinx.Decoder used here; the package has no types."""

    def start_utt(self) -> None: ...
    def end_utt(self) -> None: ...
    def process_raw(self, data: bytes) -> int: ...
    def hyp(self) -> _Hypothesis | None: ...
    def add_jsgf_string(self, name: str, jsgf_string: str) -> None: ...
    def activate_search(self, search_name: str) -> None: ...
    def remove_search(self, search_name: str) -> None: ...
    def get_cmn(self, update: bool) -> str: ...
    def set_cmn(self, cmn: str) -> None: ...


def _make_decoder(*, open_vocabulary: bool) -> _Decoder:
    """A decoder at 16 kHz. Blocks for 150 ms, with the open vocabulary for 300.

    `bestpath` is off: for grammars its second pass gives sentences that the grammar does not allow ("on friday at").
    """
    options: dict[str, object] = {"samprate": 16000, "loglevel": "FATAL"}
    if not open_vocabulary:
        options |= {"lm": None, "bestpath": False}
    return cast(_Decoder, pocketsphinx.Decoder(**options))  # pyright: ignore[reportUnknownMemberType]


class Bench:
    """A decoder with the grammars it has compiled."""

    def __init__(self, *, open_vocabulary: bool) -> None:
        self.open_vocabulary = open_vocabulary
        self.decoder = _make_decoder(open_vocabulary=open_vocabulary)
        self.fresh_cmn = self.decoder.get_cmn(False)
        self._names: dict[str, str] = {}
        self._count = 0

    def use(self, grammar: str | None) -> None:
        """Make ready for a segment. Raises ValueError or RuntimeError for a grammar that does not compile."""
        if grammar is None:
            return
        name = self._names.pop(grammar, None)
        if name is None:
            self._count += 1
            name = f"g{self._count}"
            self.decoder.add_jsgf_string(name, grammar)
        self._names[grammar] = name
        self.decoder.activate_search(name)
        if len(self._names) > MAX_GRAMMARS:
            self.decoder.remove_search(self._names.pop(next(iter(self._names))))


@dataclass(slots=True)
class Stream:
    """One call. `bench` is held during a segment only."""

    grammar: str | None
    bench: Bench | None = None
    held: bytearray = field(default_factory=bytearray)
    cmn: str | None = None
    taken: int = 0
    told_at: int = 0
    told: str = ""


class Worker:
    """Answers requests, one at a time."""

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}
        self._free: list[Bench] = []
        self._made = {True: 0, False: 0}
        """Decoders that exist, by whether their vocabulary is open."""

    def answer(self, request: Request) -> list[Report]:
        """What to report for a request."""
        if isinstance(request, Open):
            return [self._open(request)]
        stream = self._streams.get(request.stream)
        if stream is None:
            return []
        match request:
            case Audio():
                return self._hear(request, stream)
            case Finish():
                return [Text(request.stream, self._finish(stream), True)]
            case Close():
                stream.held.clear()
                self._finish(stream)
                del self._streams[request.stream]
                return []

    def _open(self, request: Open) -> Opened:
        bench = self._take(request.grammar)
        try:
            bench.use(request.grammar)
        except (ValueError, RuntimeError) as error:
            return Opened(request.stream, str(error) or "does not compile")
        finally:
            self._give_back(bench)
        self._streams[request.stream] = Stream(request.grammar)
        return Opened(request.stream)

    def _take(self, grammar: str | None) -> Bench:
        """A decoder for a segment, made when none is free."""
        kind = grammar is None
        for bench in self._free:
            if bench.open_vocabulary is kind:
                self._free.remove(bench)
                return bench
        self._made[kind] += 1
        return Bench(open_vocabulary=kind)

    def _give_back(self, bench: Bench) -> None:
        kind = bench.open_vocabulary
        if self._made[kind] > MAX_BENCHES:
            self._made[kind] -= 1
        else:
            self._free.append(bench)

    def _may_take(self, grammar: str | None) -> bool:
        kind = grammar is None
        return self._made[kind] < MAX_BENCHES or any(bench.open_vocabulary is kind for bench in self._free)

    def _begin(self, stream: Stream) -> Bench:
        """Start decoding a segment, with the sound that was kept for it."""
        bench = stream.bench = self._take(stream.grammar)
        bench.use(stream.grammar)
        bench.decoder.set_cmn(stream.cmn or bench.fresh_cmn)
        bench.decoder.start_utt()
        stream.taken = stream.told_at = 0
        stream.told = ""
        if stream.held:
            bench.decoder.process_raw(bytes(stream.held))
            stream.held.clear()
        return bench

    def _hear(self, audio: Audio, stream: Stream) -> list[Report]:
        if stream.bench is None and not self._may_take(stream.grammar) and len(stream.held) < MAX_SEGMENT_BYTES:
            stream.held += audio.pcm
            return []
        bench = stream.bench or self._begin(stream)
        bench.decoder.process_raw(audio.pcm)
        stream.taken += len(audio.pcm)
        if stream.taken >= MAX_SEGMENT_BYTES:
            return [Text(audio.stream, self._finish(stream), True)]
        if stream.taken - stream.told_at < INTERIM_BYTES:
            return []
        stream.told_at = stream.taken
        text = _words(bench.decoder)
        if text in ("", stream.told):
            return []
        stream.told = text
        return [Text(audio.stream, text, False)]

    def _finish(self, stream: Stream) -> str:
        if stream.bench is None and not stream.held:
            return ""
        bench = stream.bench or self._begin(stream)
        bench.decoder.end_utt()
        text = _words(bench.decoder)
        stream.cmn = bench.decoder.get_cmn(False)
        self._give_back(bench)
        stream.bench = None
        return text


def _words(decoder: _Decoder) -> str:
    heard = decoder.hyp()
    return heard.hypstr if heard else ""


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer all requests of `source` on `target` until it ends."""
    worker = Worker()
    read = msgspec.msgpack.Decoder(Request)
    buffer = bytearray()
    while data := os.read(source.fileno(), 1 << 16):
        buffer += data
        for body in bodies(buffer):
            for report in worker.answer(read.decode(body)):
                target.write(pack(report))
                target.flush()


def main() -> None:
    """Serve stdin and stdout. Gives way to the gateway, which has deadlines of 20 ms."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C goes to the whole group: the gateway says when to end
    os.nice(5)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
