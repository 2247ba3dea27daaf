"""Where the gateway reaches into aiortc, and the only place that does.

aiortc gives each incoming track a decoder thread and a queue across it, holds four packets (80 ms) back before it
decodes the first, lets the system choose every port, and puts messages of any length together. A server of many voices
wants none of these. What is used here is not part of its public interface; a test asks `misfits` whether an installed
aiortc still has all of it.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aioice.ice
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpTransceiver, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport, RtpRouter
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtcsctptransport import DataChunk, InboundStream
from aiortc.rtp import AnyRtcpPacket, RtcpByePacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSrPacket, RtpPacket
from aiortc.stats import RTCStatsReport

from transports.webrtc.uplink import CLOCK_RATE, Packet

REPORT_SECONDS: Final = 1.0
"""Between two reports of what was received (RFC 3550 §6.2 would allow 5)."""
MAX_PIECES: Final = 500
"""Of messages that are not complete; the longest frame that is taken has 14. Each new one costs a look at all."""
MAX_STREAMS: Final = 64
_RECEIVER_OF_TRANSCEIVER: Final = "_RTCRtpTransceiver__receiver"


def misfits() -> list[str]:
    """What this module expects of aiortc and aioice and does not find there."""
    expected: list[tuple[object, str]] = [
        (RTCRtpReceiver, "_set_rtcp_ssrc"),
        (RTCRtpReceiver, "setTransport"),
        (RTCDtlsTransport, "_register_rtp_receiver"),
        (RTCDtlsTransport, "_unregister_rtp_receiver"),
        (RTCDtlsTransport, "_send_rtp"),
        (RtpRouter, "route_rtp"),
        (RTCSctpTransport, "_receive_data_chunk"),
        (InboundStream(), "reassembly"),
        (aioice.ice.Connection, "get_component_candidates"),
        (aioice.ice.Connection, "gather_candidates"),
    ]
    missing = [f"{owner} has no {name}" for owner, name in expected if not hasattr(owner, name)]
    transceiver = RTCRtpTransceiver.__new__(RTCRtpTransceiver)
    with suppress(Exception):
        transceiver.__init__("audio", None, None)  # pyright: ignore[reportArgumentType] only to see what it keeps
    if not hasattr(transceiver, _RECEIVER_OF_TRANSCEIVER):
        missing.append("RTCRtpTransceiver keeps its receiver elsewhere")
    for name in ("self._protocols", "StunProtocol(self)"):
        if name not in inspect.getsource(aioice.ice.Connection.get_component_candidates):
            missing.append(f"aioice gathers candidates without {name}")
    for name in ("await self._receive_data_chunk(", "self._inbound_streams[", "self._sack_misordered.add("):
        if name not in inspect.getsource(RTCSctpTransport):
            missing.append(f"RTCSctpTransport does without {name}")
    for name in ("_handle_rtp_packet", "_handle_rtcp_packet", "_handle_disconnect"):
        if name not in inspect.getsource(inspect.getmodule(RTCDtlsTransport) or RTCDtlsTransport):
            missing.append(f"RTCDtlsTransport does not call {name}")
    return missing


class DirectReceiver(RTCRtpReceiver):
    """Hands each packet of the remote track on as it comes: no thread, no queue, nothing decoded here."""

    def __init__(self, transport: RTCDtlsTransport, on_packet: Callable[[Packet], None]) -> None:
        super().__init__("audio", transport)
        self._on_packet = on_packet
        self._payload_types: set[int | None] = set()
        self._statistics: dict[int, StreamStatistics] = {}
        self._last_report: tuple[int, int, float] | None = None
        """Whose sender report came last: SSRC, the middle of its time, and when (loop time)."""
        self._ssrc: int | None = None
        self._reporting: asyncio.Task[None] | None = None

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """Begin. Idempotent."""
        if self._reporting is None:
            self._payload_types = {codec.payloadType for codec in parameters.codecs}
            self.transport._register_rtp_receiver(self, parameters)  # pyright: ignore[reportPrivateUsage]
            self._reporting = asyncio.create_task(self._report(), name="rtcp")

    async def stop(self) -> None:
        """End for good."""
        if self._reporting is not None:
            self.transport._unregister_rtp_receiver(self)  # pyright: ignore[reportPrivateUsage]
            self._reporting.cancel()
            with suppress(asyncio.CancelledError):
                await self._reporting

    async def getStats(self) -> RTCStatsReport:  # noqa: N802 - aiortc's name
        """Nothing is counted for this; the line counts for itself."""
        return RTCStatsReport()

    def _set_rtcp_ssrc(self, ssrc: int) -> None:
        self._ssrc = ssrc

    def _handle_disconnect(self) -> None:
        """There is no thread to stop."""

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            middle = (packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
            self._last_report = (packet.ssrc, middle, asyncio.get_running_loop().time())
        elif isinstance(packet, RtcpByePacket):
            self._statistics.clear()

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        if packet.payload_type not in self._payload_types or not packet.payload:
            return
        statistics = self._statistics.get(packet.ssrc)
        if statistics is None:
            # One track has one source; a sender that changes it begins anew.
            self._statistics.clear()
            statistics = self._statistics[packet.ssrc] = StreamStatistics(CLOCK_RATE)
        statistics.add(packet)
        self._on_packet(Packet(packet.sequence_number, packet.timestamp, packet.payload))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS * random.uniform(0.8, 1.2))
            reports = [self._reception(ssrc, statistics) for ssrc, statistics in self._statistics.items()]
            if self._ssrc is not None and reports:
                with suppress(ConnectionError):
                    report = RtcpRrPacket(ssrc=self._ssrc, reports=reports)
                    await self.transport._send_rtp(bytes(report))  # pyright: ignore[reportPrivateUsage]

    def _reception(self, ssrc: int, statistics: StreamStatistics) -> RtcpReceiverInfo:
        lsr, dlsr = 0, 0
        if self._last_report is not None and self._last_report[0] == ssrc:
            since = asyncio.get_running_loop().time() - self._last_report[2]
            lsr, dlsr = self._last_report[1], min(int(since * 65536), 0xFFFFFFFF)
        return RtcpReceiverInfo(
            ssrc=ssrc,
            fraction_lost=statistics.fraction_lost,
            packets_lost=statistics.packets_lost,
            highest_sequence=statistics.max_seq or 0,
            jitter=statistics.jitter,
            lsr=lsr,
            dlsr=dlsr,
        )


def receive_directly(transceiver: RTCRtpTransceiver, on_packet: Callable[[Packet], None]) -> None:
    """Have each packet of this audio transceiver handed over. Before anything is negotiated."""
    receiver = DirectReceiver(transceiver.receiver.transport, on_packet)
    receiver._set_rtcp_ssrc(transceiver.sender._ssrc)  # pyright: ignore[reportPrivateUsage]
    setattr(transceiver, _RECEIVER_OF_TRANSCEIVER, receiver)


def bound_messages(connection: RTCPeerConnection, on_excess: Callable[[], None]) -> None:
    """Take no more pieces of a page's messages than MAX_PIECES that never become whole, and tell `on_excess` of each
    further one: it is left. After the offer is set."""
    sctp = connection.sctp
    if sctp is None:
        return
    take = sctp._receive_data_chunk  # pyright: ignore[reportPrivateUsage]

    async def receive(chunk: DataChunk) -> None:
        streams = sctp._inbound_streams  # pyright: ignore[reportPrivateUsage]
        pieces = sum(len(stream.reassembly) for stream in streams.values())
        gaps = len(sctp._sack_misordered)  # pyright: ignore[reportPrivateUsage]
        if len(streams) > MAX_STREAMS or max(pieces, gaps) > MAX_PIECES:
            on_excess()
        else:
            await take(chunk)

    sctp._receive_data_chunk = receive  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] on this object only


@dataclass(frozen=True, slots=True)
class Network:
    """Where the gateway can be reached by UDP. `ports` None: any port. `public_ip` is what the outside knows a machine
    by that sees itself under a private address."""

    public_ip: str | None = None
    ports: tuple[int, int] | None = None


def listen_on(transceiver: RTCRtpTransceiver, network: Network) -> None:
    """Take ports from the range and tell the public address. Before the answer is set."""
    connection = transceiver.receiver.transport.transport.iceGatherer._connection  # pyright: ignore[reportPrivateUsage]

    async def gather(component: int, addresses: list[str]) -> list[Candidate]:
        found: list[Candidate] = []
        for address in addresses or ["127.0.0.1"]:
            protocol = await _bind(connection, address, network.ports)
            if protocol is None:
                continue
            host, port = protocol.transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = _candidate(component, "host", (host, port))
            connection._protocols.append(protocol)  # pyright: ignore[reportPrivateUsage]
            found.append(protocol.local_candidate)
            if network.public_ip is not None and (":" in network.public_ip) == (":" in host):
                found.append(_candidate(component, "srflx", (network.public_ip, port), (host, port)))
        return found

    connection.get_component_candidates = gather  # pyright: ignore[reportAttributeAccessIssue] on this object only


async def _bind(
    connection: aioice.ice.Connection, address: str, ports: tuple[int, int] | None
) -> aioice.ice.StunProtocol | None:
    """A socket on that address; None when no port of the range is free or the address is not ours."""
    loop = asyncio.get_running_loop()
    wanted = [0] if ports is None else random.sample(range(ports[0], ports[1] + 1), ports[1] - ports[0] + 1)
    for port in wanted:
        with suppress(OSError):
            _, protocol = await loop.create_datagram_endpoint(
                lambda: aioice.ice.StunProtocol(connection), local_addr=(address, port)
            )
            return protocol
    return None


def _candidate(
    component: int, kind: str, address: tuple[str, int], related: tuple[str, int] | None = None
) -> Candidate:
    return Candidate(
        foundation=candidate_foundation(kind, "udp", address[0]),
        component=component,
        transport="udp",
        priority=candidate_priority(component, kind),
        host=address[0],
        port=address[1],
        type=kind,
        related_address=None if related is None else related[0],
        related_port=None if related is None else related[1],
    )
