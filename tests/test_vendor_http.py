"""Vendors that talk without end: what of it is read, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from providers.catalogues.elevenlabs import elevenlabs_voices
from providers.errors import TimedOut, Unavailable
from providers.vendor_http import MAX_BYTES
from transports.twilio.account import CarrierUnavailable
from transports.twilio.rest import TwilioRest


@asynccontextmanager
async def endless(pause: float, status: str = "200 OK") -> AsyncGenerator[tuple[str, list[int]]]:
    """A vendor whose answers never end, and how much of each it got rid of."""
    sent: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            sent.append(0)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n[".encode())
            chunk = b" " if pause else bytes(1 << 20).replace(b"\0", b" ")
            while not writer.is_closing():
                writer.write(chunk)
                await writer.drain()
                sent[-1] += len(chunk)
                await asyncio.sleep(pause)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
    finally:
        server.close()


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "503 Service Unavailable"])
async def test_a_vendors_answer_is_read_up_to_a_limit(status: str) -> None:
    async with endless(0, status) as (url, sent):
        with pytest.raises(Unavailable):
            await elevenlabs_voices("key", url)
        rest = TwilioRest("AC1", "t", url)
        with pytest.raises(CarrierUnavailable):
            await rest.numbers()
        await rest.aclose()
    assert len(sent) == 3, "Twilio is asked twice"
    assert max(sent) < 2 * MAX_BYTES


async def test_a_list_of_voices_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.catalogues.reading._REQUEST_S", 0.15)
    async with endless(0.02) as (url, _):
        with pytest.raises(TimedOut):
            async with asyncio.timeout(2):
                await elevenlabs_voices("key", url)
