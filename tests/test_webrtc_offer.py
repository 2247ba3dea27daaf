"""What of a stranger's offer is taken up, and what is answered to the rest."""

from __future__ import annotations

import pytest

from transports.webrtc.offer import MAX_CANDIDATES, MAX_SECTIONS, OfferError, read_offer

SESSION = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
KEYS = ["a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901", "a=fingerprint:sha-256 AA:BB", "a=setup:actpass"]
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
    "c=IN IP4 0.0.0.0",
    "a=mid:0",
    "a=rtpmap:111 opus/48000/2",
    "a=sendrecv",
    *KEYS,
]
DATA = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:1", "a=sctp-port:5000", *KEYS]
VIDEO = ["m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:2", "a=rtpmap:96 VP8/90000", "a=sendrecv", *KEYS]


def sdp(*parts: list[str]) -> str:
    return "\r\n".join(line for part in parts for line in part) + "\r\n"


def candidate(address: str, port: int = 50000, transport: str = "udp", component: int = 1) -> str:
    return f"a=candidate:1 {component} {transport} 2130706431 {address} {port} typ host"


def test_an_ordinary_offer_passes_as_it_is() -> None:
    text = sdp(SESSION, [*AUDIO, candidate("192.0.2.7")], DATA)
    offer = read_offer(text)
    assert offer.has_events
    assert offer.sdp == text


def test_an_offer_without_data_channel_is_a_call_without_events() -> None:
    assert not read_offer(sdp(SESSION, AUDIO)).has_events


def test_lines_may_end_as_they_like() -> None:
    assert read_offer(sdp(SESSION, AUDIO).replace("\r\n", "\n")).sdp == read_offer(sdp(SESSION, AUDIO)).sdp


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a session description"),
        ("garbage", "not a session description"),
        ("v=0\r\n" + "\0" * 1000, "no audio"),
        (sdp(SESSION), "no audio"),
        (sdp(SESSION, DATA), "no audio"),
        (sdp(SESSION, VIDEO, DATA), "no audio"),
        (sdp(SESSION, ["m=audio 0 UDP/TLS/RTP/SAVPF 111", *AUDIO[1:]]), "no audio"),
        (sdp(SESSION, [line for line in AUDIO if "ufrag" not in line]), "ice-ufrag"),
        (sdp(SESSION, [line for line in AUDIO if "ice-pwd" not in line]), "ice-pwd"),
        (sdp(SESSION, [line for line in AUDIO if "fingerprint" not in line]), "fingerprint"),
        (sdp(SESSION, [line for line in AUDIO if "mid" not in line]), "mid"),
        (sdp(SESSION, AUDIO, [line for line in DATA if "fingerprint" not in line]), "fingerprint"),
        (sdp(SESSION, [line.replace("opus/48000/2", "PCMU/8000") for line in AUDIO]), "Opus"),
        (sdp(SESSION, [line.replace("sendrecv", "inactive") for line in AUDIO]), "sendrecv"),
        (sdp(SESSION, [line.replace("sendrecv", "sendonly") for line in AUDIO]), "sendrecv"),
        (sdp(SESSION, AUDIO, *[VIDEO] * MAX_SECTIONS), "more than"),
        ("v=0\r\nm=\r\n", "no audio"),
        ("v=0\r\nm=audio\r\n", "no ice-ufrag"),
    ],
)
def test_what_no_call_can_come_of_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(OfferError, match=said):
        read_offer(text)


def test_keys_may_stand_for_the_whole_session() -> None:
    bare = [line for line in AUDIO if line not in KEYS]
    assert read_offer(sdp([*SESSION, *KEYS], bare)).sdp


@pytest.mark.proves("web-29")
@pytest.mark.parametrize(
    "line",
    [
        candidate("5c2f63a0-6b1b-4a7e-9f0a-3e2b5b6f7a8b.local"),
        candidate("example.com"),
        candidate("192.0.2.7", transport="tcp"),
        candidate("192.0.2.7", component=2),
        candidate("192.0.2.7", port=0),
        candidate("192.0.2.7", port=70000),
        candidate("239.1.2.3"),
        candidate("0.0.0.0"),
        "a=candidate:nonsense",
        "a=candidate:1 1 udp 1 192.0.2.7 x typ host",
        "a=end-of-candidates",
    ],
)
def test_an_address_that_cannot_be_tried_at_once_is_never_tried(line: str) -> None:
    good = candidate("192.0.2.7")
    offer = read_offer(sdp(SESSION, [*AUDIO, line, good]))
    assert line not in offer.sdp
    assert good in offer.sdp


def test_an_offer_does_not_make_us_knock_at_any_number_of_doors() -> None:
    many = [candidate(f"192.0.2.{number}") for number in range(1, 200)]
    offer = read_offer(sdp(SESSION, [*AUDIO, *many], [*DATA, *many]))
    assert offer.sdp.count("a=candidate:") == MAX_CANDIDATES


def test_what_a_voice_call_has_no_use_for_is_refused_in_its_place_and_never_opened() -> None:
    second_audio = [line.replace("mid:0", "mid:3") for line in AUDIO]
    session = [line.replace("BUNDLE 0 1", "BUNDLE 2 0 3 1") for line in SESSION]
    offer = read_offer(sdp(session, VIDEO, AUDIO, second_audio, DATA))
    assert "m=video" not in offer.sdp
    assert offer.sdp.count("m=audio") == 1
    assert "a=group:BUNDLE 0 1\r\n" in offer.sdp
    answer = offer.complete(
        sdp(["v=0", "a=group:BUNDLE 0 1"], ["m=audio 5000 X 111", "a=mid:0"], ["m=application 5000 Y z", "a=mid:1"])
    )
    assert [line for line in answer.split("\r\n") if line.startswith(("m=", "a=mid", "a=inactive"))] == [
        *("m=video 0 UDP/TLS/RTP/SAVPF 96", "a=inactive", "a=mid:2"),
        *("m=audio 5000 X 111", "a=mid:0"),
        *("m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=inactive", "a=mid:3"),
        *("m=application 5000 Y z", "a=mid:1"),
    ]
