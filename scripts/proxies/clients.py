"""Clients with a WebSocket and with an event stream: tokens, connections from addresses of their own, and messages."""

import asyncio
import contextlib
import itertools
import json
import ssl
import time

import jwt
import websockets
from processes import HOST, PATIENCE, CheckError
from websockets.asyncio.client import connect

JSON = "sidewire.v1.json"
BINARY = "sidewire.v1.protobuf"
TENANT = "acme"
TOPIC = "room:1"
ORIGIN = "https://app.example.org"
# Maximum size of a token.
TOKEN_MAX = 8192


class Clients:
    """Opens connections to the proxy on a port of 127.0.0.1."""

    # Each client has an address of its own, and no two proxies share one.
    _addresses = (f"127.0.{high}.{low}" for high in itertools.count(1) for low in range(1, 255))

    def __init__(self, keys):
        self._secret = (keys / "jwt.secret").read_text()
        self._context = ssl.create_default_context(cafile=keys / "relay.crt")

    def new_address(self):
        return next(self._addresses)

    def token(self, user="ann", tenant=TENANT, **claims):
        claims = {"tenant_id": tenant, "user_id": user, "exp": int(time.time()) + 600, **claims}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def largest_token(self):
        """Returns a token of as many bytes as a relay takes, less at most 16."""
        shorter = self.token(padding="")
        # Base64 makes four bytes of three.
        token = self.token(padding="x" * ((TOKEN_MAX - len(shorter)) * 3 // 4 - 6))
        if not TOKEN_MAX - 16 <= len(token) <= TOKEN_MAX:
            raise CheckError(f"the largest token has {len(token)} bytes")
        return token

    async def open(self, port, token, *, encoding=JSON, in_header=False, path="/ws", origin=None,
                   headers=None, address=None):
        """Opens a connection, with the token in a header or, like a browser, as a
        subprotocol."""
        headers = dict(headers or {})
        subprotocols = [encoding]
        if in_header:
            headers["Authorization"] = f"Bearer {token}"
        else:
            subprotocols.append(f"bearer.{token}")
        socket = await connect(
            f"wss://{HOST}:{port}{path}", host="127.0.0.1", port=port, ssl=self._context,
            local_addr=(address or self.new_address(), 0), proxy=None, compression=None,
            subprotocols=subprotocols, additional_headers=headers, origin=origin,
            open_timeout=PATIENCE, close_timeout=PATIENCE, ping_interval=None, max_size=None,
            max_queue=4,
        )
        if socket.subprotocol != encoding:
            raise CheckError(f"the subprotocol is {socket.subprotocol}")
        return socket

    async def subscribed(self, port, token=None, topic=TOPIC, **options):
        """Opens a connection with JSON, subscribes to a topic, and returns it with the
        epoch of its relay."""
        socket = await self.open(port, token or self.token(), **options)
        await socket.send(json.dumps({"subscribe": {"topics": [topic]}}))
        confirmed = await receive(socket)
        if "subscriptionConfirmed" not in confirmed:
            raise CheckError(f"the relay answers a Subscribe with {confirmed}")
        return socket, confirmed["subscriptionConfirmed"]["position"]["epoch"]

    @contextlib.asynccontextmanager
    async def event_stream(self, port, token, topic):
        """Asks for server-sent events, over a connection that ends with the block."""
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                "127.0.0.1", port, ssl=self._context, server_hostname=HOST,
                local_addr=(self.new_address(), 0), limit=2**21,
            ), PATIENCE,
        )
        try:
            writer.write(
                f"GET /sse?topic={topic} HTTP/1.1\r\nHost: {HOST}\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            yield EventStream(reader, head.decode())
        finally:
            writer.close()


class EventStream:
    """A response with server-sent events. Chunks of a proxy are passed over: each of the relay's
    events is one line that begins with `data`."""

    def __init__(self, reader, headers):
        self._reader = reader
        self.headers = headers
        self._is_chunked = "transfer-encoding: chunked" in headers.lower()
        self._unread = b""

    async def _more(self):
        if not self._is_chunked:
            return await self._reader.read(2**16)
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def data(self):
        """Returns the data of the next event as JSON."""
        while True:
            event, end, rest = self._unread.partition(b"\n\n")
            if not end:
                more = await asyncio.wait_for(self._more(), PATIENCE)
                if not more:
                    raise CheckError("the stream has ended")
                self._unread += more
                continue
            self._unread = rest
            for line in event.splitlines():
                if line.startswith(b"data: "):
                    return json.loads(line[6:])


async def receive(socket):
    """Returns the next message as JSON."""
    return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))


async def receive_data(socket):
    """Returns the data of the next message, which must be an event."""
    message = await receive(socket)
    if "event" not in message:
        raise CheckError(f"expected an event instead of {message}")
    return message["event"]["data"]


async def closed(socket, seconds=PATIENCE):
    """Returns the close code and the reason with which the connection ends, discarding
    what comes before."""

    async def discard():
        while True:
            await socket.recv()

    try:
        await asyncio.wait_for(discard(), seconds)
    except websockets.ConnectionClosed as ended:
        received = ended.rcvd
        return (received.code, received.reason) if received else (1006, "")
    except TimeoutError:
        raise CheckError(f"a connection is still open after {seconds} s") from None


async def refusal(opening):
    """Returns the HTTP status, or the close code, with which a handshake is refused; None if
    it is accepted."""
    try:
        socket = await opening
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, EOFError, websockets.InvalidMessage):
        return 0
    try:
        # An accepted connection has the state of its topics first; one that is refused
        # after the upgrade is closed at once.
        await socket.send(json.dumps({"subscribe": {"topics": [TOPIC]}}))
        await asyncio.wait_for(socket.recv(), PATIENCE)
    except websockets.ConnectionClosed as ended:
        return ended.rcvd.code if ended.rcvd else 1006
    finally:
        await socket.close()
    return None


def fields(message):
    """Returns the values of the length-delimited fields of a Protobuf message, by number,
    and 0 for the other fields."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 2:
            length = varint()
            found[tag >> 3] = message[at : at + length]
            at += length
        elif tag & 7 == 0:
            varint()
            found[tag >> 3] = 0
        else:
            raise CheckError(f"the envelope has a field of wire type {tag & 7}")
    return found
