"""Tests the Python that protoc generated: fills each payload of each envelope, converts
it to bytes and JSON and back, and compares.

    roundtrip.py PYTHON_DIR DESCRIPTOR_SET BUNDLED_TOML
"""

import importlib
import sys

from google.protobuf import descriptor, descriptor_pool, json_format, message_factory

import schema

# Recursive messages, such as an envelope in a batch, are filled to this depth.
DEPTH = 3

# Contents of a google.protobuf.Value: one of each kind.
VALUES = [None, True, 7.5, "text \u2603", [1, "two", None], {"key": {"within": [False]}}]


def scalar(field, seed: int):
    """Returns a value that is not the field's default and differs between fields."""
    number = field.number * 10 + seed
    match field.cpp_type:
        case descriptor.FieldDescriptor.CPPTYPE_STRING:
            if field.type == descriptor.FieldDescriptor.TYPE_BYTES:
                return bytes([0, 255, number % 256])
            return f"{field.name} {number} \u2603 \"\\\n\U0001f600"
        case descriptor.FieldDescriptor.CPPTYPE_BOOL:
            return True
        case descriptor.FieldDescriptor.CPPTYPE_DOUBLE | descriptor.FieldDescriptor.CPPTYPE_FLOAT:
            return number + 0.5
        case descriptor.FieldDescriptor.CPPTYPE_ENUM:
            values = [value.number for value in field.enum_type.values if value.number != 0]
            return values[seed % len(values)]
        case descriptor.FieldDescriptor.CPPTYPE_INT64:
            return -(2**63) + number
        case descriptor.FieldDescriptor.CPPTYPE_UINT64:
            return 2**64 - 1 - number
        case descriptor.FieldDescriptor.CPPTYPE_INT32:
            return -(2**31) + number
        case descriptor.FieldDescriptor.CPPTYPE_UINT32:
            return 2**32 - 1 - number
    raise AssertionError(f"{field.full_name}: a type that this script does not know")


def chosen_fields(message_type, seed: int) -> list:
    """Returns fields that can be set together, with one member of each oneof, selected
    by the seed. (The implicit oneof of an `optional` field has one member.)"""
    return [
        field
        for field in message_type.fields
        if (oneof := field.containing_oneof) is None
        or oneof.fields[seed % len(oneof.fields)] is field
    ]


def fill(message, seed: int, depth: int = DEPTH) -> None:
    """Sets every field of the message; lists get two values."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Value":
        json_format.ParseDict(VALUES[seed % len(VALUES)], message)
        return
    for field in chosen_fields(message.DESCRIPTOR, seed):
        set_field(message, field, seed, depth)


def set_field(message, field, seed: int, depth: int) -> None:
    is_map = field.message_type and field.message_type.GetOptions().map_entry
    assert not is_map, f"{field.full_name}: a map, which this script does not know"
    if field.message_type is None:
        if field.is_repeated:
            getattr(message, field.name).extend(scalar(field, seed + at) for at in range(2))
        else:
            setattr(message, field.name, scalar(field, seed))
    elif depth > 0:
        if field.is_repeated:
            for at in range(2):
                fill(getattr(message, field.name).add(), seed + at, depth - 1)
        else:
            child = getattr(message, field.name)
            child.SetInParent()
            fill(child, seed, depth - 1)


def zero_optional(message) -> None:
    """Sets every `optional` field to its default, which is not the same as unset."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if not field.is_repeated and message.HasField(field.name):
                zero_optional(getattr(message, field.name))
        elif field.containing_oneof and len(field.containing_oneof.fields) == 1:
            setattr(message, field.name, field.default_value)


def enum_sizes(message_type, depth: int = DEPTH):
    """Yields the number of values of each enum within the message."""
    for field in message_type.fields:
        if field.enum_type is not None:
            yield len(field.enum_type.values)
        elif field.message_type is not None and depth > 0:
            yield from enum_sizes(field.message_type, depth - 1)


def check(message) -> None:
    """Checks that the message survives bytes and both kinds of JSON, with unset fields
    still unset (equality distinguishes them)."""
    kind = type(message)
    assert kind.FromString(message.SerializeToString()) == message
    for proto_names in (False, True):
        text = json_format.MessageToJson(message, preserving_proto_field_name=proto_names)
        assert json_format.Parse(text, kind()) == message, text


def check_payload(envelope_class, member) -> int:
    """Round-trips one payload: filled, once for each value of its longest enum and at
    least once for each kind of Value; with its optional fields at their defaults; and
    empty. Returns the number of round trips."""
    count = max([*enum_sizes(member.message_type), len(VALUES)])
    for seed in range(count):
        envelope = envelope_class(message_id="id", timestamp=1_700_000_000)
        payload = getattr(envelope, member.name)
        payload.SetInParent()
        fill(payload, seed)
        assert envelope.WhichOneof("payload") == member.name
        filled = [field for field, _ in payload.ListFields()]
        assert len(filled) == len(chosen_fields(payload.DESCRIPTOR, seed)), member.name
        check(envelope)
        zero_optional(payload)
        check(envelope)
    empty = envelope_class()
    getattr(empty, member.name).SetInParent()
    assert empty.WhichOneof("payload") == member.name
    check(empty)
    return 2 * count + 1


def main() -> None:
    python_dir, descriptor_set, bundled = sys.argv[1:]
    _, own, envelopes = schema.load(descriptor_set, bundled)
    sys.path.insert(0, python_dir)
    for name in own:
        importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    event_count = control_count = trips = 0
    for name, described in envelopes.items():
        envelope = descriptor_pool.Default().FindMessageTypeByName(described.full_name)
        envelope_class = message_factory.GetMessageClass(envelope)
        events, control = schema.payloads(name, envelope)
        event_count += len(events)
        control_count += len(control)
        trips += sum(check_payload(envelope_class, member) for member in [*events, *control])
    print(f"{event_count} events, {control_count} control messages, {trips} round trips")


if __name__ == "__main__":
    main()
