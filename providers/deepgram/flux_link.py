"""One connection to Flux: opened until it says Connected, read message by message, closed politely."""

from __future__ import annotations

import asyncio

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from providers.deepgram.flux_wire import (
    CLOSE_STREAM,
    VENDOR,
    Connected,
    FluxError,
    FluxMessage,
    FluxWarning,
    Unreadable,
    parse,
)
from providers.errors import TimedOut, Unavailable
from providers.socket import CLOSE_TIMEOUT, VendorEndpoint, connect_retrying

log = structlog.get_logger(__name__)

CODE = "STT_ERROR"
CONNECT_DEADLINE = 6.0
"""Seconds for everything up to Flux's Connected, retries included."""


async def open_flux(target: VendorEndpoint) -> ClientConnection:
    """A connection that is ready for audio; the caller owns it. Raises ProviderError."""
    try:
        async with asyncio.timeout(CONNECT_DEADLINE):
            socket = await connect_retrying(target)
            await _await_connected(socket)
            return socket
    except TimeoutError as late:
        raise TimedOut(f"{VENDOR} was not ready in {CONNECT_DEADLINE:g} s", vendor=VENDOR, code=CODE) from late


async def _await_connected(socket: ClientConnection) -> None:
    """Wait for Flux's first message; a connection that fails to say it, or that nobody waits for, is not left open."""
    ready = False
    try:
        while not isinstance(message := await receive(socket), Connected):
            pass
        ready = True
        log.info("flux_connected", request_id=message.request_id)
    finally:
        if not ready:
            socket.transport.abort()


async def receive(socket: ClientConnection) -> FluxMessage | None:
    """The next message; None for one that means nothing to us. Raises Unavailable when Flux fails or is gone.

    Garbage is noted and skipped: if Flux sends nothing else, the silence that this is will be noticed.
    """
    try:
        text = await socket.recv()
        message = parse(text)
    except ConnectionClosed as closed:
        how = closed.rcvd.code if closed.rcvd else "no close frame"
        raise Unavailable(f"{VENDOR} closed the connection ({how})", vendor=VENDOR, code=CODE) from closed
    except Unreadable:
        log.warning("flux_unreadable_message")
        return None
    if isinstance(message, FluxError):
        reason = f"{message.code} {message.description}".strip()
        raise Unavailable(f"{VENDOR} failed: {reason}", vendor=VENDOR, code=CODE)
    if isinstance(message, FluxWarning):
        log.info("flux_warning", code=message.code)
    return message


async def hang_up(socket: ClientConnection) -> None:
    """Send CloseStream and close, if Flux takes it in time; the socket is gone afterwards either way."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await socket.send(CLOSE_STREAM)
            await socket.close()
    except (TimeoutError, ConnectionClosed):
        pass
    finally:
        socket.transport.abort()
