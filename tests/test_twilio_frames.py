"""Twilio's frames: what is read, what is written, and that nothing at all can raise."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.twilio.frames import (
    MAX_FRAME_BYTES,
    ConnectedFrame,
    DtmfFrame,
    Fault,
    FrameWriter,
    MarkFrame,
    MediaFrame,
    StartFrame,
    StopFrame,
    read_frame,
)

START = (
    b'{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"streamSid":"MZ1","accountSid":"AC1",'
    b'"callSid":"CA1","tracks":["inbound"],"customParameters":{"call_id":"CA1","key":"k"},'
    b'"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
)


def media(payload: bytes, track: str = "inbound") -> bytes:
    body = {"track": track, "chunk": "1", "timestamp": "5", "payload": b64encode(payload).decode()}
    return json.dumps({"event": "media", "sequenceNumber": "3", "streamSid": "MZ1", "media": body}).encode()


@pytest.mark.proves("row-111")
def test_every_frame_of_the_carrier_is_read() -> None:
    assert read_frame(b'{"event":"connected","protocol":"Call","version":"1.0.0"}') == ConnectedFrame("Call")
    start = read_frame(START)
    assert isinstance(start, StartFrame)
    assert (start.stream_sid, start.start.call_sid, start.start.account_sid) == ("MZ1", "CA1", "AC1")
    assert start.start.custom_parameters == {"call_id": "CA1", "key": "k"}
    assert start.start.media_format.is_telephone
    dtmf = read_frame(b'{"event":"dtmf","streamSid":"MZ1","dtmf":{"track":"inbound_track","digit":"#"}}')
    assert isinstance(dtmf, DtmfFrame)
    assert dtmf.dtmf.digit == "#"
    mark = read_frame(b'{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"u1-end"}}')
    assert isinstance(mark, MarkFrame)
    assert mark.mark.name == "u1-end"
    stop = read_frame(b'{"event":"stop","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}')
    assert stop == StopFrame("MZ1")


@given(st.binary(max_size=2000), st.sampled_from(["inbound", "outbound"]))
def test_audio_comes_through_byte_for_byte(audio: bytes, track: str) -> None:
    for data in (media(audio, track), memoryview(media(audio, track))):
        frame = read_frame(data)
        assert isinstance(frame, MediaFrame)
        assert (frame.media.payload, frame.media.track, frame.stream_sid) == (audio, track, "MZ1")


@pytest.mark.parametrize("rate", [b"8000", b'"8000"'])
def test_the_sample_rate_may_be_a_number_or_a_string(rate: bytes) -> None:
    frame = read_frame(START.replace(b"8000", rate))
    assert isinstance(frame, StartFrame)
    assert frame.start.media_format.is_telephone


def test_another_codec_is_noticed() -> None:
    frame = read_frame(START.replace(b"audio/x-mulaw", b"audio/x-l16"))
    assert isinstance(frame, StartFrame)
    assert not frame.start.media_format.is_telephone


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b"{}",
        b'{"event":"media"}',
        b'{"event":"telepathy","streamSid":"MZ1"}',
        b'{"event":7}',
        b'{"event":"media","streamSid":"MZ1","media":{"payload":"not base64!"}}',
        b'{"event":"media","streamSid":"MZ1","media":{"payload":null}}',
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":5}}',
        b'{"event":"stop","streamSid":"MZ1"',
        b'{"event":"stop","streamSid":"\xff\xfe"}',
        b'{"event":"stop","streamSid":"\\ud800"}',
        b'{"event":"stop","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)
def test_nonsense_is_a_fault_and_no_exception(data: bytes) -> None:
    assert read_frame(data) is Fault.MALFORMED


def test_a_frame_larger_than_any_of_twilios_is_not_even_parsed() -> None:
    assert read_frame(media(b"\xff" * MAX_FRAME_BYTES)) is Fault.OVERSIZED


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["inbound", "MZ1", "/////w=="]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["event", "streamSid", "media", "payload", "track", "mark", "name", "start", "callSid"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_EVENTS = ["connected", "start", "media", "dtmf", "mark", "stop", "else"]


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    read_frame(data)


@given(st.sampled_from(_EVENTS), st.dictionaries(st.sampled_from(["streamSid", *_EVENTS]), _json, max_size=5))
def test_frames_of_random_shape_never_raise(event: str, body: dict[str, Any]) -> None:
    read_frame(json.dumps({"event": event, **body}).encode())


@given(st.integers(0, len(START)), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_frames_never_raise(at: int, noise: bytes, lost: int) -> None:
    read_frame(START[:at] + noise + START[at + lost :])


@pytest.mark.proves("row-111")
@given(st.binary(max_size=4000), st.text(), st.text())
def test_written_frames_are_exactly_what_twilio_documents(audio: bytes, sid: str, name: str) -> None:
    sid, name = (text.encode("utf-8", "ignore").decode() for text in (sid, name))
    writer = FrameWriter.of(sid)
    frame = json.loads(writer.media(audio))
    assert b64decode(frame["media"].pop("payload"), validate=True) == audio
    assert frame == {"event": "media", "streamSid": sid, "media": {}}
    assert json.loads(writer.mark(name)) == {"event": "mark", "streamSid": sid, "mark": {"name": name}}
    assert json.loads(writer.clear) == {"event": "clear", "streamSid": sid}
