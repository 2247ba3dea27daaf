"""One connection to Flux: opened until it says Connected, read message by message."""

from __future__ import annotations

import structlog
from websockets.asyncio.client import ClientConnection

from providers.deepgram.flux_wire import VENDOR, Connected, FluxError, FluxMessage, FluxWarning, parse
from providers.deepgram.link import CODE, read
from providers.deepgram.messages import Unreadable
from providers.errors import Unavailable
from providers.socket import VendorEndpoint, connect_retrying

log = structlog.get_logger(__name__)


async def open_flux(target: VendorEndpoint) -> ClientConnection:
    """A connection that is ready for audio; the caller owns it. Raises ProviderError.

    A connection that fails to say that it is ready, or that nobody waits for, is not left open.
    """
    socket = await connect_retrying(target)
    ready = False
    try:
        while not isinstance(message := await receive(socket), Connected):
            pass
        ready = True
        log.info("flux_connected", request_id=message.request_id)
        return socket
    finally:
        if not ready:
            socket.transport.abort()


async def receive(socket: ClientConnection) -> FluxMessage | None:
    """The next message; None for one that means nothing to us. Raises Unavailable when Flux fails or is gone.

    Garbage is noted and skipped: if Flux sends nothing else, the silence that this is will be noticed.
    """
    try:
        message = parse(await read(socket, VENDOR))
    except Unreadable:
        log.warning("flux_unreadable_message")
        return None
    if isinstance(message, FluxError):
        reason = f"{message.code} {message.description}".strip()
        raise Unavailable(f"{VENDOR} failed: {reason}", vendor=VENDOR, code=CODE)
    if isinstance(message, FluxWarning):
        log.info("flux_warning", code=message.code)
    return message
