"""Many clients over many restarts: quiet and busy ones, in JSON and Protocol Buffers, some in the
middle of a replay, some present. Judges what each of them received, and measures for how long
they were away and what their return costs the relay."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
import statistics
import time

from load import TENANT, Backend, Follower, JsonCodec, Load
from machine import expect
from packaged import INGEST_KEY, SECRET, SERVICE

PROJECTS = [f"busy-{it}" for it in range(50)]
# Clients of a quiet project, in which next to nothing happens.
PER_QUIET_PROJECT = 5
# Clients that show themselves to each other, in the first of the quiet projects.
PRESENT = 20
# Clients that replay everything when a restart comes.
REPLAYING = 5
# With a pause of 15 ms and the call itself, these post 200 events a second.
BACKENDS = 4
PAUSE_S = 0.015
# Time in which all must be back.
BACK_S = 60.0


class ProtobufCodec:
    """The messages of binary clients, as far as a follower needs them. The keys of what is
    decoded are those of the JSON."""

    subprotocol = "sidewire.v1.protobuf"

    @staticmethod
    def encode(envelope):
        subscribe = envelope["subscribe"]
        body = b"".join(text(16, topic) for topic in subscribe["topics"])
        if position := subscribe.get("resumeFrom"):
            epoch, offset = position["epoch"], int(position.get("offset", 0))
            body += text(17, text(1, epoch) + number(2, offset))
        return text(1, envelope["messageId"]) + text(10, body)

    @staticmethod
    def decode(message):
        envelope = {}
        for field, value in fields(message):
            match field:
                case 9:
                    envelope["position"] = position_of(value)
                case 11:
                    envelope["subscriptionConfirmed"] = confirmation_of(value)
                case 16:
                    envelope["error"] = value
        return envelope


def varint(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number(field, value):
    return varint(field << 3) + varint(value)


def text(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def fields(message):
    """Yields the numbers and values of a message's fields: integers and bytes."""
    at = 0

    def read_varint():
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
        key = read_varint()
        match key & 7:
            case 0:
                yield key >> 3, read_varint()
            case 2:
                length = read_varint()
                yield key >> 3, message[at : at + length]
                at += length
            case other:
                raise ValueError(f"a field has the wire type {other}")


def position_of(message):
    position = dict(fields(message))
    return {"epoch": position.get(1, b"").decode(), "offset": position.get(2, 0)}


def confirmation_of(message):
    confirmed = dict(fields(message))
    return {
        "position": position_of(confirmed.get(17, b"")),
        "recovered": bool(confirmed.get(18, 0)),
        "replayed": confirmed.get(20, 0),
    }


class Signer:
    """Signs tokens with the secret of the relay, since a thousand calls of `sidewire token` take
    longer than the test."""

    def __init__(self, operator):
        self.secret = operator.machine.path(SECRET).read_bytes()
        sample = operator.token("sample").split(".")
        self.header, self.claims = (json.loads(self.decoded(it)) for it in sample[:2])
        self.user_claim = next(key for key, value in self.claims.items() if value == "sample")

    @staticmethod
    def decoded(part):
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    @staticmethod
    def encoded(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    def sign(self, user):
        claims = self.claims | {self.user_claim: user}
        parts = (json.dumps(part).encode() for part in (self.header, claims))
        signed = ".".join(map(self.encoded, parts))
        signature = hmac.digest(self.secret, signed.encode(), hashlib.sha256)
        return f"{signed}.{self.encoded(signature)}"


async def fleet(operator):
    """All clients come back after each restart, and receive every event once."""
    clients = int(os.environ.get("SIDEWIRE_FLEET_CLIENTS", "100"))
    restarts = int(os.environ.get("SIDEWIRE_FLEET_RESTARTS", "3"))
    machine = operator.machine
    sign = Signer(operator).sign
    url = "ws://127.0.0.1:3000/ws"

    def follower(index, topics, **more):
        return Follower(url, sign(f"user-{index}"), topics=topics, **more)

    def busy_or_quiet(index):
        codec = ProtobufCodec if index // 2 % 2 else JsonCodec
        if index % 2:
            project = PROJECTS[index // 2 % len(PROJECTS)]
            return follower(index, (f"project:{project}",), codec=codec)
        topic = f"project:quiet-{index // 2 // PER_QUIET_PROJECT}"
        return follower(index, (topic,), codec=codec)

    present = [
        follower(
            f"present-{it}",
            ("project:quiet-0",),
            presence={"status": "PRESENCE_STATUS_ONLINE", "projectId": "quiet-0"},
        )
        for it in range(PRESENT)
    ]
    followers = [*present, *map(busy_or_quiet, range(clients - PRESENT))]
    key = machine.read(INGEST_KEY)
    mark = f"{time.time_ns():x}"
    backends = [
        Backend(3001, key, f"{mark}-{it}", tuple(PROJECTS[it:] + PROJECTS[:it]), PAUSE_S)
        for it in range(BACKENDS)
    ]
    rates = []
    load = FleetLoad(followers, backends)
    async with load:
        start = dict(zip(("epoch", "offset"), backends[0].stored[0], strict=True))
        for number in range(restarts):
            topics = tuple(f"project:{project}" for project in PROJECTS)
            replaying = [
                follower(
                    f"late-{number}-{it}", topics, resume_from=dict(start), since=start["offset"]
                )
                for it in range(REPLAYING)
            ]
            load.join(replaying)
            await load.reach(
                lambda late=replaying: all(it.events for it in late), "replays have begun", BACK_S
            )
            began, stored = time.monotonic(), load.stored_count()
            await asyncio.to_thread(machine.systemctl, "restart", SERVICE)
            await load.reach(load.all_back(number + 1), "every client is back", BACK_S)
            rates.append(operator.cpu_seconds())
            await load.progress()
            rate = (load.stored_count() - stored) / (time.monotonic() - began)
        quiet = sorted({it.topics[0].partition(":")[2] for it in followers if it.is_quiet()})
        for project in quiet:
            await asyncio.to_thread(backends[0].store, f"{mark}-{project}", project)
    return load.judge_fleet(restarts, rates, rate)


class FleetLoad(Load):
    """A load of clients with topics of their own, of which some join later."""

    def join(self, followers):
        self.followers = [*self.followers, *followers]
        self.tasks += [asyncio.create_task(it.run()) for it in followers]

    def stored_count(self):
        return sum(len(it.stored) for it in self.backends)

    def counts(self):
        """Quiet clients receive next to nothing."""
        stored = [len(backend.stored) for backend in self.backends]
        busy = (it for it in self.followers if not it.is_quiet())
        # 20 events of all projects are less than one of each.
        return stored + [sum(map(len, it.events.values())) * 20 for it in busy]

    def all_back(self, restarts):
        """Returns whether every client has been closed by the last restart and is back."""

        def is_back(follower):
            closes = 1 if follower.is_late() else restarts
            return follower.left_at is None and len(follower.closes) >= closes

        return lambda: all(map(is_back, self.followers))

    def delivered(self):
        return all(not self.missing(it) for it in self.followers)

    def missing(self, follower):
        """Returns the stored events of its topics that it has not received."""
        owed = {
            at
            for backend in self.backends
            for at, topic in backend.topic_of.items()
            if topic in follower.topics and at[1] > follower.since
        }
        return owed - follower.received()

    def judge_fleet(self, restarts, cpu_seconds, rate):
        for follower in self.followers:
            follower.check_order()
            missing = self.missing(follower)
            expect(not missing, f"a client missed stored events: {sorted(missing)[:5]}")
            answers = [it.recovered for it in follower.confirmations if it.resumed]
            expect(all(answers), f"resumes were answered with recovered: {answers}")
            if not follower.is_late():
                expect(len(answers) >= restarts, f"a client resumed {len(answers)} times")
        codes = {code for code, _ in self.closes()}
        expect(codes == {1001}, f"clients were closed with {codes}")
        expect(self.refused() == 0, f"{self.refused()} connections were refused")
        seen = [it for follower in self.followers for it in follower.presences]
        absent = [it for it in seen if it.get("status") == "PRESENCE_STATUS_OFFLINE"]
        expect(not absent, f"{len(absent)} presence messages say that somebody has gone")
        # Each of them sees each other one once after each start, and itself at most once.
        most = (restarts + 1) * PRESENT * self.watchers()
        expect(len(seen) <= most, f"{len(seen)} presence messages are a storm; expected {most}")
        absences = sorted(itertools.chain.from_iterable(it.absences_s for it in self.followers))
        call = max(it.longest_call_s for it in self.backends)
        return (
            f"{len(self.followers)} clients, {restarts} restarts, {self.stored_count()} events "
            f"({rate:.0f}/s), away for {statistics.median(absences):.2f} s (median) to "
            f"{absences[-1]:.2f} s, longest call {call:.2f} s, CPU from the start to the last "
            f"return {statistics.median(cpu_seconds):.2f} s, {len(seen)} presence messages"
        )

    def watchers(self):
        return sum("project:quiet-0" in it.topics for it in self.followers)
