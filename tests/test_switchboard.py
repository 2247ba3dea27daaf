"""One port: media sockets to picows, everything else to uvicorn, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx2
import pytest
import uvicorn
import uvloop
import websockets
from fastapi import FastAPI, WebSocket
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from structlog.testing import capture_logs

from server.switchboard import MAX_HEAD_BYTES, AcceptStream, switchboard_protocol

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Echo(WSListener):
    """Sends every text frame back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, b"media:" + frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()


@dataclass
class Door:
    """Accepts everyone but `/twilio/stream?no`, and remembers who came."""

    seen: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __call__(self, request: WSUpgradeRequest, peer: str) -> WSListener | None:
        self.seen.append((request.path.decode(), peer))
        return None if request.path.endswith(b"?no") else Echo()


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/plain")
    async def plain() -> dict[str, bool]:  # pyright: ignore[reportUnusedFunction]
        return {"ok": True}

    @app.post("/body")
    async def body(data: dict[str, str]) -> int:  # pyright: ignore[reportUnusedFunction]
        return len(data["text"])

    @app.websocket("/client")
    async def client(socket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        await socket.accept()
        await socket.send_text("agent:" + await socket.receive_text())
        await socket.close()

    return app


@asynccontextmanager
async def gateway(accept: AcceptStream, *, head_s: float = 10.0, host: str = "127.0.0.1") -> AsyncGenerator[str]:
    """A real uvicorn server behind the switchboard; gives `host:port`. Leaves by uvicorn's own graceful shutdown."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        config = uvicorn.Config(
            application(),
            http=switchboard_protocol(accept, head_s=head_s),
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
        try:
            async with asyncio.timeout(10):
                while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
                    await asyncio.sleep(0.01)
            name = f"[{host}]" if ":" in host else host
            yield f"{name}:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            async with asyncio.timeout(10):
                await serving


def run_on(loop_factory: Callable[[], asyncio.AbstractEventLoop], scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run(scenario: Callable[[], Awaitable[None]]) -> None:
        run_on(request.param, scenario)

    return run


OnLoop = Callable[[Callable[[], Awaitable[None]]], None]


async def raw(origin: str, *chunks: bytes, pause_s: float = 0.01) -> bytes:
    """Send chunks over a bare socket, return all that comes back until the server closes."""
    host, _, port = origin.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def test_http_and_agents_and_media_share_one_port(on_loop: OnLoop) -> None:
    door = Door()

    async def scenario() -> None:
        async with gateway(door) as origin, httpx2.AsyncClient(base_url=f"http://{origin}") as http:
            assert (await http.get("/plain")).json() == {"ok": True}
            async with websockets.connect(f"ws://{origin}/client") as agent:
                await agent.send("hi")
                assert await agent.recv() == "agent:hi"
            async with websockets.connect(f"ws://{origin}/twilio/stream") as line:
                await line.send("a")
                await line.send("b" * 30_000)
                assert await line.recv() == "media:a"
                assert await line.recv() == "media:" + "b" * 30_000
                assert (await http.post("/body", json={"text": "x" * 200_000})).json() == 200_000
                assert (await http.post("/twilio/stream")).status_code == 404
        assert door.seen == [("/twilio/stream", "127.0.0.1")]

    on_loop(scenario)


def test_requests_that_arrive_in_pieces_or_with_their_first_frames_are_understood(on_loop: OnLoop) -> None:
    handshake = (
        b"GET /twilio/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Filler: "
        + b"f" * 12_000
        + b"\r\n\r\n"
    )
    hello = b"\x81\x85\x00\x00\x00\x00hello"
    bye = b"\x88\x80\x00\x00\x00\x00"

    async def scenario() -> None:
        async with gateway(Door()) as origin:
            together = await raw(origin, handshake + hello + bye)
            apart = await raw(origin, *(handshake[i : i + 3000] for i in range(0, len(handshake), 3000)), hello, bye)
            assert together == apart
            assert together.startswith(b"HTTP/1.1 101 ")
            assert b"media:hello" in together
            answer = await raw(origin, b"GET /pl", b"ain HTTP/1.1\r\nHost: x\r\n", b"Connection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b'{"ok":true}')

    on_loop(scenario)


def test_a_media_path_that_is_refused_or_no_websocket_is_answered_and_closed(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with gateway(Door()) as origin:
            refused = await raw(origin, b"GET /twilio/stream?no HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 404 ")
            plain = await raw(origin, b"GET /twilio/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.startswith(b"HTTP/1.1 400 ")
            neighbour = await raw(origin, b"GET /twilio/streams HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert neighbour.endswith(b'{"detail":"Not Found"}')

    on_loop(scenario)


def test_a_head_that_never_ends_or_is_too_long_is_cut_off_and_others_are_served(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with gateway(Door(), head_s=0.1) as origin:
            assert await raw(origin, b"GET /pla", pause_s=0.2) == b""
            assert await raw(origin, b"GET /plain HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES) == b""
            async with httpx2.AsyncClient(base_url=f"http://{origin}") as http:
                assert (await http.get("/plain")).status_code == 200

    on_loop(scenario)


@pytest.mark.parametrize(("asked", "level"), [(b"", "debug"), (b"GET /pla", "warning")])
def test_a_connection_that_nobody_used_is_no_cause_for_a_warning(on_loop: OnLoop, asked: bytes, level: str) -> None:
    async def scenario() -> None:
        with capture_logs() as lines:
            async with gateway(Door(), head_s=0.1) as origin:
                assert await raw(origin, asked, pause_s=0.2) == b""
        assert [line["log_level"] for line in lines if line["event"] == "connection_refused"] == [level]

    on_loop(scenario)


def test_a_graceful_shutdown_waits_for_no_media_socket_and_no_silent_connection(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with gateway(Door()) as origin:
            line = await websockets.connect(f"ws://{origin}/twilio/stream")
            host, _, port = origin.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            left_at = loop.time()
        assert loop.time() - left_at < 5
        await line.send("still there")
        assert await line.recv() == "media:still there"
        assert await reader.read() == b""
        line.transport.abort()
        writer.close()

    on_loop(scenario)


def test_it_serves_ipv6_peers(on_loop: OnLoop) -> None:
    door = Door()

    async def scenario() -> None:
        try:
            async with gateway(door, host="::1") as origin, websockets.connect(f"ws://{origin}/twilio/stream") as line:
                await line.send("six")
                assert await line.recv() == "media:six"
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        assert door.seen == [("/twilio/stream", "::1")]

    on_loop(scenario)
