"""Checks that the floor works, however its input is split: a floor that loses events
cannot be a reference."""

import socket
import struct
from pathlib import Path

import processes

HANDSHAKE = (
    "GET /ws/{topic} HTTP/1.1\r\nHost: floor\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# The answer to the example key of RFC 6455.
ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ANSWERS = {"raw": b"\x06", "http": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"}

# Two clients are on topic 0, one is on topic 1, nobody is on topic 2.
TOPICS = [0, 1, 0]
# One size for each of the three forms of a frame's length.
SIZES = [3, 200, 70_000]


def check(binary: Path) -> None:
    for protocol in ANSWERS:
        with processes.floor(binary, protocol) as floor:
            check_floor(floor, protocol)


def check_floor(floor: processes.Floor, protocol: str) -> None:
    clients = [client(floor, topic) for topic in TOPICS]
    published = [
        (number % 3, bytes([number]) * SIZES[number % len(SIZES)]) for number in range(90)
    ] + [(0, b"last"), (1, b"last")]
    publisher = connect(floor.addresses["ingest"])
    # A prime, so that requests are cut at every position.
    send_in_parts(publisher, b"".join(request(protocol, *it) for it in published), 1009)
    answers = ANSWERS[protocol] * len(published)
    expect(receive(publisher, len(answers)) == answers, "an answer to each publish")
    for topic, stream in zip(TOPICS, clients):
        expected = [envelope for to, envelope in published if to == topic]
        expect([frame(stream) for _ in expected] == expected, "each frame, in order")
    frames = sum(TOPICS.count(topic) for topic, _ in published)
    expect(floor.counts()["frames"] == frames, "the frames to be counted")
    for stream in [*clients, publisher]:
        stream.close()


def client(floor: processes.Floor, topic: int) -> socket.socket:
    """Connects a client from an address of its own, with a handshake that is sent in
    parts."""
    stream = connect(floor.addresses["client"], source=f"127.0.0.{topic + 1}")
    send_in_parts(stream, HANDSHAKE.format(topic=topic).encode(), 50)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive(stream, 1)
    expect(head.startswith(b"HTTP/1.1 101 ") and ACCEPTED in head, "a handshake")
    return stream


def connect(address: str, source: str = "127.0.0.1") -> socket.socket:
    host, port = address.split(":")
    stream = socket.create_connection((host, int(port)), 10, (source, 0))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def send_in_parts(stream: socket.socket, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        stream.sendall(data[at : at + size])


def request(protocol: str, topic: int, envelope: bytes) -> bytes:
    if protocol == "raw":
        return struct.pack("<II", 4 + len(envelope), topic) + envelope
    head = f"POST /{topic} HTTP/1.1\r\nHost: floor\r\nContent-Length: {len(envelope)}\r\n\r\n"
    return head.encode() + envelope


def frame(stream: socket.socket) -> bytes:
    kind, size = receive(stream, 2)
    expect(kind == 0x82, "a binary frame")
    if size == 126:
        [size] = struct.unpack(">H", receive(stream, 2))
    elif size == 127:
        [size] = struct.unpack(">Q", receive(stream, 8))
    return receive(stream, size)


def receive(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        expect(bool(part), "more bytes")
        data += part
    return data


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise processes.Failed(f"the floor does not work: expected {what}")
