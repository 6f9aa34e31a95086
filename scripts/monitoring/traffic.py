"""A relay with everything that has metrics (TLS, an issuer's keys, a backend that authorizes),
and clients and backends that use it: well, wrongly and slowly."""

import base64
import http.client
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from backend import Backend
from processes import Processes, check, end, run, wait_until
from prometheus import Server

SECONDS = 35
BENCH_CLIENTS = 60
READERS = [f"reader-{number}" for number in range(4)]
TOPIC, SLOW_TOPIC = "project:project-1", "project:slow"

# What the load must have moved, whatever the dashboard shows of it.
MOVED = [
    f"max_over_time(sidewire_connections[1m]) > {BENCH_CLIENTS}",
    "max_over_time(sidewire_connections_blocked[1m]) > 0",
    'max_over_time(sidewire_tenant_connections{tenant="acme"}[1m]) > 0',
    "max_over_time(sidewire_events_queued[1m]) > 0",
    "sidewire_reconnects_total > 0",
    'sidewire_reconnects_resumed_total{result="recovered"} > 0',
    'sidewire_events_received_bytes_total{source="backend"} > 0',
    'sidewire_events_received_bytes_total{source="client"} > 0',
    "sidewire_client_bytes_written_total > sidewire_events_written_total",
    'sidewire_delivery_latency_seconds_bucket{le="+Inf"} > 0',
    "sidewire_ingest_duplicates_total > 0",
    'sidewire_ingest_requests_total{status="400"} > 0',
    'sidewire_authentication_failures_total{listener="ingest", reason="unknown_key"} > 0',
    'sidewire_authentication_failures_total{listener="client", reason="malformed"} > 0',
    'sidewire_handshakes_refused_total{status="401"} > 0',
    'sidewire_connections_closed_total{transport="websocket",reason="too_slow"} > 0',
    'sidewire_events_dropped_total{reason="too_slow"} > 0',
    "sidewire_backend_question_seconds_count > 0",
    "sidewire_tls_certificate_expiry_timestamp_seconds > time()",
    "time() - sidewire_jwks_fetched_timestamp_seconds < 120",
    "time() - process_start_time_seconds < 120",
    "process_open_fds > 50",
]

_began_at = 0.0


def began_at() -> float:
    """Returns the time at which the load began, in Unix seconds."""
    return _began_at


class Relay:
    """A running relay, with the files that its clients and backends need."""

    def __init__(self, program: Path, scratch: Path, processes: Processes):
        self.program, self.scratch, self.processes = program, scratch, processes
        self.certificate = scratch / "tls.crt"
        self._make_files()
        config = scratch / "sidewire.toml"
        config.write_text(self._config(), encoding="utf-8")
        self.process = processes.start("relay", program, "serve", "--config", config)
        ready = wait_until("the relay is ready", self._ready_line)
        self.client_url = f"wss://{ready['client']}/ws"
        self.client_port = int(ready["client"].rsplit(":", 1)[1])
        self.ingest_url = f"http://{ready['ingest']}"
        self.ops_port = int(ready["ops"].rsplit(":", 1)[1])

    def _make_files(self) -> None:
        for name in ("jwt.secret", "ingest.key"):
            (self.scratch / name).write_text(run("openssl", "rand", "-hex", "32"), encoding="utf-8")
        options = ["-x509", "-nodes", "-days", "90", "-subj", "/CN=127.0.0.1"]
        options += ["-addext", "subjectAltName=IP:127.0.0.1", "-newkey", "ec"]
        options += ["-addext", "basicConstraints=critical,CA:FALSE"]
        options += ["-pkeyopt", "ec_paramgen_curve:P-256"]
        files = ["-keyout", self.scratch / "tls.key", "-out", self.certificate]
        run("openssl", "req", *options, *files)
        key = self.scratch / "issuer.pem"
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
        public = self.scratch / "issuer.der"
        run("openssl", "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public)
        x = base64.urlsafe_b64encode(public.read_bytes()[-32:]).decode().rstrip("=")
        self.backend = Backend(ttl_s=5, public_key=x)

    def _config(self) -> str:
        return f"""\
[client]
listen = "127.0.0.1:0"
write_timeout = "8s"
[client.tls]
cert_file = "tls.crt"
key_file = "tls.key"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[[auth.keys]]
jwks_url = "{self.backend.url}/keys"
[auth.subscribe]
url = "{self.backend.url}/subscribe"
[schema]
bundled = "tracker"
[ingest]
listen = "127.0.0.1:0"
[[ingest.keys]]
name = "backend"
key_file = "ingest.key"
[ops]
listen = "127.0.0.1:0"
[limits]
address_handshakes_per_minute = 100000
outbox_bytes = "8MiB"
[log]
format = "json"
"""

    def _ready_line(self) -> dict | None:
        check(self.process.poll() is None, "the relay has ended")
        for line in (self.scratch / "relay.log").read_text(encoding="utf-8").splitlines():
            if '"the relay is ready"' in line:
                return json.loads(line)
        return None

    def scrape(self) -> str:
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def call(self, method: str, path: str, body: bytes = b"", key: str | None = None) -> int:
        """Calls the relay as a backend does. Returns the status of the answer."""
        key = key or (self.scratch / "ingest.key").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.ingest_url}/v1/tenants/acme/{path}", body or None, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def post(self, number: int, project: str, filler: int = 0) -> int:
        """Posts an event about a project. The number is its message id."""
        item = {"id": f"item-{number}", "projectId": project, "title": "x" * filler}
        event = {"messageId": f"{project}-{number}", "workItemCreated": {"workItem": item}}
        return self.call("POST", "events", json.dumps(event).encode())

    def shake_hands_with(self, token: str) -> int:
        """Begins a handshake as a client does. Returns the status of the answer."""
        trust = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.client_port, timeout=10, context=trust
        )
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Authorization": f"Bearer {token}",
        }
        connection.request("GET", "/ws", headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def token_file(self, user: str) -> Path:
        path = self.scratch / f"{user}.jwt"
        options = ["--tenant", "acme", "--user", user, "--secret-file", self.scratch / "jwt.secret"]
        path.write_text(run(self.program, "token", *options), encoding="utf-8")
        return path

    def follow(self, user: str, topic: str):
        """Starts a client that follows a topic, and that connects again and resumes."""
        options = ["--url", self.client_url, "--ca-file", self.certificate]
        options += ["--token-file", self.token_file(user)]
        return self.processes.start(user, self.program, "tail", *options, topic)

    def send_as_client(self, user: str) -> None:
        """Tells the other clients that a user is typing."""
        options = ["--as-client", "--url", self.client_url, "--ca-file", self.certificate]
        options += ["--token-file", self.scratch / f"{user}.jwt"]
        typing = {"userTyping": {"projectId": "project-1", "isTyping": True}}
        run(self.program, "publish", *options, json.dumps(typing))

    def start_bench(self, seconds: int):
        options = ["--connections", BENCH_CLIENTS, "--tenants", 3, "--topics", 6, "--rate", 40]
        options += ["--duration", f"{seconds}s", "--warmup", "1s", "--concurrency", 4]
        options += ["--url", self.client_url, "--ca-file", self.certificate]
        options += ["--ingest-url", self.ingest_url, "--config", self.scratch / "sidewire.toml"]
        options += ["--secret-file", self.scratch / "jwt.secret"]
        options += ["--key-file", self.scratch / "ingest.key"]
        return self.processes.start("bench", self.program, "bench", "latency", *options)

    def stop(self) -> None:
        end(self.process)
        check(
            self.process.returncode == 0, f"the relay ended with status {self.process.returncode}"
        )


def run_load(relay: Relay) -> int:
    """Runs the load. Returns the number of events that were posted beside those of the
    load generator."""
    bench = relay.start_bench(SECONDS)
    for reader in READERS:
        relay.follow(reader, TOPIC)
    slow = relay.follow("slow", SLOW_TOPIC)
    wait_until("the clients are connected", lambda: connections(relay) > len(READERS))
    posted = 0
    end_at = time.monotonic() + SECONDS
    for second in range(SECONDS):
        check(relay.post(second, "project-1") == 200, "an event is not accepted")
        posted += 1
        check(relay.post(second, "project-1") == 200, "a duplicate is not accepted")
        check(relay.call("POST", "events", b"{", None) == 400, "half an event is accepted")
        check(relay.call("POST", "events", b"{}", "wrong") == 401, "a wrong key is accepted")
        check(relay.shake_hands_with("nonsense") == 401, "a wrong token is accepted")
        if second % 3 == 0:
            reader = READERS[second % len(READERS)]
            relay.call("DELETE", f"users/{reader}/connections?reconnect=true")
        if second % 5 == 0:
            relay.send_as_client(READERS[0])
        if second == 8:
            # It reads no more. The kernel's buffers take several MiB, then the outbox fills up for
            # longer than Prometheus needs to see it.
            slow.send_signal(signal.SIGSTOP)
        if 8 <= second < 16:
            for _ in range(60):
                posted += 1
                check(relay.post(posted, "slow", 40_000) == 200, "a large event is not accepted")
        if second == 18:
            slow.send_signal(signal.SIGCONT)
        pause_until(end_at - SECONDS + second + 1)
    bench.wait(60)
    check(bench.returncode == 0, f"the load generator failed:\n{relay.processes.tail('bench', 20)}")
    return posted


def pause_until(moment: float) -> None:
    """Keeps the pace of the load: one round a second."""
    time.sleep(max(0.0, moment - time.monotonic()))


def connections(relay: Relay) -> float:
    lines = relay.scrape().splitlines()
    return next(
        float(line.split()[1]) for line in lines if line.startswith("sidewire_connections ")
    )


def run_and_check(relay: Relay, server: Server) -> str:
    """Runs the load, and checks that it has moved what it should move."""
    global _began_at
    _began_at = time.time()
    posted = run_load(relay)
    for expression in MOVED:
        server.wait_for(expression)
    log = (relay.scratch / "relay.log").read_text(encoding="utf-8")
    check("panicked" not in log, "the relay's log has a panic")
    return f"{posted} events beside the load generator's; {len(MOVED)} expectations hold"
