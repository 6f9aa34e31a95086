"""Clients that follow a topic and resume, backends that post events, and the judgement of
what the clients received. Refused connections are counted."""

import asyncio
import http.client
import itertools
import json
import re
import ssl
import time
from dataclasses import dataclass, field

from machine import Failure, expect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

TENANT = "acme"
PROJECT = "project-1"
TOPIC = f"project:{PROJECT}"
SUBPROTOCOL = "sidewire.v1.json"


class JsonCodec:
    """The messages of clients that speak JSON."""

    subprotocol = SUBPROTOCOL

    @staticmethod
    def encode(envelope):
        return json.dumps(envelope)

    @staticmethod
    def decode(message):
        return json.loads(message)


@dataclass
class Confirmation:
    """A SubscriptionConfirmed."""

    epoch: str
    offset: int
    resumed: bool
    recovered: bool
    at: float


@dataclass
class Follower:
    """A client that reconnects and resumes as docs/protocol.md demands."""

    url: str
    token: str
    tls: ssl.SSLContext | None = None
    topics: tuple[str, ...] = (TOPIC,)
    codec: type = JsonCodec
    # The offset that it begins behind.
    since: int = 0
    # What it shows to others after each Subscribe.
    presence: dict | None = None
    events: dict[str, list[int]] = field(default_factory=dict)
    confirmations: list[Confirmation] = field(default_factory=list)
    closes: list[tuple[int, str]] = field(default_factory=list)
    refused: int = 0
    presences: list[dict] = field(default_factory=list)
    absences_s: list[float] = field(default_factory=list)
    resume_from: dict | None = None
    replay_left: int = 0
    left_at: float | None = None

    async def run(self):
        while True:
            try:
                options = {"ssl": self.tls} if self.tls else {}
                async with connect(
                    self.url,
                    subprotocols=[self.codec.subprotocol],
                    additional_headers={"Authorization": f"Bearer {self.token}"},
                    proxy=None,
                    open_timeout=60,
                    **options,
                ) as socket:
                    await self.follow(socket)
            except ConnectionRefusedError:
                self.refused += 1
                await asyncio.sleep(0.05)
            except InvalidStatus as refused:
                # The relay shuts down.
                expect(refused.response.status_code == 503, f"handshake refused: {refused}")
                await asyncio.sleep(0.2)
            except (ConnectionClosed, ConnectionResetError, EOFError, OSError) as closed:
                await asyncio.sleep(self.note_close(closed))

    async def follow(self, socket):
        subscribe = {"topics": list(self.topics)}
        resumed = self.resume_from is not None
        if resumed:
            subscribe["resumeFrom"] = self.resume_from
        await self.send(socket, {"messageId": "subscribe", "subscribe": subscribe})
        if self.presence:
            await self.send(socket, {"messageId": "presence", "userPresence": self.presence})
        while True:
            self.receive(self.codec.decode(await socket.recv()), resumed)

    async def send(self, socket, envelope):
        await socket.send(self.codec.encode(envelope))

    def receive(self, envelope, resumed):
        if confirmed := envelope.get("subscriptionConfirmed"):
            now = time.monotonic()
            if self.left_at is not None:
                self.absences_s.append(now - self.left_at)
                self.left_at = None
            position = confirmed["position"]
            self.confirmations.append(
                Confirmation(
                    position["epoch"],
                    int(position.get("offset", 0)),
                    resumed,
                    confirmed.get("recovered", False),
                    now,
                )
            )
            self.replay_left = int(confirmed.get("replayed", 0))
            self.replay_end = position
            if not self.replay_left:
                self.resume_from = position
        elif "error" in envelope:
            raise Failure(f"a client received {envelope['error']}")
        elif presence := envelope.get("userPresence"):
            self.presences.append(presence)
        elif position := envelope.get("position"):
            self.events.setdefault(position["epoch"], []).append(int(position["offset"]))
            self.resume_from = position
            if self.replay_left:
                self.replay_left -= 1
                if not self.replay_left:
                    self.resume_from = self.replay_end

    def check_order(self):
        for epoch, offsets in self.events.items():
            rising = all(a < b for a, b in itertools.pairwise(offsets))
            expect(rising, f"a client received offsets out of order or twice in {epoch}")

    def is_quiet(self):
        return self.topics[0].startswith("project:quiet-")

    def is_late(self):
        """True for a client that replays several topics."""
        return len(self.topics) > 1

    def received(self):
        """Returns the positions of all events that it has received."""
        return {(epoch, offset) for epoch, offsets in self.events.items() for offset in offsets}

    def note_close(self, closed):
        """Returns for how many seconds to wait."""
        self.left_at = self.left_at or time.monotonic()
        received = getattr(closed, "rcvd", None)
        code, reason = (received.code, received.reason) if received else (1006, str(closed))
        self.closes.append((code, reason))
        told = re.fullmatch(r"retry_after_ms=(\d+)", reason)
        return int(told[1]) / 1000 if told else 0.05


@dataclass
class Backend:
    """Posts one event after another, each over a connection of its own, and posts an event
    again until it is stored."""

    port: int
    key: str
    name: str
    # It posts events about one after the other.
    projects: tuple[str, ...] = (PROJECT,)
    pause_s: float = 0.01
    stored: list[tuple[str, int]] = field(default_factory=list)
    topic_of: dict[tuple[str, int], str] = field(default_factory=dict)
    refused: int = 0
    longest_call_s: float = 0.0
    stop: bool = False

    def run(self):
        for number in itertools.count():
            if self.stop:
                return
            project = self.projects[number % len(self.projects)]
            self.store(f"{self.name}-{number}", project)
            time.sleep(self.pause_s)

    def store(self, message_id, project):
        """Posts an event until it is stored."""
        body = json.dumps(event(message_id, project))
        while not self.post(body, f"project:{project}"):
            time.sleep(0.05)

    def post(self, body, topic):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        began = time.monotonic()
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
            connection.request("POST", f"/v1/tenants/{TENANT}/events", body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            self.refused += 1
            return False
        except (ConnectionError, http.client.HTTPException):
            # The call was under way. Posting it again stores it once at most per epoch.
            return False
        finally:
            connection.close()
        self.longest_call_s = max(self.longest_call_s, time.monotonic() - began)
        if answer.status == 503:
            return False
        if answer.status not in (200, 202):
            raise Failure(f"a call was answered {answer.status}: {text!r}")
        position = json.loads(text)["position"]
        at = (position["epoch"], int(position["offset"]))
        self.stored.append(at)
        self.topic_of[at] = topic
        return True


def event(message_id, project=PROJECT):
    item = {"id": f"item-of-{project}", "projectId": project, "title": "Load"}
    return {
        "messageId": message_id,
        "workItemCreated": {"workItem": item, "userId": "backend"},
    }


class Load:
    """Followers and backends that run while the block does."""

    def __init__(self, followers, backends):
        self.followers = followers
        self.backends = backends

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(follower.run()) for follower in self.followers]
        await self.reach(
            lambda: all(follower.confirmations for follower in self.followers),
            "every client's Subscribe is confirmed",
        )
        self.calls = [asyncio.create_task(asyncio.to_thread(it.run)) for it in self.backends]
        await self.progress()
        return self

    async def __aexit__(self, kind, *_):
        for backend in self.backends:
            backend.stop = True
        if kind is None:
            await asyncio.wait_for(asyncio.gather(*self.calls), 60)
            await self.reach(self.delivered, "every client has the last event")
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, *self.calls, return_exceptions=True)

    async def progress(self):
        """Waits until each backend has stored and each client has received 20 more events."""
        wanted = [count + 20 for count in self.counts()]
        await self.reach(
            lambda: all(have >= want for have, want in zip(self.counts(), wanted, strict=True)),
            "events are stored and delivered",
        )

    def counts(self):
        """Returns how many events each backend has stored, and each client received."""
        stored = [len(backend.stored) for backend in self.backends]
        return stored + [sum(map(len, it.events.values())) for it in self.followers]

    async def reach(self, condition, what, seconds=30.0):
        end = time.monotonic() + seconds
        while not condition():
            for task in [*self.tasks, *getattr(self, "calls", [])]:
                if task.done() and task.exception():
                    raise task.exception()
            if time.monotonic() > end:
                raise Failure(f"after {seconds:g} s still not: {what}")
            await asyncio.sleep(0.02)

    def delivered(self):
        epoch, offset = self.last_stored()
        return all(it.events.get(epoch, [0])[-1] >= offset for it in self.followers)

    def last_stored(self):
        return max((it.stored[-1] for it in self.backends), key=lambda stored: stored[1])

    def refused(self):
        return sum(it.refused for it in [*self.followers, *self.backends])

    def closes(self):
        return [close for follower in self.followers for close in follower.closes]

    def judge(self, resumes, kept=True):
        """Judges what every client received, and returns a summary.

        Each client has resumed `resumes` times. `kept`: the window was in a file, so that
        resumes are complete and no stored event is missing. Otherwise a relay that starts
        has an empty window: the answers to resumes say so, and only the last events of the
        old epoch, and those that were stored in the new one before a client was back, may
        be missing.
        """
        stored = {position for backend in self.backends for position in backend.stored}
        excused = 0
        for follower in self.followers:
            follower.check_order()
            answers = [it.recovered for it in follower.confirmations if it.resumed]
            expect(
                answers == [kept] * resumes,
                f"resumes were answered with recovered: {answers}, and not {[kept] * resumes}",
            )
            first = {}
            for confirmation in follower.confirmations:
                first.setdefault(confirmation.epoch, confirmation.offset)
            missing = stored - follower.received()
            # A relay that was killed may not have written its last events.
            last = {epoch: its[-1] for epoch, its in follower.events.items() if its}
            current = self.last_stored()[0]
            unexcused = [
                (epoch, offset)
                for epoch, offset in missing
                if kept
                or epoch not in first
                or (offset > first[epoch] and (epoch == current or offset <= last.get(epoch, 0)))
            ]
            expect(not unexcused, f"a client missed stored events: {sorted(unexcused)[:5]}")
            excused += len(missing)
        absence = max((max(it.absences_s, default=0.0) for it in self.followers), default=0.0)
        call = max(it.longest_call_s for it in self.backends)
        return (
            f"{len(self.followers)} clients, {len(stored)} events, {self.refused()} connections "
            f"refused, away for {absence:.1f} s, longest call {call:.1f} s, "
            f"{excused} events missed and reported as missed"
        )
