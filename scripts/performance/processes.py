"""The processes of a measurement, each on its own core: the floor, the relay, and the
generator. Each process is ended when its `with` block is left."""

import json
import os
import resource
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

START_SECONDS_MAX = 20
END_SECONDS_MAX = 40

SECRET = "0123456789abcdef0123456789abcdef"

CONFIG = """\
client.listen = "127.0.0.1:{client}"
auth.keys = [{{ secret_file = "jwt.secret", algorithm = "HS256" }}]
limits.shards = 1
limits.address_handshakes_per_minute = 4294967295
ingest.listen = "127.0.0.1:{ingest}"
ops.listen = "127.0.0.1:{ops}"
log.format = "json"
"""

TLS = """\
client.tls = {{ cert_file = "{cert}", key_file = "{key}" }}
"""

# The relay's counters with the floor's names for them.
RELAY_COUNTERS = {
    "sidewire_client_frames_written_total": "frames",
    "sidewire_client_writes_total": "client_writes",
    "sidewire_client_reads_total": "client_reads",
}


class Failed(Exception):
    """A process did not do its work."""


def cores() -> tuple[int, int]:
    """Returns the cores of the server and of the generator, equal if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


def on_core(core: int):
    """Returns a function that pins a new process to the core and raises its limit on
    descriptors to the maximum."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return prepare


@contextmanager
def started(command: list, core: int, **options):
    # In its own session: Ctrl-C at the terminal reaches only the script, which then ends
    # the processes in order.
    process = subprocess.Popen(
        [str(word) for word in command],
        preexec_fn=on_core(core),
        start_new_session=True,
        text=True,
        **options,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Terminates the process, and kills it if it does not exit in time."""
    if process.poll() is None:
        process.terminate()
    try:
        process.communicate(timeout=END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


class Floor:
    """The floor, as a target of the generator."""

    def __init__(self, process: subprocess.Popen, protocol: str):
        self.pid = process.pid
        self.addresses = json.loads(process.stdout.readline())
        self.arguments = [
            *("--floor", protocol),
            *("--url", f"ws://{self.addresses['client']}/ws"),
            *("--ingest-url", f"http://{self.addresses['ingest']}"),
        ]

    def counts(self) -> dict:
        host, port = self.addresses["stats"].split(":")
        with socket.create_connection((host, int(port)), timeout=5) as stream:
            return json.load(stream.makefile())


@contextmanager
def floor(binary: Path, protocol: str):
    command = [binary, "--ingest", protocol]
    with started(command, cores()[0], stdout=subprocess.PIPE) as process:
        yield Floor(process, protocol)


class Relay:
    """The relay, as a target of the generator."""

    def __init__(
        self, process: subprocess.Popen, ports: dict, secret_file: Path, ca_file: Path | None
    ):
        self.pid = process.pid
        self.ops_url = f"http://127.0.0.1:{ports['ops']}"
        self.arguments = [
            *("--url", f"{'wss' if ca_file else 'ws'}://127.0.0.1:{ports['client']}/ws"),
            *("--ingest-url", f"http://127.0.0.1:{ports['ingest']}"),
            *("--secret-file", str(secret_file), "--algorithm", "HS256"),
            *(("--ca-file", str(ca_file)) if ca_file else ()),
        ]

    def counts(self) -> dict:
        """Returns the counters that the relay exposes."""
        with urllib.request.urlopen(f"{self.ops_url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.split() for line in lines if not line.startswith("#"))
        found = {words[0]: words[-1] for words in samples if len(words) == 2}
        return {
            name: int(float(found[metric]))
            for metric, name in RELAY_COUNTERS.items()
            if metric in found
        }

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.ops_url}/readyz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def relay(binary: Path, tls: bool = False):
    """Runs the relay with the default config, except for one shard (the floor has one thread)
    and no limit on handshakes per address. With `tls` the client listener uses a temporary
    certificate."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "jwt.secret").write_text(SECRET)
        ports = free_ports("client", "ingest", "ops")
        config = directory / "sidewire.toml"
        ca_file = certificate(directory) if tls else None
        files = {"cert": "tls.crt", "key": "tls.key"}
        config.write_text((CONFIG + (TLS if tls else "")).format(**ports, **files))
        with open(directory / "log", "w") as log:
            command = [binary, "serve", "--config", config]
            with started(command, cores()[0], stderr=log) as process:
                target = Relay(process, ports, directory / "jwt.secret", ca_file)
                wait_until_ready(target, process, directory / "log")
                yield target


def certificate(directory: Path) -> Path:
    """Makes a certificate for 127.0.0.1, of the most common kind, and returns its path."""
    cert = directory / "tls.crt"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "90", "-subj", "/CN=bench"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-keyout", str(directory / "tls.key"), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert


def wait_until_ready(target: Relay, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not target.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"the relay has not started:\n{log.read_text()}")
        time.sleep(0.02)


def free_ports(*names: str) -> dict[str, int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: it.getsockname()[1] for name, it in zip(names, listeners)}
    for listener in listeners:
        listener.close()
    return ports


def generate(binary: Path, target, scenario: str, arguments: list, seconds_max: float) -> dict:
    """Runs the generator against a target and returns its report."""
    command = [binary, "bench", scenario, "--json", "--server-pid", target.pid]
    command += [*target.arguments, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cores()[1], **pipes) as process:
        try:
            result, errors = process.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            raise Failed(f"{scenario} was not over within {seconds_max:.0f} s") from None
    if process.returncode != 0 and not result:
        raise Failed(f"the generator ended with {process.returncode}: {last_lines(errors)}")
    found = json.loads(result)
    # The measurement may be complete although the generator reports a problem.
    found["complaint"] = last_lines(errors) if process.returncode != 0 else None
    return found


def last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])
