"""Scenarios with a relay that drains, and comes back."""

import asyncio
import re
import socket
import time

import websockets
from bench import require
from processes import PATIENCE, CheckError

from clients import ORIGIN, TENANT, TOPIC, closed, receive_data


class HalfPost:
    """A call of a backend of which the relay has half, which keeps it draining."""

    def __init__(self, relay, data):
        path, headers, body = relay.event(TENANT, TOPIC, data)
        head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        self._rest = body[-1:]
        self._socket = socket.create_connection((relay.address, relay.ports["ingest"]), PATIENCE)
        self._socket.sendall("\r\n".join([*head, "Expect: 100-continue", "", ""]).encode())
        # The relay has accepted the call when it asks for the body.
        answer = self._socket.recv(65536)
        require(answer == b"HTTP/1.1 100 Continue\r\n\r\n", f"the call is answered {answer}")
        self._socket.sendall(body[:-1])

    def complete(self):
        self._socket.sendall(self._rest)
        answer = self._socket.recv(65536)
        self._socket.close()
        require(answer.startswith(b"HTTP/1.1 200 "), f"the call is answered {answer}")


async def new_connections_avoid(bench, epoch, seconds):
    """Opens connections until 20 in a row are to another relay than that of the epoch, which
    must begin within these seconds. Returns how many were refused, and until when."""
    began, refused, in_a_row, settled = time.monotonic(), [], 0, 0.0
    for number in range(2000):
        # Of a browser, whose refusals come after the upgrade, or of another client.
        in_header = number % 4 < 2
        try:
            client, found = await bench.clients.subscribed(
                bench.proxy.port, origin=ORIGIN, in_header=in_header
            )
        except (websockets.WebSocketException, OSError, EOFError):
            refused.append(in_header)
            in_a_row, settled = 0, time.monotonic() - began
            require(settled < seconds, f"refused {settled:.1f} s after the signal")
            continue
        await client.close()
        require(found != epoch, "a draining relay accepts a connection")
        in_a_row += 1
        if in_a_row == 20:
            break
    require(in_a_row == 20, "new connections keep failing")
    # nginx asks before each handshake, HAProxy repeats what is answered 503.
    require(bench.kind != "nginx" or not refused, f"{len(refused)} handshakes are refused")
    require(bench.kind != "haproxy" or True not in refused, "a handshake is not repeated")
    return len(refused), settled


async def reconnected(bench, client):
    """Waits for 1001 and reconnects as a client does. Returns the connection and the epoch."""
    code, reason = await closed(client)
    delay = re.fullmatch(r"retry_after_ms=(\d+)", reason)
    require(code == 1001 and delay, f"closed with {code} {reason!r}")
    await asyncio.sleep(int(delay[1]) / 1000)
    return await bench.clients.subscribed(bench.proxy.port, origin=ORIGIN)


async def drain(bench):
    """a draining relay is taken out"""
    first, second = bench.relays
    opened = [await bench.clients.subscribed(bench.proxy.port) for _ in range(20)]
    moving = [client for client, epoch in opened if epoch == bench.epochs[0]]
    staying = [client for client, epoch in opened if epoch == bench.epochs[1]]
    require(moving and staying, f"{len(moving)} and {len(staying)} connections of the relays")
    half = await asyncio.to_thread(HalfPost, first, {"n": "last"})
    first.process.terminate()
    await bench.until("/readyz to be 503", lambda: first.readiness() == 503)
    refused, settled = await new_connections_avoid(bench, bench.epochs[0], 2.5)
    require(not first.process.has_ended(), "the relay ended before the call was complete")
    await asyncio.to_thread(half.complete)
    for client in moving:
        require(await receive_data(client) == {"n": "last"}, "another event was received")
    moved = await asyncio.gather(*(reconnected(bench, client) for client in moving))
    require({epoch for _, epoch in moved} == {bench.epochs[1]}, "a client is not at the other")
    await bench.until("the first relay to end", first.process.has_ended)
    await bench.post(second, {"n": "after"})
    for client in [*staying, *(client for client, _ in moved)]:
        require(await receive_data(client) == {"n": "after"}, "another event was received")
        await client.close()
    late = f"{refused} refused in the first {settled:.1f} s" if refused else "none refused"
    return f"{late}, {len(moving)} clients moved, {len(staying)} stayed"


async def return_of_relay(bench):
    """a relay that is back gets connections again"""
    first = bench.relays[0]
    first.start()
    await asyncio.to_thread(first.wait_until_ready)
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        client, epoch = await bench.clients.subscribed(bench.proxy.port)
        await client.close()
        if epoch != bench.epochs[1]:
            return f"after {time.monotonic() - began:.1f} s"
        await asyncio.sleep(0.05)
    raise CheckError(f"no connection after {PATIENCE} s")
