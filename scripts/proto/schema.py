"""Shared by the checks of the .proto files: reads the envelopes of the bundled schemas
and their events from the compiled files."""

import tomllib
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool

# Field numbers of the envelope that belong to the relay; all others are events.
RELAY_NUMBERS = {1, *range(8, 32)}

# Number of events in each bundled schema, so that a check that finds none fails.
EVENTS = {"tracker": 20, "generic": 3}


def load(descriptor_set: str, bundled: str):
    """Returns the pool of all compiled files, the names of the project's own files
    (without Google's), and the envelopes by the name of the bundled schema."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(descriptor_set).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    own = [file.name for file in files.file if not is_googles(file)]
    schemas = tomllib.loads(Path(bundled).read_text())["schema"]
    envelopes = {it["name"]: pool.FindMessageTypeByName(it["envelope"]) for it in schemas}
    assert envelopes.keys() == EVENTS.keys(), f"{envelopes.keys()}, not {EVENTS.keys()}"
    return pool, own, envelopes


def is_googles(file) -> bool:
    """Returns True if the file comes with Protocol Buffers."""
    return file.name.startswith("google/")


def payloads(name: str, envelope):
    """Returns the members of the oneof of the named schema: events, and control
    messages."""
    members = envelope.oneofs_by_name["payload"].fields
    events = [member for member in members if member.number not in RELAY_NUMBERS]
    control = [member for member in members if member.number in RELAY_NUMBERS]
    assert len(events) == EVENTS[name], f"{name}: {len(events)} events, not {EVENTS[name]}"
    return events, control
