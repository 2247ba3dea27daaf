"""A connection to Deepgram: whose it is, read message by message, closed politely."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from providers.errors import Unavailable
from providers.socket import CLOSE_TIMEOUT, VendorEndpoint

CODE = "STT_ERROR"
CLOSE_STREAM = '{"type":"CloseStream"}'


@dataclass(frozen=True, slots=True)
class DeepgramAccess:
    """The operator's key and the websocket origin, such as `wss://api.deepgram.com`."""

    api_key: str = field(repr=False)
    ws_url: str

    def endpoint(self, url: str, vendor: str) -> VendorEndpoint:
        """A target under this key."""
        return VendorEndpoint(url, {"Authorization": f"Token {self.api_key}"}, vendor, CODE)


async def read(socket: ClientConnection, vendor: str) -> str | bytes:
    """The next message. Raises Unavailable when the connection is gone."""
    try:
        return await socket.recv()
    except ConnectionClosed as closed:
        how = f"{closed.rcvd.code} {closed.rcvd.reason}".strip() if closed.rcvd else "no close frame"
        raise Unavailable(f"{vendor} closed the connection ({how})", vendor=vendor, code=CODE) from closed


async def hang_up(socket: ClientConnection) -> None:
    """Send CloseStream and close, if Deepgram takes it in time; the socket is gone afterwards either way."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await socket.send(CLOSE_STREAM)
            await socket.close()
    except (TimeoutError, ConnectionClosed):
        pass
    finally:
        socket.transport.abort()
