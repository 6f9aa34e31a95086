"""How an event gets its message_id."""

from __future__ import annotations

import json
import uuid
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2

from sidewire import _encode

# Field 32, the payload `event`, with a type.
PAYLOAD = b"\x82\x02\x05\x0a\x03new"
ID = b"\x0a\x03m-1"


@pytest.mark.parametrize("own", [{}, {"messageId": ""}, {"message_id": None}])
def test_json_without_an_id_gets_a_new_one_and_the_caller_keeps_its_envelope(
    own: dict[str, Any],
) -> None:
    envelope = {**own, "event": {}}
    event = _encode(MappingProxyType(envelope), None)
    assert uuid.UUID(event.message_id)
    assert json.loads(event.body) == {"messageId": event.message_id, "event": {}}
    assert envelope == {**own, "event": {}}
    assert _encode(envelope, None).message_id != event.message_id


@pytest.mark.parametrize("name", ["messageId", "message_id"])
@pytest.mark.parametrize("given", [None, "m-1"])
def test_json_keeps_its_own_id(name: str, given: str | None) -> None:
    event = _encode({name: "m-1", "event": {}}, given)
    assert event.message_id == "m-1"
    assert json.loads(event.body) == {"messageId": "m-1", "event": {}}


def test_json_is_sent_as_utf_8() -> None:
    body = _encode({"event": {"type": "größer"}}, "m-1").body
    assert json.loads(body.decode()) == {"messageId": "m-1", "event": {"type": "größer"}}


def test_bytes_without_an_id_get_it_appended() -> None:
    assert _encode(PAYLOAD, "m-1").body == PAYLOAD + ID
    event = _encode(PAYLOAD, None)
    assert event.body == PAYLOAD + b"\x0a\x24" + event.message_id.encode()


@pytest.mark.parametrize("given", [None, "m-1"])
@pytest.mark.parametrize("envelope", [ID + PAYLOAD, PAYLOAD + ID])
def test_bytes_with_an_id_stay_as_they_are(envelope: bytes, given: str | None) -> None:
    event = _encode(envelope, given)
    assert (event.message_id, event.body) == ("m-1", envelope)


def test_an_empty_id_in_bytes_is_replaced() -> None:
    assert _encode(b"\x0a\x00" + PAYLOAD, "m-1").body == PAYLOAD + ID


def test_all_kinds_of_fields_are_passed_over() -> None:
    other = b"\x40\xac\x02" + b"\x11" + b"12345678" + b"\x1d" + b"1234" + b"\x82\x02\x02\x0a\x00"
    assert _encode(other + ID, None).message_id == "m-1"
    assert _encode(other, "m-1").body == other + ID


def test_a_decoder_finds_the_id_that_was_appended() -> None:
    # Real messages with a string as field 1, and with fields in fields.
    for module in (descriptor_pb2, struct_pb2, timestamp_pb2):
        message = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(message)
        message.ClearField("name")
        body = _encode(message, "m-1").body
        message.name = "m-1"
        assert descriptor_pb2.FileDescriptorProto.FromString(body) == message
        assert _encode(message, None).body == message.SerializeToString()


def test_a_message_of_generated_code_is_serialized_once() -> None:
    class Message:
        calls = 0

        def SerializeToString(self) -> bytes:  # noqa: N802
            self.calls += 1
            return PAYLOAD

    message = Message()
    assert _encode(message, "m-1").body == PAYLOAD + ID
    assert message.calls == 1


@pytest.mark.parametrize("envelope", [{"messageId": "m-2"}, b"\x0a\x03m-2"])
def test_an_id_that_differs_from_the_envelopes_is_refused(envelope: Any) -> None:
    with pytest.raises(ValueError, match=r"'m-2'.*'m-1'"):
        _encode(envelope, "m-1")


@pytest.mark.parametrize("envelope", [{"messageId": "a", "message_id": "b"}, {"messageId": 7}])
def test_json_with_an_invalid_id_is_refused(envelope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="message_id"):
        _encode(envelope, None)


@pytest.mark.parametrize(
    "envelope",
    [
        b"\x0a\x05m-1",
        b"\x0a",
        b"\x11123",
        b"\x1d1",
        b"\x08\xff",
        b"\x80" * 11 + b"\x00",
        b"\x0b\x0c",
        b'{"event":{}}',
        b"\x0a\x01\xff",
        ID + ID,
        ID + b"\x0a\x00",
    ],
)
def test_bytes_that_are_not_an_envelope_are_refused(envelope: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        _encode(envelope, None)
