"""One scenario that moves every metric: an operator's bad day with one relay, in which files
change and break, a backend does not answer, clients err, descriptors and the disk run out."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

from backend import Backend
from processes import CheckError, Processes, check, run, wait_until

ROOT = Path(__file__).resolve().parents[2]

# What does not move here, and why.
UNMOVED = {
    # A fault of the relay, which a release does not let anybody cause.
    "sidewire_panics_total",
}

SCHEMA = (ROOT / "examples/chat/chat.proto").read_text(encoding="utf-8")
# The same schema with a field more.
NEWER_SCHEMA = SCHEMA.replace(
    "message Attachment {", "message Attachment {\n  string checksum = 5;"
)
check(NEWER_SCHEMA != SCHEMA, "the schema of the chat has no Attachment")

CONFIG = """\
[client]
listen = "127.0.0.1:0"
handshake_timeout = "1s"
write_timeout = "8s"
drain_timeout = "6s"
PROXY
[client.tls]
cert_file = "tls.crt"
key_file = "tls.key"
[auth]
jwks_timeout = "500ms"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[[auth.keys]]
jwks_url = "BACKEND/keys"
[auth.subscribe]
url = "BACKEND/subscribe"
timeout = "1s"
concurrency = 1
entries = 1
[schema]
files = ["chat.proto"]
envelope = "chat.v1.Envelope"
[ingest]
listen = "127.0.0.1:0"
message_id_age = "1s"
[[ingest.keys]]
name = "backend"
key_file = "ingest.key"
[ops]
listen = "127.0.0.1:0"
[replay]
age = "1s"
keep_file = "window"
[limits]
user_burst = 30
user_period = "10s"
MEMORY
[log]
format = "json"
"""


class Client:
    """A WebSocket client that speaks JSON."""

    def __init__(self, day, user, encoding="json"):
        self.socket = day.tls_socket()
        token = day.token(user)
        lines = [
            "GET /ws HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Sec-WebSocket-Protocol: sidewire.v1.{encoding}",
            f"Authorization: Bearer {token}",
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.input = self.socket.makefile("rb")
        status = self.input.readline()
        check(b" 101 " in status, f"a handshake is answered {status!r}")
        while self.input.readline().strip():
            pass

    def send(self, envelope):
        """Sends a text frame. Its mask is zero, which leaves the text as it is."""
        text = json.dumps(envelope).encode()
        length = bytes([0x80 | len(text)])
        if len(text) > 125:
            length = bytes([0x80 | 126]) + len(text).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + length + bytes(4) + text)

    def receive(self):
        """Returns the next envelope; `None` for a control frame. Fails if the connection has ended."""
        head = self.input.read(2)
        check(len(head) == 2, "the relay has ended the connection")
        first, length = head
        if length == 126:
            length = int.from_bytes(self.input.read(2), "big")
        elif length == 127:
            length = int.from_bytes(self.input.read(8), "big")
        content = self.input.read(length)
        return json.loads(content) if first & 0xF == 1 else None

    def ask(self, kind, envelope):
        """Sends a message, and returns the answer of this kind."""
        self.send(envelope)
        return wait_until(f"a client receives {kind}", lambda: (self.receive() or {}).get(kind))

    def subscribe(self, *topics, since=None):
        subscribe = {"topics": list(topics)}
        if since:
            subscribe["resumeFrom"] = since
        return self.ask("subscriptionConfirmed", {"subscribe": subscribe})

    def close(self):
        self.input.close()
        self.socket.close()


class Day:
    """The relay, and which of its metrics have moved."""

    def __init__(self, program: Path, scratch: Path, processes: Processes):
        self.program, self.scratch, self.processes = program, scratch, processes
        scratch.mkdir()
        for name in ("jwt.secret", "ingest.key"):
            self.write(name, run("openssl", "rand", "-hex", "32").strip())
        self.certify()
        self.write("chat.proto", SCHEMA)
        self.backend = Backend(ttl_s=60)
        self.configure()
        config = scratch / "sidewire.toml"
        self.process = processes.start("incidents", program, "serve", "--config", config)
        ready = wait_until("the relay is ready", self.ready_line)
        self.ports = {
            name: int(ready[name].rsplit(":", 1)[1]) for name in ("client", "ingest", "ops")
        }
        self.families: set[str] = set()
        self.moved: set[str] = set()
        self.look()

    @property
    def log(self) -> Path:
        return self.processes.directory / "incidents.log"

    def write(self, name: str, text: str) -> None:
        (self.scratch / name).write_text(text, encoding="utf-8")
        (self.scratch / name).chmod(0o600)

    def certify(self) -> None:
        options = ["-x509", "-nodes", "-days", "90", "-subj", "/CN=127.0.0.1", "-newkey", "ec"]
        options += ["-addext", "subjectAltName=IP:127.0.0.1"]
        options += ["-pkeyopt", "ec_paramgen_curve:P-256"]
        files = ["-keyout", self.scratch / "tls.key", "-out", self.scratch / "tls.crt"]
        run("openssl", "req", *options, *files)

    def configure(self, proxy: str = "", memory: str = "") -> None:
        text = CONFIG.replace("BACKEND", self.backend.url)
        self.write("sidewire.toml", text.replace("PROXY", proxy).replace("MEMORY", memory))

    def ready_line(self) -> dict | None:
        check(self.process.poll() is None, "the relay has ended")
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if '"the relay is ready"' in line:
                return json.loads(line)
        return None

    def tls_socket(self) -> ssl.SSLSocket:
        trust = ssl.create_default_context(cafile=str(self.scratch / "tls.crt"))
        plain = socket.create_connection(("127.0.0.1", self.ports["client"]), timeout=10)
        return trust.wrap_socket(plain, server_hostname="127.0.0.1")

    def token(self, user: str) -> str:
        options = ["--tenant", "acme", "--user", user]
        return run(
            self.program, "token", *options, "--secret-file", self.scratch / "jwt.secret"
        ).strip()

    def post(
        self, event: dict, key: str | None = None, tenant: str = "acme", call: str = "events"
    ) -> tuple[int, dict]:
        key = key or (self.scratch / "ingest.key").read_text(encoding="utf-8")
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["ingest"], timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", f"/v1/tenants/{tenant}/{call}", json.dumps(event), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def look(self) -> dict[str, float]:
        """Scrapes the metrics, and notes which have a value other than 0."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["ops"], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        series = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if not line.startswith("#") and name:
                series[name] = float(value)
        for name, value in series.items():
            family = re.sub("_(bucket|sum|count)$", "", name.partition("{")[0])
            self.families.add(family)
            if value != 0:
                self.moved.add(family)
        return series

    def wait_for(self, series: str, least: float = 1) -> None:
        wait_until(f"{series} is at least {least:g}", lambda: self.look().get(series, 0) >= least)

    def reload(self, result: str) -> None:
        series = f'sidewire_config_reloads_total{{result="{result}"}}'
        before = self.look()[series]
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(series, before + 1)


def posted(room: str, text: str, message_id: str = "") -> dict:
    """Returns an event: a message with this text in a room."""
    message = {"id": "1", "roomId": room, "text": text}
    return {"messageId": message_id, "messagePosted": {"message": message}}


def events_and_clients(day: Day) -> None:
    """What goes well: events, duplicates, resumes, JSON, events of clients."""
    ann, bob = Client(day, "ann"), Client(day, "bob")
    confirmed = ann.subscribe("room:1")
    bob.subscribe("room:1", "room:2")
    event = posted("1", "x", "m1")
    for _ in range(2):
        check(day.post(event)[0] == 200, "an event is not accepted")
    bob.send({"typing": {"roomId": "1"}})
    day.wait_for("sidewire_client_events_total")
    late = Client(day, "late")
    late.subscribe("room:1", since=confirmed["position"])
    day.look()
    for client in (ann, bob, late):
        client.close()
    day.wait_for('sidewire_connections_closed_total{transport="websocket",reason="lost"}', 3)
    again = Client(day, "ann")
    again.subscribe("room:1", since=confirmed["position"])
    day.wait_for("sidewire_reconnects_total")
    again.close()


def busy_shards(day: Day) -> None:
    """Backends post batches, which shards hand over to each other as fast as they can."""
    clients = [Client(day, f"busy-{number}") for number in range(4)]
    for client in clients:
        client.subscribe("room:busy")
    batch = {"messages": [posted("busy", "x") for _ in range(1000)]}

    def post():
        while not stop.is_set():
            status, answer = day.post(batch, call="events:batch")
            if status not in (200, 429, 503):
                refused.append(f"a batch is answered {status}: {answer}")

    def read(client):
        # The relay may end a connection that does not keep up.
        with contextlib.suppress(CheckError, OSError):
            while not stop.is_set():
                client.receive()

    stop, refused = threading.Event(), []
    posters = [threading.Thread(target=post) for _ in range(2)]
    readers = [threading.Thread(target=read, args=[client]) for client in clients]
    for thread in posters + readers:
        thread.start()
    try:
        day.wait_for("sidewire_inbox_items")
    finally:
        stop.set()
        for thread in posters:
            thread.join()
        # For readers that have read everything.
        wait_until("an event is accepted", lambda: day.post(posted("busy", "x"))[0] == 200)
        for thread in readers:
            thread.join()
        for client in clients:
            client.close()
    check(not refused, "; ".join(refused[:3]))


def errors(day: Day) -> None:
    """What clients and backends do wrong."""
    other = posted("1", "y", "m2")
    check(day.post(other)[0] == 200, "an event is not accepted")
    other["messagePosted"]["message"]["text"] = "z"
    check(day.post(other)[0] == 409, "another event with the same id is accepted")
    check(day.post(other, "wrong")[0] == 401, "a wrong key is accepted")
    client = Client(day, "eve")
    client.ask("error", {"nonsense": {}})
    for _ in range(40):
        client.send({"unsubscribe": {"topics": ["room:1"]}})
    day.wait_for('sidewire_limits_exceeded_total{limit="user_messages"}')
    client.close()
    with socket.create_connection(("127.0.0.1", day.ports["client"])) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        day.wait_for("sidewire_tls_handshakes_failed_total")
    with day.tls_socket():
        day.wait_for("sidewire_handshakes_timed_out_total")
    tls = day.tls_socket()
    tls.sendall(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    day.wait_for('sidewire_handshakes_refused_total{status="426"}')
    tls.close()


def slow_client(day: Day) -> None:
    """A client that reads nothing, until the relay closes its connection."""
    slow = Client(day, "slow")
    slow.subscribe("room:slow")
    text = "x" * 60_000

    def is_full():
        for _ in range(20):
            day.post(posted("slow", text))
        return day.look()['sidewire_connections_closed_total{transport="websocket",reason="too_slow"}']

    wait_until("a client that reads nothing is closed", is_full, 40)
    slow.close()


def silent_backend(day: Day) -> None:
    """The backend is late, so that questions wait, and then silent, until the relay gives up."""
    clients = [Client(day, f"asking-{it}") for it in range(6)]
    day.backend.delay_s = 0.4
    for number, client in enumerate(clients):
        client.send({"subscribe": {"topics": [f"room:asked-{number}"]}})
    day.wait_for("sidewire_backend_questions_under_way")
    day.wait_for("sidewire_backend_questions_waiting")
    day.backend.delay_s = 30.0

    def ask_again():
        for number, client in enumerate(clients):
            client.send({"subscribe": {"topics": [f"room:again-{number}-{time.monotonic_ns()}"]}})
        time.sleep(0.5)
        return day.look()["sidewire_backend_breaker_open"]

    wait_until("the relay asks the backend no more", ask_again, 40)
    day.backend.delay_s = 0.0
    for client in clients:
        client.close()


def files(day: Day) -> None:
    """Files that change, and files with errors."""
    day.write("chat.proto", NEWER_SCHEMA)
    day.configure(memory='memory_max = "900MiB"')
    day.reload("applied")
    day.write("chat.proto", "syntax = 5;")
    day.reload("refused")
    day.write("chat.proto", NEWER_SCHEMA)
    day.configure(
        proxy='proxy_protocol = true\ntrusted_proxies = ["127.0.0.0/8"]',
        memory='memory_max = "900MiB"',
    )
    day.reload("applied")
    with socket.create_connection(("127.0.0.1", day.ports["client"])) as plain:
        plain.sendall(b"nothing of the kind\r\n")
        day.wait_for("sidewire_proxy_headers_malformed_total")
    day.configure()
    day.reload("applied")


def scarce_system(day: Day) -> None:
    """No descriptors, and no room for the log."""
    pid = day.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened, before[1]))
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            address = ("127.0.0.1", day.ports["client"])
            stack.enter_context(socket.create_connection(address))
        time.sleep(0.5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    day.wait_for("sidewire_accept_errors_total")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    size = day.log.stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    day.process.send_signal(signal.SIGHUP)
    day.wait_for("sidewire_log_lines_lost_total")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def end(day: Day) -> None:
    """A tenant that is forgotten but for its position, and a drain that waits for a client."""
    check(day.post(posted("1", ""), tenant="idle")[0] == 200, "an event is not accepted")
    wait_until("a tenant is dormant", lambda: day.look()["sidewire_tenants_dormant"], 60)
    client = Client(day, "ann")
    client.subscribe("room:1")
    for _ in range(200):
        day.post(posted("1", "x" * 60_000))
    day.process.send_signal(signal.SIGTERM)
    day.wait_for("sidewire_draining")
    client.close()
    day.process.wait(20)


def move_every_metric(program: Path, scratch: Path, processes: Processes) -> str:
    """Plays the day. Fails if a metric has not moved."""
    day = Day(program, scratch, processes)
    for part in (
        events_and_clients,
        busy_shards,
        errors,
        slow_client,
        silent_backend,
        files,
        scarce_system,
        end,
    ):
        part(day)
    unmoved = day.families - day.moved
    check(unmoved == UNMOVED, f"these have not moved: {', '.join(sorted(unmoved - UNMOVED))}")
    return f"{len(day.moved)} of {len(day.families)} metrics have moved"
