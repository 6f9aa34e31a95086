"""What the checks of the .proto files share: the default bundled schema's envelope
and its events, read from the compiled files."""

import tomllib
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool

# The numbers in the envelope that belong to the relay; all others are events.
RELAY_NUMBERS = {1, *range(8, 32)}

# How many events the bundled schema has. Where this is wrong, so would be a check
# that found none.
EVENTS = 20


def load(descriptor_set: str, bundled: str):
    """The pool of all that is compiled, the names of its own files (those of
    Google are not), and the envelope that the bundled schema names."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(descriptor_set).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    own = [file.name for file in files.file if not file.name.startswith("google/")]
    envelope = tomllib.loads(Path(bundled).read_text())["schema"][0]["envelope"]
    return pool, own, pool.FindMessageTypeByName(envelope)


def payloads(envelope):
    """The members of the oneof: events, and control messages."""
    members = envelope.oneofs_by_name["payload"].fields
    events = [member for member in members if member.number not in RELAY_NUMBERS]
    control = [member for member in members if member.number in RELAY_NUMBERS]
    assert len(events) == EVENTS, f"{len(events)} events, not {EVENTS}"
    return events, control
