#!/usr/bin/env python3
"""What an operator does with the Debian package on a booted machine: installation, restarts
under load, reloads, sockets, the watchdog, credentials, upgrade and removal.

  scenarios.py LEADER DEB UPGRADE ARCHIVE     in the network of the machine

LEADER is the process id of the machine's first process, DEB the package, UPGRADE one of a
higher version, and ARCHIVE what is installed without a package. scripts/booted starts the
machine and this.
"""

import asyncio
import base64
import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from fleet import fleet
from load import SUBPROTOCOL, TENANT, TOPIC, Backend, Follower, Load, event
from machine import Failure, Machine, expect, wait_until
from manual import Manual, follow_manual
from packaged import CONFIG, INGEST_KEY, SECRET, SERVICE, SOCKETS, with_unix_sockets
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

CLIENTS = 20
BACKENDS = 2
# What the scenarios change in the packaged config: all clients have the machine's address.
CHANGES = {
    "[ops]\n": "[limits]\naddress_handshakes_per_minute = 1000000\n\n[ops]\n",
}

# Of the unit, in seconds.
WATCHDOG = 30
ABORT = 5


class Operator:
    """The machine, with what scenarios do often."""

    def __init__(self, machine, scratch):
        self.machine = machine
        self.scratch = scratch

    # The service.

    def main_pid(self):
        return int(self.machine.shown(SERVICE, "MainPID"))

    def cpu_seconds(self):
        """Returns the CPU time of the relay since it was started."""
        stat = self.machine.read(f"/proc/{self.main_pid()}/stat")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def is_active(self):
        return self.machine.shown(SERVICE, "ActiveState") == "active"

    async def until_replaced(self, pid, watchdog):
        """Waits until systemd has replaced this process, as the watchdog of so many seconds
        demands."""

        def is_replaced():
            return self.main_pid() not in (0, pid) and self.is_active()

        limit = watchdog + ABORT + 5
        await asyncio.to_thread(wait_until, is_replaced, "the watchdog restarts it", limit)

    def service_process(self):
        """Returns where the kernel describes the service's process."""
        return self.machine.path(f"/proc/{self.main_pid()}")

    def journal(self, *filters):
        """Returns the journal's entries of the service as objects."""
        output = self.machine.run(
            "journalctl", "--no-pager", "--output=json", f"--unit={SERVICE}", *filters
        )
        return [json.loads(line) for line in output.splitlines()]

    def logged(self, text):
        return any(text in str(entry.get("MESSAGE")) for entry in self.journal())

    # The ops listener.

    def ops(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", 3002, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, series):
        status, text = self.ops("/metrics")
        expect(status == 200, f"/metrics is answered {status}")
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        expect(found, f"there is no metric {series}")
        return float(found[1])

    def is_ready(self):
        try:
            return self.ops("/readyz")[0] == 200
        except OSError:
            return False

    # Config and secrets.

    def configure(self, text):
        self.machine.write(CONFIG, text)

    def reload(self, result="applied"):
        """Reloads the service, and waits until the relay reports the result."""
        with self.reloading(result):
            self.machine.systemctl("reload", SERVICE)

    @contextlib.contextmanager
    def reloading(self, result="applied"):
        """Waits at the end of the block until a reload in it has this result."""
        series = f'sidewire_config_reloads_total{{result="{result}"}}'
        before = self.metric(series)
        yield
        wait_until(lambda: self.metric(series) > before, f"a reload is {result}")

    def group(self):
        return int(self.machine.run("getent", "group", "sidewire").split(":")[2])

    def write_secret(self, path, secret):
        self.machine.write(path, secret, mode=0o640, group=self.group())

    def token(self, user, *more, secret_file=SECRET):
        if "--private-key-file" not in more:
            more = ("--secret-file", secret_file, *more)
        line = ("sidewire", "token", "--tenant", TENANT, "--user", user, *more)
        return self.machine.run(*line).strip()

    # Clients and backends.

    def load(self, url="ws://127.0.0.1:3000/ws", tls=None):
        followers = [Follower(url, self.token(f"user-{it}"), tls) for it in range(CLIENTS)]
        key = self.machine.read(INGEST_KEY)
        # Each machine's life has ids of its own, since the relay remembers them.
        mark = f"{time.time_ns():x}"
        backends = [Backend(3001, key, f"{mark}-{it}") for it in range(BACKENDS)]
        return Load(followers, backends)

    def post(self, key, ingest=("127.0.0.1", 3001)):
        """Posts one event, and returns the status."""
        connection = http.client.HTTPConnection(*ingest, timeout=10)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            path = f"/v1/tenants/{TENANT}/events"
            connection.request("POST", path, json.dumps(event("")), headers)
            return connection.getresponse().status

    async def resume(self, token, position, url="ws://127.0.0.1:3000/ws"):
        """Subscribes from a position as a client, and returns the confirmation."""
        headers = {"Authorization": f"Bearer {token}"}
        subscribe = {"topics": [TOPIC], "resumeFrom": position}
        async with connect(
            url, subprotocols=[SUBPROTOCOL], additional_headers=headers, proxy=None
        ) as socket:
            await socket.send(json.dumps({"subscribe": subscribe}))
            return json.loads(await socket.recv())["subscriptionConfirmed"]

    async def handshake(self, token, url="ws://127.0.0.1:3000/ws", **options):
        """Connects and subscribes as a client, and returns the status of the handshake."""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with connect(
                url,
                subprotocols=[SUBPROTOCOL],
                additional_headers=headers,
                proxy=None,
                **options,
            ) as socket:
                await socket.send(json.dumps({"subscribe": {"topics": [TOPIC]}}))
                answer = json.loads(await socket.recv())
                expect("subscriptionConfirmed" in answer, f"a Subscribe is answered {answer}")
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code


# The scenarios, in the order in which they run. Each returns what it measured, and leaves the
# service running as it found it.


def installation(operator, manual, deb):
    """The package starts the service with secrets of its own, which only it can read."""
    machine = operator.machine
    shutil.copy(deb, machine.path("/root"))
    machine.shell("/root", manual.block("apt install"))
    expect(operator.is_active(), "the service does not run after the installation")
    expect(operator.is_ready(), "the relay is not ready after the installation")

    for path in (SECRET, INGEST_KEY):
        listed = machine.run("stat", "--format=%a %U:%G %s", path).strip()
        expect(listed == "640 root:sidewire 64", f"{path} is {listed}")
    keys = machine.run("stat", "--format=%a %U:%G", "/etc/sidewire/keys").strip()
    expect(keys == "750 root:sidewire", f"/etc/sidewire/keys is {keys}")
    expect(machine.read(SECRET) != machine.read(INGEST_KEY), "both secrets are the same")
    checked = machine.run("sidewire", "check", "--config", CONFIG, "--user", "sidewire")
    expect("warning" not in checked, f"the packaged config has warnings:\n{checked}")

    process = operator.service_process()
    status = (process / "status").read_text()
    user = machine.run("id", "--user", "sidewire").strip()
    for line in (rf"Uid:(\t{user}){{4}}", r"CapEff:\t0+", r"NoNewPrivs:\t1", r"Seccomp:\t2"):
        expect(re.search(f"^{line}$", status, re.MULTILINE), f"the process has no {line}")
    limits = (process / "limits").read_text()
    expect(re.search(r"Max core file size +0 +0 ", limits), "the process may write a core dump")
    expect(machine.shown(SERVICE, "MemoryMax") == str(2 << 30), "MemoryMax is not 2 GiB")
    expect(machine.shown(SERVICE, "UnitFileState") == "enabled", "the service is not enabled")
    for socket in SOCKETS:
        expect(machine.shown(socket, "ActiveState") == "inactive", f"{socket} is active")

    expect(operator.post(machine.read(INGEST_KEY)) == 200, "an event is refused")
    expect(asyncio.run(operator.handshake(operator.token("ann"))) == 101, "a client is refused")
    machine.run("test", "-s", "/usr/share/bash-completion/completions/sidewire")
    return f"{machine.run('dpkg-query', '--show', 'sidewire').split()[1]}"


def units(operator):
    """systemd finds no fault in the units, and rates the service as documented."""
    machine = operator.machine
    paths = [f"/lib/systemd/system/{unit}" for unit in (SERVICE, *SOCKETS)]
    verified = machine.run("systemd-analyze", "verify", "--man=no", *paths)
    expect(verified == "", f"systemd-analyze verify:\n{verified}")
    judged = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=11", SERVICE)
    return re.search(r"exposure level for \S+ (\S+)", judged)[1]


def journal_fields(operator):
    """Each line of the relay is a JSON object in the journal, with the fields of the unit."""
    machine = operator.machine
    pid = operator.main_pid()
    entries = operator.journal(f"_PID={pid}")
    expect(entries, "the relay has no entry in the journal")
    user = machine.run("id", "--user", "sidewire").strip()
    for entry in entries:
        fields = {
            "SYSLOG_IDENTIFIER": "sidewire",
            "_SYSTEMD_UNIT": SERVICE,
            "_COMM": "sidewire",
            "_UID": user,
            "_TRANSPORT": "stdout",
        }
        for name, value in fields.items():
            expect(entry.get(name) == value, f"{name} is {entry.get(name)}, and not {value}")
        line = json.loads(entry["MESSAGE"])
        for name in ("timestamp", "level", "message", "target"):
            expect(name in line, f"a line has no {name}: {line}")
    messages = [json.loads(entry["MESSAGE"])["message"] for entry in entries]
    expect("the relay is ready" in messages, f"the log has only {messages}")
    secrets = (machine.read(SECRET), machine.read(INGEST_KEY))
    text = json.dumps(operator.journal())
    expect(not any(secret in text for secret in secrets), "the journal has a secret")
    return f"{len(entries)} lines"


def changed_config(operator):
    """A reload applies changes of the packaged config."""
    text = operator.machine.read(CONFIG)
    for old, new in CHANGES.items():
        expect(text.count(old) == 1, f"{CONFIG} does not have {old!r} once")
        text = text.replace(old, new)
    operator.configure(text)
    operator.reload()
    return f"{len(CHANGES)} changes"


async def restart(operator):
    """Clients come back after a restart, resume, and receive every event."""
    machine = operator.machine
    before = operator.main_pid()
    async with operator.load() as load:
        await asyncio.to_thread(machine.systemctl, "restart", SERVICE)
        await load.progress()
    expect(operator.main_pid() != before, "the relay is the same process")
    codes = {code for code, _ in load.closes()}
    expect(codes == {1001}, f"clients were closed with {codes}")
    return load.judge(1)


async def reload(operator):
    """Keys are rotated without closing a connection, and a faulty file changes nothing."""
    machine = operator.machine
    packaged = machine.read(CONFIG)
    old_key = machine.read(INGEST_KEY)
    second = "/etc/sidewire/keys/jwt-2.secret"
    first_entry = '[[auth.keys]]\nsecret_file = "keys/jwt.secret"\nalgorithm = "HS256"\n'
    expect(first_entry in packaged, f"{CONFIG} has no entry for the secret")
    second_entry = first_entry.replace("jwt.secret", "jwt-2.secret")
    old_token = operator.token("ann")
    async with operator.load() as load:
        # A new secret beside the old one.
        operator.configure(packaged.replace(first_entry, first_entry + second_entry))
        made = machine.run("sidewire", "keys", "--config", CONFIG, "--group", "sidewire")
        expect(f"{second}: created" in made, f"`sidewire keys` says {made}")
        new_token = operator.token("ann", secret_file=second)
        expect(await operator.handshake(new_token) == 401, "the new key counts before the reload")
        operator.reload()
        expect(await operator.handshake(new_token) == 101, "the new key does not count")
        expect(await operator.handshake(old_token) == 101, "the old key does not count")
        # The old secret is removed.
        operator.configure(packaged.replace(first_entry, second_entry))
        operator.reload()
        expect(await operator.handshake(old_token) == 401, "the removed key counts")
        expect(await operator.handshake(new_token) == 101, "the new key does not count")

        # What root can read is not what the service can.
        machine.path(second).chmod(0o600)
        machine.run("sidewire", "check", "--config", CONFIG)
        check = ["sidewire", "check", "--config", CONFIG, "--user", "sidewire"]
        machine.fails(*check, says="jwt-2.secret: Permission denied")
        operator.reload("refused")
        machine.path(second).chmod(0o640)
        # A file with an error.
        operator.configure(packaged + "[clint]\n")
        machine.fails(*check, says="did you mean `client`")
        operator.reload("refused")
        expect(operator.metric("sidewire_config_reload_successful") == 0, "no alert")
        expect(operator.logged("did you mean `client`"), "the log does not have the reason")
        expect(operator.is_active(), "the service ended")
        expect(await operator.handshake(new_token) == 101, "a refused reload removed a key")

        operator.configure(packaged)
        operator.reload()
        expect(operator.metric("sidewire_config_reload_successful") == 1, "the alert stays")
        await load.progress()
    expect(not load.closes(), f"reloads closed connections: {load.closes()}")
    summary = load.judge(0)

    # The key of backends, in the same file. This file stays the one of the machine.
    machine.remove(second)
    operator.write_secret(INGEST_KEY, "a" * 64)
    expect(operator.post(old_key) == 200, "the old key does not count until the reload")
    operator.reload()
    expect(operator.post("a" * 64) == 200, "the new key does not count")
    expect(operator.post(old_key) == 401, "the old key counts")
    return summary


async def sockets(operator, manual):
    """With the sockets of systemd, a connection starts the relay, and none is refused while it
    restarts."""
    machine = operator.machine
    machine.shell("/root", manual.block("systemctl enable --now"))
    for socket in SOCKETS:
        expect(machine.shown(socket, "UnitFileState") == "enabled", f"{socket} is not enabled")
    machine.systemctl("stop", SERVICE)
    expect(not operator.is_active(), "the service runs before a connection comes")
    expect(await operator.handshake(operator.token("ann")) == 101, "the first client is refused")
    expect(operator.is_active(), "the connection did not start the service")
    listeners = machine.shown(SERVICE, "TriggeredBy").split()
    expect(sorted(listeners) == sorted(SOCKETS), f"the service is triggered by {listeners}")
    async with operator.load() as load:
        await asyncio.to_thread(machine.systemctl, "restart", SERVICE)
        await load.progress()
    expect(load.refused() == 0, f"{load.refused()} connections were refused")
    return load.judge(1)


async def other_schema(operator):
    """A relay with an incompatible schema sets the window of the last one aside, and tells a client
    that resumes from there."""
    machine = operator.machine
    async with operator.load() as load:
        pass
    epoch, offset = load.last_stored()
    text = machine.read(CONFIG)
    operator.configure(f'{text}\n[schema]\nbundled = "generic"\n')
    machine.systemctl("restart", SERVICE)
    rejected = operator.metric('sidewire_window_files_total{result="rejected"}')
    expect(rejected == 1, "the window of another schema is taken")
    expect(operator.logged("cannot use the window of the last run"), "the log does not say so")
    position = {"epoch": epoch, "offset": str(offset)}
    confirmed = await operator.resume(operator.token("ann"), position)
    expect(not confirmed.get("recovered"), f"a client resumes from there: {confirmed}")
    expect(confirmed["position"]["epoch"] != epoch, "the epoch is that of before")
    operator.configure(text)
    machine.systemctl("restart", SERVICE)
    wait_until(operator.is_ready, "the relay is ready")
    return f"rejected with {offset} events, the client is told"


async def upgrade(operator, deb):
    """A higher version replaces the running one; no connection is refused, and the files of the
    administrator stay."""
    machine = operator.machine
    before = operator.main_pid()
    files = [CONFIG, SECRET, INGEST_KEY]
    kept = [machine.read(path) for path in files]
    shutil.copy(deb, machine.path("/root/upgrade.deb"))
    old = machine.run("dpkg-query", "--show", "--showformat=${Version}", "sidewire")
    async with operator.load() as load:
        await asyncio.to_thread(machine.run, "dpkg", "--install", "/root/upgrade.deb")
        await load.progress()
    new = machine.run("dpkg-query", "--show", "--showformat=${Version}", "sidewire")
    machine.run("dpkg", "--compare-versions", new, "gt", old)
    expect(operator.main_pid() != before, "the old relay still runs")
    expect([machine.read(path) for path in files] == kept, "the upgrade changed a file")
    expect(load.refused() == 0, f"{load.refused()} connections were refused")
    for unit in (SERVICE, *SOCKETS):
        expect(machine.shown(unit, "ActiveState") == "active", f"{unit} is not active")
        expect(machine.shown(unit, "UnitFileState") == "enabled", f"{unit} is not enabled")
    return f"{old} to {new}: {load.judge(1)}"


async def watchdog(operator):
    """systemd restarts a relay that is stuck, and its clients come back."""
    machine = operator.machine
    before = operator.main_pid()
    async with operator.load() as load:
        began = time.monotonic()
        machine.run("kill", "-STOP", str(before))
        await operator.until_replaced(before, WATCHDOG)
        seconds = time.monotonic() - began
        await load.progress()
    expect(operator.logged("Watchdog timeout"), "the watchdog is not the reason")
    expect(not operator.logged("dumped core"), "the relay wrote a core dump")
    # A relay that is killed keeps nothing.
    summary = load.judge(1, kept=False)
    return f"restarted after {seconds:.0f} s: {summary}"


async def blocked_shard(operator):
    """systemd restarts a relay of which a single shard is blocked, while everything else of it
    runs."""
    machine = operator.machine
    # Shorter than in the unit, to save time.
    timeout = 13
    machine.drop_in(SERVICE, f"[Service]\nWatchdogSec={timeout}s\n")
    machine.systemctl("restart", SERVICE)
    before = operator.main_pid()
    async with operator.load() as load:
        with machine.stopped_thread(before, "shard-0"):
            began = time.monotonic()
            status, answer = await asyncio.to_thread(operator.ops, "/readyz")
            expect(status == 503, f"/readyz is {status} with a blocked shard: {answer}")
            checks = json.loads(answer)["checks"]
            expect(checks["shards"] != "ok", f"/readyz has the checks {checks}")
            await operator.until_replaced(before, timeout)
            seconds = time.monotonic() - began
        await load.progress()
    messages = [str(entry.get("MESSAGE")) for entry in operator.journal(f"_PID={before}")]
    stuck = any("a shard does not respond" in message for message in messages)
    expect(stuck, "the log of the relay does not have the reason")
    summary = load.judge(1, kept=False)
    machine.remove_drop_in(SERVICE)
    machine.systemctl("restart", SERVICE)
    return f"restarted after {seconds:.0f} s: {summary}"


async def credentials(operator):
    """Secrets that only root can read reach the relay as credentials."""
    machine = operator.machine
    packaged = machine.read(CONFIG)
    for name in ("jwt.secret", "ingest.key"):
        machine.write(f"/etc/sidewire/{name}", f"{name}-" + "b" * 64, mode=0o600)
    operator.configure(packaged.replace('"keys/', '"$CREDENTIALS_DIRECTORY/'))
    loaded = "".join(
        f"LoadCredential={name}:/etc/sidewire/{name}\n" for name in ("jwt.secret", "ingest.key")
    )
    machine.drop_in(SERVICE, f"[Service]\n{loaded}")
    machine.systemctl("restart", SERVICE)
    machine.fails("sidewire", "check", "--config", CONFIG, says="that variable is not set")
    token = operator.token("ann", secret_file="/etc/sidewire/jwt.secret")
    expect(await operator.handshake(token) == 101, "the secret is not the credential")
    expect(await operator.handshake(operator.token("ann")) == 401, "the old secret counts")
    # A reload reads what systemd copied at the start.
    machine.write("/etc/sidewire/jwt.secret", "c" * 64, mode=0o600)
    operator.reload()
    expect(await operator.handshake(token) == 101, "a reload sees the changed file")
    machine.systemctl("restart", SERVICE)
    expect(await operator.handshake(token) == 401, "a restart does not see the changed file")

    operator.configure(packaged)
    machine.remove_drop_in(SERVICE)
    machine.systemctl("restart", SERVICE)
    for name in ("jwt.secret", "ingest.key"):
        machine.remove(f"/etc/sidewire/{name}")
    return "2 credentials"


async def features(operator):
    """Every feature works under the unit's system-call filter, which here ends the relay at the
    first call outside it; clients come over TLS on port 443."""
    machine, scratch = operator.machine, operator.scratch
    packaged = machine.read(CONFIG)
    authority = Authority(scratch)
    certificate, key = authority.certify("localhost")
    group = operator.group()
    machine.write("/etc/sidewire/tls.crt", certificate.read_text())
    machine.write("/etc/sidewire/keys/tls.key", key.read_text(), mode=0o640, group=group)
    machine.write("/etc/sidewire/authority.pem", authority.certificate.read_text())
    machine.write("/etc/hosts", "127.0.0.1 localhost login.sidewire.test\n::1 localhost\n")
    machine.run("sidewire", "schema", "--export", "/etc/sidewire/proto")
    issuer_key = scratch / "issuer.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", CURVE, "-out", issuer_key)
    machine.write("/root/issuer.pem", issuer_key.read_text(), mode=0o600)

    issuer = serve_key_set(authority, issuer_key)
    asked = []
    backend = serve_questions(machine.path("/run/app.sock"), asked)
    with issuer, backend:
        port = issuer.server_address[1]
        operator.configure(
            f'{with_unix_sockets(packaged)}\n[client.tls]\ncert_file = "tls.crt"\nkey_file = "keys/tls.key"\n'
            f'[[auth.keys]]\njwks_url = "https://login.sidewire.test:{port}/keys"\n'
            '[auth.subscribe]\nurl = "unix:/run/app.sock:/subscribe"\n'
            '[schema]\nfiles = ["proto/tracker/v1/envelope.proto"]\n'
            'include = ["proto"]\nenvelope = "tracker.v1.WebSocketMessage"\n'
        )
        machine.systemctl("stop", SERVICE, *SOCKETS)
        machine.drop_in(
            SERVICE,
            "[Service]\nEnvironment=SSL_CERT_FILE=/etc/sidewire/authority.pem\n"
            "SystemCallErrorNumber=kill\n",
        )
        machine.drop_in("sidewire.socket", "[Socket]\nListenStream=\nListenStream=127.0.0.1:443\n")
        machine.systemctl("start", "sidewire.socket", SERVICE)
        pid = operator.main_pid()

        tls = ssl.create_default_context(cafile=authority.certificate)
        url = "wss://localhost:443/ws"
        issued = ("--private-key-file", "/root/issuer.pem", "--algorithm", "ES256", "--kid", "k")
        for token in (operator.token("ann"), operator.token("bob", *issued)):
            expect(await operator.handshake(token, url, ssl=tls) == 101, "a client is refused")
        users = {question["user"] for question in asked}
        expect(users == {"ann", "bob"}, f"the backend was asked about {users}")

        # Both Unix sockets, their modes, and a reload.
        socket_file = machine.path("/run/sidewire/ingest.sock")
        expect(socket_file.stat().st_mode & 0o777 == 0o660, "the socket has another mode")
        ingest = ["sidewire", "publish", "--url", "unix:/run/sidewire/ingest.sock"]
        ingest += ["--key-file", INGEST_KEY, "--tenant", TENANT, json.dumps(event(""))]
        answer = machine.run(*ingest)
        expect('"duplicate":false' in answer, f"an event over a Unix socket: {answer}")
        machine.systemctl("reload", SERVICE)
        curl = ["curl", "--silent", "--unix-socket", "/run/sidewire/ops.sock"]
        applied = 'sidewire_config_reloads_total{result="applied"} 1'
        wait_until(
            lambda: applied in machine.run(*curl, "http://localhost/metrics"),
            "the reload is applied",
        )
        expect('"ready":true' in machine.run(*curl, "http://localhost/readyz"), "it is not ready")

        # The drain.
        expect(operator.main_pid() == pid, "the relay was replaced")
        machine.systemctl("stop", SERVICE, "sidewire.socket")
        result = machine.shown(SERVICE, "Result")
        expect(result == "success", f"the service ended with {result}")
        expect(not operator.logged("status=31/SYS"), "the filter ended the relay")

    operator.configure(packaged)
    for unit in (SERVICE, "sidewire.socket"):
        machine.remove_drop_in(unit)
    for path in ("tls.crt", "keys/tls.key", "authority.pem", "proto"):
        machine.remove(f"/etc/sidewire/{path}")
    machine.systemctl("start", *SOCKETS, SERVICE)
    return "TLS, JWKS over https, a backend's answers, Unix sockets, a schema from files"


def faulty_start(operator):
    """A start with a faulty file says what is wrong, and the relay starts when it is mended."""
    machine = operator.machine
    packaged = machine.read(CONFIG)
    machine.systemctl("stop", SERVICE, *SOCKETS)
    operator.configure(packaged.replace("[ops]", "[opps]"))
    machine.fails("systemctl", "start", SERVICE, says="failed")
    expect(operator.logged("did you mean `ops`"), "the journal does not have the reason")
    # More attempts than systemd's default limit of 5.
    wait_until(lambda: int(machine.shown(SERVICE, "NRestarts")) > 5, "systemd tries again")
    operator.configure(packaged)
    wait_until(operator.is_active, "the service runs with the mended file")
    attempts = machine.shown(SERVICE, "NRestarts")
    wait_until(operator.is_ready, "the relay is ready")
    return f"{attempts} attempts"


def removal(operator):
    """Removal stops everything and keeps the config; purge removes that too."""
    machine = operator.machine
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", *SOCKETS, SERVICE)
    pid = operator.main_pid()
    machine.run("dpkg", "--remove", "sidewire")
    expect(not machine.path(f"/proc/{pid}").exists(), "the relay still runs")
    expect(not machine.path("/usr/bin/sidewire").exists(), "the program is still there")
    for unit in (SERVICE, *SOCKETS):
        state = machine.shown(unit, "ActiveState")
        expect(state == "inactive", f"{unit} is {state} after the removal")
    for path in (CONFIG, SECRET, INGEST_KEY):
        expect(machine.path(path).exists(), f"the removal deleted {path}")

    # It can be installed again, with the same secrets.
    secret = machine.read(SECRET)
    machine.run("dpkg", "--install", "/root/upgrade.deb")
    expect(machine.read(SECRET) == secret, "the secret has changed")
    expect(operator.is_active(), "the service does not run after the installation")

    machine.run("dpkg", "--purge", "sidewire")
    places = ["/etc", "/usr", "/var/lib", "/run"]
    left = machine.run("find", *places, "-xdev", "-name", "*sidewire*")
    expect(left == "", f"the purge left\n{left}")
    return "nothing is left but the user"


async def archive(operator, path):
    """The commands in the archive's README install the service."""
    machine = operator.machine
    target = machine.path("/root/archive")
    target.mkdir()
    unpack = ["tar", "--extract", "--strip-components=1", "--directory", target, "--file", path]
    subprocess.run(unpack, check=True, timeout=60)
    blocks = re.findall(r"```sh\n(.*?)```", machine.read("/root/archive/README.md"), re.DOTALL)
    [commands] = [block for block in blocks if "systemctl enable" in block]
    machine.run("sh", "-ec", f"cd /root/archive\n{commands}")
    wait_until(operator.is_ready, "the relay is ready")
    expect(await operator.handshake(operator.token("ann")) == 101, "a client is refused")
    expect(operator.post(machine.read(INGEST_KEY)) == 200, "an event is refused")
    machine.run("sidewire", "check", "--config", CONFIG, "--user", "sidewire")
    return f"{len(commands.splitlines())} commands"


# Servers that the relay asks, and their certificates.


CURVE = "ec_paramgen_curve:P-256"


def openssl(*arguments):
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    expect(done.returncode == 0, f"{command}: {done.stderr.decode()}")
    return done.stdout


class Authority:
    """A certificate authority for the names of this test."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.key = scratch / "authority.key"
        self.certificate = scratch / "authority.crt"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes",
            "-keyout", self.key, "-out", self.certificate, "-days", "90",
            "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def certify(self, name):
        """Returns the files of a certificate for the name and of its key."""
        certificate, key = self.scratch / f"{name}.crt", self.scratch / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes",
            "-CA", self.certificate, "-CAkey", self.key, "-keyout", key, "-out", certificate,
            "-days", "90", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
        return certificate, key


class Server:
    """Mixed into a server: it serves while the block runs."""

    daemon_threads = True

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class HttpsServer(Server, http.server.ThreadingHTTPServer):
    pass


class UnixServer(Server, socketserver.ThreadingUnixStreamServer):
    pass


class QuietHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve_key_set(authority, issuer_key):
    """Returns a server that publishes the public key over https, as a login service does."""
    public = openssl("pkey", "-in", issuer_key, "-pubout", "-outform", "DER")
    # The last 64 bytes of such a key are its point.
    point = (public[-64:-32], public[-32:])
    x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in point)
    entry = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "alg": "ES256", "use": "sig"}

    class Handler(QuietHandler):
        def do_GET(self):
            self.answer({"keys": [entry]})

    server = HttpsServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certify("login.sidewire.test"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def serve_questions(path, asked):
    """Returns a server on a Unix socket that allows every Subscribe, and notes the questions."""

    class Handler(QuietHandler):
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(question)
            self.answer({"allow": question["topics"]})

        def address_string(self):
            return "unix"

    # The path of a socket has at most 107 bytes, so it is given relative to its directory.
    previous = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        server = UnixServer(path.name, Handler)
    finally:
        os.fchdir(previous)
        os.close(previous)
    path.chmod(0o666)
    return server


def main():
    leader, deb, higher, archive_path = sys.argv[1:]
    machine = Machine(int(leader))
    with tempfile.TemporaryDirectory() as scratch:
        operator = Operator(machine, Path(scratch))
        manual = Manual()
        run(operator, "installation", installation, manual, deb)
        run(operator, "units", units)
        run(operator, "journal", journal_fields)
        run(operator, "config", changed_config)
        run(operator, "restart", restart)
        run(operator, "reload", reload)
        run(operator, "manual", follow_manual, manual)
        run(operator, "sockets", sockets, manual)
        run(operator, "fleet", fleet)
        run(operator, "other schema", other_schema)
        run(operator, "upgrade", upgrade, higher)
        run(operator, "watchdog", watchdog)
        run(operator, "blocked shard", blocked_shard)
        run(operator, "credentials", credentials)
        run(operator, "features", features)
        run(operator, "faulty start", faulty_start)
        run(operator, "removal", removal)
        run(operator, "archive", archive, archive_path)
        if manual.left:
            sys.exit(f"booted: no scenario runs these commands:\n{''.join(manual.left)}")


def run(operator, name, scenario, *arguments):
    began = time.monotonic()
    try:
        measured = scenario(operator, *arguments)
        if asyncio.iscoroutine(measured):
            measured = asyncio.run(measured)
    except Exception as failure:
        print(f"booted: {name}: failed", file=sys.stderr)
        log = operator.machine.try_run("journalctl", "--no-pager", "--lines=40")
        print(log.stdout, file=sys.stderr)
        if isinstance(failure, Failure):
            sys.exit(f"booted: {name}: {failure}")
        raise
    print(f"booted: {name:<13}{time.monotonic() - began:5.1f} s  {measured}", flush=True)


if __name__ == "__main__":
    main()
