"""Scenarios with relays that run: what passes through the proxy, what the relay sees of the
client, and what the timeouts and logs of the proxy do."""

import asyncio
import json
import secrets
import time

from bench import SHORT, require
from processes import HOST, PATIENCE, CheckError

from clients import BINARY, ORIGIN, TOPIC, closed, fields, receive_data, refusal


async def json_in_subprotocol(bench):
    """JSON, the token as a subprotocol"""
    client, _ = await bench.clients.subscribed(bench.proxy.port, origin=ORIGIN)
    await bench.post_to_both({"n": 1})
    require(await receive_data(client) == {"n": 1}, "another event was received")
    version = client.transport.get_extra_info("ssl_object").version()
    await client.close()
    return f"{version}, one event"


async def binary_in_header(bench):
    """Protocol Buffers, the token in a header"""
    token = bench.clients.token(subscribe=[TOPIC])
    client = await bench.clients.open(
        bench.proxy.port, token, encoding=BINARY, in_header=True
    )
    confirmed = await asyncio.wait_for(client.recv(), PATIENCE)
    require(isinstance(confirmed, bytes) and 11 in fields(confirmed), "no SubscriptionConfirmed")
    # An envelope with a Ping (field 14) without content.
    await client.send(b"\x72\x00")
    require(15 in fields(await asyncio.wait_for(client.recv(), PATIENCE)), "no Pong")
    await bench.post_to_both({"text": "as bytes"})
    event = fields(await asyncio.wait_for(client.recv(), PATIENCE)).get(32, b"")
    require(b"as bytes" in event, "another event was received")
    await client.close()
    return "ping, one event"


async def large_heads(bench):
    """tokens of 8 KiB, request heads of 15.5 KiB"""
    token = bench.clients.largest_token()
    rest = {"Cookie": "c=" + "x" * (15_500 - len(token) - 500)}
    for headers in ({}, rest):
        for in_header in (True, False):
            client, _ = await bench.clients.subscribed(
                bench.proxy.port, token, in_header=in_header, headers=headers
            )
            await client.close()
    return f"token of {len(token)} bytes"


async def client_addresses(bench):
    """the relay sees and limits the client's address"""
    user = f"user-{secrets.token_hex(4)}"
    token = bench.clients.token(user)
    address, other = bench.clients.new_address(), bench.clients.new_address()
    forged = {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=198.51.100.7"}

    def attempt(address, headers=None):
        return refusal(bench.clients.open(
            bench.proxy.port, token, in_header=True, address=address, headers=headers
        ))

    require(await attempt(address, forged) is None, "the first handshake is refused")
    await bench.until(f"a log line with {user} and {address}", lambda: any(
        relay.has_logged(message="client connected", user=user, address=address)
        for relay in bench.relays
    ))
    # With TLS of its own, the relay closes such a connection before the TLS handshake.
    refused = 0 if bench.kind == "haproxy-passthrough" else 429
    # Each of the relays takes 8 handshakes, and a few more while this goes on. So many
    # refusals in a row are those of both.
    answers = [None]
    while answers[-12:] != [refused] * 12:
        answers.append(await attempt(address, forged))
        require(len(answers) < 200 and answers[-1] in (None, refused), f"answers: {answers}")
    require(await attempt(other, forged) is None, "another address is limited too")
    return f"{answers.count(None)} handshakes, then refused; another address is accepted"


async def origins(bench):
    """Origin and refusals pass"""
    token, port = bench.clients.token(), bench.proxy.port
    wrong = "https://evil.example.org"
    found = [
        await refusal(bench.clients.open(port, token, origin=ORIGIN)),
        await refusal(bench.clients.open(port, token, origin=wrong)),
        await refusal(bench.clients.open(port, token, origin=wrong, in_header=True)),
        await refusal(bench.clients.open(port, "x.y.z")),
        await refusal(bench.clients.open(port, "x.y.z", in_header=True)),
    ]
    require(found == [None, 4403, 403, 4401, 401], f"answers: {found}")
    status, headers, body = await asyncio.to_thread(bench.proxy.request, "/ws")
    problem = headers["content-type"] == "application/problem+json" and b'"code"' in body
    require(status == 426 and problem, f"a GET is answered {status}, {body}")
    return "4403, 403, 4401, 401, and problem documents"


async def no_buffering(bench):
    """nothing is buffered"""
    client, epoch = await bench.clients.subscribed(bench.proxy.port, topic="room:quick")
    relay, delays = bench.relay_of(epoch), []
    for number in range(100):
        began = time.perf_counter()
        # Each is posted when the one before it has come, so none waits for another.
        await bench.post(relay, {"n": number}, "room:quick")
        require(await receive_data(client) == {"n": number}, "another event was received")
        delays.append(time.perf_counter() - began)
    large = {"text": "x" * 900_000}
    await bench.post(relay, large, "room:quick")
    require(await receive_data(client) == large, "a large event is changed")
    await client.close()
    delays.sort()
    return f"100 events one by one, median {delays[50] * 1000:.1f} ms; one of 900 kB"


async def server_sent_events(bench):
    """server-sent events are not buffered"""
    token = bench.clients.token()
    async with bench.clients.event_stream(bench.proxy.port, token, "room:stream") as stream:
        require(stream.headers.startswith("HTTP/1.1 200 "), f"the answer is {stream.headers}")
        confirmed = (await stream.data())["subscriptionConfirmed"]
        relay, delays = bench.relay_of(confirmed["position"]["epoch"]), []
        for number in range(50):
            began = time.perf_counter()
            await bench.post(relay, {"n": number}, "room:stream")
            event = await stream.data()
            require(event["event"]["data"] == {"n": number}, f"received {event}")
            delays.append(time.perf_counter() - began)
        await bench.post(relay, {"text": "x" * 900_000}, "room:stream")
        require(len((await stream.data())["event"]["data"]["text"]) == 900_000, "it is cut")
    delays.sort()
    return f"50 events one by one, median {delays[25] * 1000:.1f} ms; one of 900 kB"


async def polls(bench):
    """the polls of a client go to the same relay"""
    connection = bench.proxy.open_connection()
    headers = {"Host": HOST, "Authorization": f"Bearer {bench.clients.token()}"}

    def poll(query=""):
        connection.request("GET", f"/poll?topic=room:poll{query}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        require(answer.status == 200, f"a poll is answered {answer.status}, {body}")
        return json.loads(body)

    try:
        position, delays = (await asyncio.to_thread(poll))["position"], []
        relay = bench.relay_of(position["epoch"])
        for number in range(20):
            since = f"&since={position['epoch']}:{position.get('offset', 0)}"
            waiting = asyncio.create_task(asyncio.to_thread(poll, since))
            began = time.perf_counter()
            await bench.post(relay, {"n": number}, "room:poll")
            answer = await waiting
            events = [event["event"]["data"] for event in answer["events"]]
            require(answer["recovered"] and events == [{"n": number}], f"received {answer}")
            position = answer["position"]
            delays.append(time.perf_counter() - began)
    finally:
        connection.close()
    delays.sort()
    return f"20 polls one by one, median {delays[10] * 1000:.1f} ms"


async def slow_reader(bench):
    """a client that does not read is closed by the relay"""
    tenant = f"slow-{secrets.token_hex(4)}"
    token = bench.clients.token(tenant=tenant)
    client, _ = await bench.clients.subscribed(bench.proxy.port, token)
    relay = next(it for it in bench.relays if it.connections(tenant))
    size, posted = 250_000, 0
    while await asyncio.to_thread(relay.connections, tenant):
        await bench.post(relay, {"text": "x" * size}, tenant=tenant)
        posted += size
        require(posted < 64_000_000, "64 MB are buffered")
    code, _ = await closed(client)
    require(code in (4003, 1006), f"the close code is {code}")
    return f"code {code} after {posted / 1e6:.1f} MB"


async def idle_without_pings(bench):
    """an idle client without pings is cut by the proxy"""
    client, _ = await bench.clients.subscribed(bench.impatient.port)
    began = time.monotonic()
    code, _ = await closed(client)
    lived = time.monotonic() - began
    require(code in (1001, 1006), f"the close code is {code}")
    require(SHORT * 0.9 < lived < SHORT * 3, f"it is cut after {lived:.1f} s")
    return f"timeout {SHORT} s, cut after {lived:.1f} s"


async def idle_with_pings(bench):
    """an idle client with pings outlives the timeout"""
    client, _ = await bench.clients.subscribed(bench.pinged.port)
    began = time.monotonic()
    # The client only answers pings, for as long as three timeouts.
    try:
        message = await asyncio.wait_for(client.recv(), SHORT * 3)
        raise CheckError(f"received {message}")
    except TimeoutError:
        lived = time.monotonic() - began
    await bench.post(bench.pinging_relay, {"n": 2})
    require(await receive_data(client) == {"n": 2}, "another event was received")
    await client.close()
    return f"timeout {SHORT} s, alive after {lived:.1f} s"


async def reload(bench):
    """a reload of the proxy"""
    old, epoch = await bench.clients.subscribed(bench.proxy.port)
    await asyncio.to_thread(bench.proxy.reload)
    new, _ = await bench.clients.subscribed(bench.proxy.port)
    if bench.kind == "caddy":
        code, _ = await closed(old)
        detail = f"closes connections with {code}"
        require(code in (1001, 1006), detail)
    else:
        await bench.post(bench.relay_of(epoch), {"n": 3})
        require(await receive_data(old) == {"n": 3}, "another event was received")
        detail = "closes no connection"
    await old.close()
    await new.close()
    return detail


async def tokens_are_not_logged(bench):
    """the proxy logs neither query strings nor tokens"""
    token, port = bench.clients.token(), bench.proxy.port
    path = f"/ws?access_token={token}"

    async def get(path, headers):
        try:
            await asyncio.to_thread(bench.proxy.request, path, headers)
        except OSError:
            # The answer to a head that is too large may be lost by a reset.
            pass

    async def attempts():
        await asyncio.gather(
            *(
                refusal(bench.clients.open(port, offered, path=path, in_header=in_header))
                for offered in (token, token + "x") for in_header in (True, False)
            ),
            get(path, {}), get(f"/other{path}", {}), get(path, {"X-Large": token * 500}),
        )

    await attempts()
    for relay in bench.relays:
        await asyncio.to_thread(relay.end)
    unavailable = {0} if bench.kind == "haproxy-passthrough" else {502, 503}
    status = await refusal(bench.clients.open(port, token, path=path))
    require(status in unavailable, f"without a relay, a handshake is answered {status}")
    # What fails is logged too.
    await attempts()
    await asyncio.to_thread(bench.proxy.process.end)
    logs = bench.proxy.logs()
    for name, text in logs.items():
        for secret in ("eyJ", "access_token"):
            line = next((line for line in text.splitlines() if secret in line), None)
            require(line is None, f"{name} has {line}")
    lines = "".join(logs.values()).splitlines()
    telling = "relays/" if bench.kind == "haproxy-passthrough" else "/ws"
    about = sum(telling in line for line in lines)
    # Otherwise the absence of tokens would say nothing.
    require(about > 50, f"only {about} lines are about connections")
    return f"{about} lines about handshakes"
