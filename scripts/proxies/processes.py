"""Starts relays and proxies with the files of docs/proxies, and ends them."""

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "docs/proxies"
SIDEWIRE = os.environ.get("SIDEWIRE", str(ROOT / "target/debug/sidewire"))
# Maximum time for everything that is waited for, in seconds.
PATIENCE = 15
# The name in the certificate, and in the files.
HOST = "relay.example.org"

# What the checks add to the relay's config: a limit that a single client reaches, the
# generic schema, and a log that names the clients' addresses.
RELAY_ADDITIONS = """
[schema]
bundled = "generic"

[limits]
address_handshakes_per_minute = 8

[log]
level = "info,sidewire::connection=debug"
format = "json"
"""

# As in Debian's nginx.conf, the server is included by a file with logs of its own.
NGINX_MAIN = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/default-error.log;
worker_processes 2;
events {{ worker_connections 768; }}
http {{
    access_log {directory}/default.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    include {directory}/nginx.conf;
}}
"""


class CheckError(Exception):
    """Something that the files promise does not hold."""


def wait_for(what, condition):
    """Repeats a condition until it returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise CheckError(f"gave up waiting for {what} after {PATIENCE} s")
        time.sleep(0.02)
    return found


def replaced(name, replacements):
    """Returns the text of a file of docs/proxies with each text replaced by another. A text
    that the file does not have is an error."""
    text = (FILES / name).read_text()
    for old, new in replacements.items():
        if old not in text:
            raise CheckError(f"docs/proxies/{name} does not contain {old!r}")
        text = text.replace(old, new)
    return text


def make_certificate(directory):
    """Writes relay.crt, relay.key, and relay.pem with both."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "90", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
        + ["-keyout", directory / "relay.key", "-out", directory / "relay.crt"],
        check=True, capture_output=True,
    )
    both = (directory / "relay.crt").read_text() + (directory / "relay.key").read_text()
    (directory / "relay.pem").write_text(both)


def open_connection(address, context=None):
    """Returns an HTTP connection, over TLS if there is a context."""
    host, port = address
    if context is None:
        return http.client.HTTPConnection(host, port, timeout=PATIENCE)
    connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE)
    # The address is not the name in the certificate.
    raw = socket.create_connection(address, timeout=PATIENCE)
    connection.sock = context.wrap_socket(raw, server_hostname=HOST)
    return connection


def request(address, method, path, body=None, headers=None, context=None):
    """Returns status, headers and body of the answer to an HTTP request."""
    connection = open_connection(address, context)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class Ports:
    """Free ports of the loopback addresses."""

    def __init__(self):
        self._taken = set()

    def free(self):
        while True:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            if port not in self._taken:
                self._taken.add(port)
                return port


class Process:
    """A process that writes to a file, and is ended by its id."""

    def __init__(self, command, output, **options):
        self._output = output
        with open(output, "ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, **options,
            )

    def output(self):
        return self._output.read_text(errors="replace")

    def has_ended(self):
        return self._process.poll() is not None

    def children(self):
        """Returns the ids of its child processes."""
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def signal(self, number):
        self._process.send_signal(number)

    def terminate(self):
        """Sends SIGTERM."""
        if not self.has_ended():
            self._process.terminate()

    def end(self):
        self.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


class Relay:
    """A relay with a file of docs/proxies."""

    def __init__(self, file, address, ports, keys, directory, ping_interval="30s"):
        self.address = address
        self.ports = ports
        self._directory = directory
        directory.mkdir()
        for key in keys.iterdir():
            shutil.copy(key, directory)
        replacements = {
            "10.0.0.5": address, "10.0.0.2": "127.0.0.1",
            ":3000": f":{ports['client']}", ":3001": f":{ports['ingest']}",
            ":3002": f":{ports['ops']}",
        }
        # Clients are told to wait for at most a second when the relay shuts down.
        interval = f'ping_interval = "{ping_interval}"\ndrain_spread = "1s"'
        replacements['ping_interval = "30s"'] = interval
        self._config = directory / "sidewire.toml"
        self._config.write_text(replaced(file, replacements) + RELAY_ADDITIONS)
        self._ingest_key = (keys / "ingest.key").read_text()
        checked = subprocess.run(
            [SIDEWIRE, "check", "--config", self._config], capture_output=True, text=True
        )
        if checked.returncode or ": warning: " in checked.stdout:
            raise CheckError(f"`sidewire check` reports:\n{checked.stdout}{checked.stderr}")
        self.start()

    def start(self):
        self.process = Process(
            [SIDEWIRE, "serve", "--config", self._config], self._directory / "relay.log"
        )

    def end(self):
        self.process.end()

    def readiness(self):
        """Returns the status of /readyz, or None if nobody answers."""
        try:
            return request((self.address, self.ports["ops"]), "GET", "/readyz")[0]
        except OSError:
            return None

    def wait_until_ready(self):
        def is_ready():
            if self.process.has_ended():
                raise CheckError(f"the relay has ended:\n{self.process.output()}")
            return self.readiness() == 200

        wait_for("a relay to be ready", is_ready)

    def event(self, tenant, topic, data):
        """Returns the path, the headers and the body of a call that posts an event."""
        body = json.dumps({"event": {"type": "check", "data": data}}).encode()
        headers = {
            "Authorization": f"Bearer {self._ingest_key}", "Content-Type": "application/json"
        }
        return f"/v1/tenants/{tenant}/events?topic={topic}", headers, body

    def post(self, tenant, topic, data):
        """Posts an event, and returns the answer."""
        path, headers, body = self.event(tenant, topic, data)
        address = (self.address, self.ports["ingest"])
        status, _, answer = request(address, "POST", path, body, headers)
        if status != 200:
            raise CheckError(f"the relay answers an event with {status}: {answer.decode()}")
        return json.loads(answer)

    def connections(self, tenant):
        """Returns the number of connections of a tenant."""
        headers = {"Authorization": f"Bearer {self._ingest_key}"}
        address = (self.address, self.ports["ingest"])
        status, _, answer = request(address, "GET", f"/v1/tenants/{tenant}", headers=headers)
        return json.loads(answer)["connections"] if status == 200 else 0

    def has_logged(self, **fields):
        """Returns true if the log has a line with these fields."""
        for line in self.process.output().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            entry = {**entry, **entry.get("fields", {})}
            if all(entry.get(name) == value for name, value in fields.items()):
                return True
        return False


# The user, the words that start it, and the file, for each program.
PROGRAMS = {
    "nginx": ("www-data", "nginx -e stderr -c {directory}/main.conf"),
    "caddy": ("caddy", "caddy run --adapter caddyfile --config {directory}/Caddyfile"),
    "haproxy": ("haproxy", "haproxy -W -f {directory}/haproxy.cfg"),
    "haproxy-passthrough": ("haproxy", "haproxy -W -f {directory}/haproxy-passthrough.cfg"),
}


class Proxy:
    """A proxy with a file of docs/proxies, before the relays with these two addresses."""

    def __init__(self, kind, relays, ports, keys, directory, port, timeout=None):
        self.kind = kind
        self.port = port
        self._directory = directory
        self._context = ssl.create_default_context(cafile=keys / "relay.crt")
        user, command = PROGRAMS[kind]
        account = pwd.getpwnam(user)
        self._options = {
            "cwd": directory, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": [],
            "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)},
        }
        directory.mkdir()
        for name in ("relay.crt", "relay.key", "relay.pem"):
            shutil.copy(keys / name, directory)
        self._write_file(relays, ports, timeout)
        for path in (directory, *directory.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
        self.process = Process(
            command.format(directory=directory).split(), directory / "output.log", **self._options
        )

    def _write_file(self, relays, ports, timeout):
        relay_addresses = {
            "10.0.0.5": relays[0], "10.0.0.6": relays[1],
            "3000": str(ports["client"]), "3002": str(ports["ops"]),
        }
        shorter = {"75s": f"{timeout}s"} if timeout else {}
        if self.kind == "nginx":
            file = "nginx.conf"
            own = {
                "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
                "/etc/ssl": f"{self._directory}", "/var/log/nginx": f"{self._directory}",
            }
            main = NGINX_MAIN.format(directory=self._directory)
            (self._directory / "main.conf").write_text(main)
        elif self.kind == "caddy":
            file = "Caddyfile"
            own = {
                f"{HOST} {{": f"https://{HOST}:{self.port} {{\n\tbind 127.0.0.1\n",
                "/etc/ssl": f"{self._directory}", "/var/log/caddy": f"{self._directory}",
                "/var/lib/caddy": f"{self._directory}",
            }
        else:
            file = f"{self.kind}.cfg"
            own = {"bind :443": f"bind 127.0.0.1:{self.port}"}
            if self.kind == "haproxy":
                own["/etc/ssl"] = f"{self._directory}"
        text = replaced(file, {**relay_addresses, **shorter, **own})
        (self._directory / file).write_text(text)

    def wait_until_ready(self):
        """Waits until the proxy passes a request on to a relay."""

        def passes():
            if self.process.has_ended():
                raise CheckError(f"{self.kind} has ended:\n{self.process.output()}")
            try:
                # The relay's answer to a request that is no WebSocket handshake.
                return self.request("/ws")[0] == 426
            except OSError:
                return False

        wait_for(f"{self.kind} to pass a request to a relay", passes)

    def reload(self):
        """Has the proxy read its file again, as `systemctl reload` does, and returns when it
        has."""
        if self.kind == "caddy":
            words = ["caddy", "reload", "--force", "--config", self._directory / "Caddyfile"]
            done = subprocess.run(words, capture_output=True, text=True, **self._options)
            if done.returncode:
                raise CheckError(f"caddy reload fails:\n{done.stderr}")
            return
        before = self.process.children()
        self.process.signal(signal.SIGHUP if self.kind == "nginx" else signal.SIGUSR2)
        wait_for("a new worker", lambda: self.process.children() - before)

    def open_connection(self):
        """Returns an HTTP connection to the proxy."""
        return open_connection(("127.0.0.1", self.port), self._context)

    def request(self, path, headers=None):
        """Returns status, headers and body of the answer to a GET."""
        address = ("127.0.0.1", self.port)
        return request(address, "GET", path, None, {"Host": HOST, **(headers or {})}, self._context)

    def logs(self):
        """Returns everything that the proxy has written, by the name of the file."""
        found = {it.name: it.read_text(errors="replace") for it in self._directory.glob("*.log")}
        return found
