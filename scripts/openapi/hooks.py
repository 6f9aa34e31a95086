"""What Schemathesis cannot know from docs/openapi.yaml: the relay's limits in bytes, how a
cursor is made, and Protocol Buffers of the bundled schema `generic`. Counts the cases."""

import atexit
import base64
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

NAME_BYTES_MAX = 128
TOPIC_ID_BYTES_MAX = 256
TOPICS_MAX = 100


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what the relay judges in another way than JSON Schema can express: texts
    within the limit in characters but beyond the one in bytes, and more topics than the limit
    that are within it because each counts once."""
    query = case.query or {}
    listed = texts(query.get("topic"))
    if len(set(listed)) <= TOPICS_MAX < len(listed):
        return False
    names = texts(list((case.path_parameters or {}).values()))
    ids = [topic.partition(":")[2] for topic in listed + texts(query.get("if_last"))]
    return not any(
        len(text) <= limit < len(text.encode("utf-8", "surrogatepass"))
        for limit, found in ((NAME_BYTES_MAX, names), (TOPIC_ID_BYTES_MAX, ids))
        for text in found
    )


@schemathesis.hook
def map_case(context, case):
    """Makes a valid `after` of a list of presence one that the relay could have answered: it names
    a topic of the call."""
    query = case.query or {}
    topics = texts(query.get("topic"))
    is_valid = not case.meta.is_negative_at(ParameterLocation.QUERY)
    if not case.operation.path.endswith("/presence"):
        return case
    if is_valid and topics and isinstance(query.get("after"), str):
        cursor = f"{topics[0]}\nann".encode()
        query["after"] = base64.urlsafe_b64encode(cursor).rstrip(b"=").decode()
    return case


cases = Counter()


@schemathesis.hook
def after_call(context, case, response):
    cases[response.status_code] += 1


@atexit.register
def write_cases():
    Path(os.environ["SIDEWIRE_CASES"]).write_text(json.dumps(cases), encoding="ascii")


def texts(value):
    """Returns the texts of a parameter that may be repeated."""
    values = value if isinstance(value, list) else [value]
    return [value for value in values if isinstance(value, str)]


def field(number, content):
    """Returns a field with a length, which is less than 16,384 bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    if value < 0x80:
        return bytes([value])
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def event(kind, content, topics, message_id):
    """Returns an envelope with an Event {1 type, 3 bytes}, field 32."""
    payload = field(1, kind.encode()) + field(3, content)
    more = b"".join(field(18, topic.encode()) for topic in topics)
    return field(1, message_id.encode()) + more + field(32, payload)


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
topics = st.lists(names.map(lambda id: f"order:{id}"), max_size=3)
events = st.builds(event, names, st.binary(max_size=100), topics, names)
batches = st.lists(events, max_size=5).map(lambda it: b"".join(field(1, event) for event in it))


@st.composite
def damaged(draw):
    """An envelope or a batch in which one byte is replaced."""
    valid = bytearray(draw(st.one_of(events, batches.filter(bool))))
    valid[draw(st.integers(0, len(valid) - 1))] = draw(st.integers(0, 255))
    return bytes(valid)


bodies = st.one_of(events, batches, damaged(), st.binary(max_size=200))
schemathesis.openapi.media_type("application/x-protobuf", bodies)
