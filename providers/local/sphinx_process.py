"""The gateway's end of the recogniser process: one process for all calls of a loop, started when first needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import structlog

from providers.errors import ProviderError, Refused, TimedOut, Unavailable
from providers.local.sphinx_messages import Audio, Close, Finish, Open, Opened, Report, Request, bodies, pack

OPEN_DEADLINE = 10.0
"""Seconds to start the process, load the models and compile the grammar (0.5 s when the machine is free)."""
MAX_BEHIND = 2 * 1024 * 1024
"""Bytes not yet taken by the process (3 s of 20 callers speaking at once); audio beyond is dropped and counted."""
_CODE = "STT_ERROR"

log = structlog.get_logger(__name__)
TextSink = Callable[[str, bool], None]
"""Takes the text of the segment and whether it is final."""


class Line:
    """One call's line to the recogniser. Made by `SphinxProcess.open`."""

    def __init__(self, number: int, on_text: TextSink, on_lost: Callable[[ProviderError], None]) -> None:
        self.number = number
        self.on_text = on_text
        self.on_lost = on_lost
        self.opened: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class SphinxProcess(asyncio.SubprocessProtocol):
    """Starts the process, routes its reports to lines, tells all lines when it dies; the next `open` starts another."""

    def __init__(self) -> None:
        self._transport: asyncio.SubprocessTransport | None = None
        self._starting = asyncio.Lock()
        self._exited = asyncio.Event()
        self._lines: dict[int, Line] = {}
        self._numbers = 0
        self._buffer = bytearray()
        self._read = msgspec.msgpack.Decoder(cast(type[Report], Report))
        self.dropped = 0
        """Pieces of audio dropped because the process was behind."""

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        return self._transport.get_pid() if self._transport is not None else None

    async def open(self, grammar: str | None, on_text: TextSink, on_lost: Callable[[ProviderError], None]) -> Line:
        """Open a line. Raises Refused (the grammar does not compile), Unavailable, TimedOut."""
        try:
            async with asyncio.timeout(OPEN_DEADLINE):
                await self._ensure_started()
                self._numbers += 1
                line = self._lines[self._numbers] = Line(self._numbers, on_text, on_lost)
                try:
                    self._send(Open(line.number, grammar))
                    error = await line.opened
                except BaseException:
                    self.close(line)
                    raise
        except TimeoutError:
            # It may be stuck in this grammar, and with it all other calls.
            self._kill()
            raise TimedOut(f"Recogniser not ready in {OPEN_DEADLINE:g} s", vendor="local", code=_CODE) from None
        except OSError as error:
            raise Unavailable(f"Recogniser does not start: {error}", vendor="local", code=_CODE) from error
        if error is not None:
            self.close(line)
            raise Refused(f"Recogniser refuses the grammar: {error}", vendor="local", code="CONFIG_ERROR")
        return line

    def hear(self, line: Line, pcm: bytes) -> None:
        """Pass on 16-bit audio at 16 kHz."""
        pipe = self._pipe()
        if pipe is None or pipe.get_write_buffer_size() > MAX_BEHIND:
            if self.dropped == 0:
                log.warning("recogniser_behind", limit_bytes=MAX_BEHIND)
            self.dropped += 1
            return
        self._send(Audio(line.number, pcm))

    def finish(self, line: Line) -> None:
        """Ask for the segment's final text."""
        self._send(Finish(line.number))

    def close(self, line: Line) -> None:
        """Forget a line. Idempotent."""
        if self._lines.pop(line.number, None) is not None:
            self._send(Close(line.number))

    async def aclose(self) -> None:
        """End the process; lines that are open are told. Idempotent."""
        if self._transport is None:
            return
        self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._exited.wait()

    async def _ensure_started(self) -> None:
        async with self._starting:
            if self._transport is not None:
                return
            self._exited = asyncio.Event()
            self._buffer.clear()
            command = (sys.executable, "-m", "providers.local.sphinx_worker")
            # It needs no key and no setting of ours: it gets none.
            inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self, *command, stderr=None, env=inherited | {"PYTHONPATH": str(Path(__file__).parents[2])}
            )

    def _pipe(self) -> asyncio.WriteTransport | None:
        if self._transport is None:
            return None
        return cast(asyncio.WriteTransport | None, self._transport.get_pipe_transport(0))

    def _send(self, request: Request) -> None:
        pipe = self._pipe()
        if pipe is not None and not pipe.is_closing():
            pipe.write(pack(request))

    def _kill(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Reports of the process (asyncio calls this)."""
        self._buffer += data
        for body in bodies(self._buffer):
            report = self._read.decode(body)
            line = self._lines.get(report.stream)
            if line is None:
                continue
            if not isinstance(report, Opened):
                line.on_text(report.text, report.final)
            elif not line.opened.done():
                line.opened.set_result(report.error)

    def process_exited(self) -> None:
        """The process is gone (asyncio calls this)."""
        if self._lines:
            code = self._transport.get_returncode() if self._transport else None
            log.error("recogniser_died", returncode=code, calls=len(self._lines))
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self._exited.set()
        lines, self._lines = self._lines, {}
        for line in lines.values():
            lost = Unavailable("The recogniser process died", vendor="local", code=_CODE)
            if line.opened.done():
                line.on_lost(lost)
            else:
                line.opened.set_exception(lost)


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SphinxProcess] = weakref.WeakKeyDictionary()


def shared() -> SphinxProcess:
    """The recogniser process of the running loop."""
    return _shared.setdefault(asyncio.get_running_loop(), SphinxProcess())


async def aclose_shared() -> None:
    """End the recogniser process of the running loop, if there is one. A later call starts a new one."""
    process = _shared.pop(asyncio.get_running_loop(), None)
    if process is not None:
        await process.aclose()
