"""A relay as a process, and a client of it that speaks JSON."""

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time

# Time limit for everything that a test waits for.
PATIENCE_S = 20

CONFIG = """
[client]
listen = "127.0.0.1:0"
[auth]
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[ingest]
listen = "127.0.0.1:0"
[ops]
listen = "127.0.0.1:0"
[log]
level = "info"
format = "json"
"""


class Relay:
    """Runs a relay until the end of the block. `more` is appended to its configuration. `keys`
    are further ingest keys: their names and their configurations."""

    def __init__(self, binary, directory, more, keys=()):
        self.binary = binary
        self.directory = directory
        directory.mkdir()
        self.write_secret("jwt.secret")
        keys = {"backend": ""} | dict(keys)
        self.keys = {name: self.write_secret(f"{name}.key") for name in keys}
        sections = [
            f'[[ingest.keys]]\nname = "{name}"\nkey_file = "{name}.key"\n{limits}\n'
            for name, limits in keys.items()
        ]
        config = "".join([CONFIG, *sections, more])
        (directory / "sidewire.toml").write_text(config, encoding="utf-8")

    def write_secret(self, name):
        secret = secrets.token_hex(32)
        (self.directory / name).write_text(secret, encoding="ascii")
        return secret

    def __enter__(self):
        self.log_path = self.directory / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", self.directory / "sidewire.toml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            ready = wait_for("the relay to start", self.find_ready)
        except BaseException:
            self.kill()
            raise
        self.client = ready["client"]
        self.ingest = f"http://{ready['ingest']}"
        self.ops = f"http://{ready['ops']}"
        return self

    def __exit__(self, *failure):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def find_ready(self):
        if self.process.poll() is not None:
            raise SystemExit(f"openapi: the relay ended:\n{self.log_path.read_text()}")
        return next((line for line in self.log() if line["message"] == "the relay is ready"), None)

    def log(self):
        """Returns the lines of the log. A line that is not JSON is a panic's."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        return [
            json.loads(line)
            if line.startswith("{")
            else {"level": "ERROR", "message": line.rstrip()}
            for line in whole
        ]

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(PATIENCE_S)

    def sign_token(self, tenant, user):
        command = [self.binary, "token", "--tenant", tenant, "--user", user]
        command += ["--secret-file", self.directory / "jwt.secret"]
        signed = subprocess.run(command, check=True, capture_output=True, text=True)
        return signed.stdout.strip()

    def connect(self, tenant, user):
        return Client(self.client, self.sign_token(tenant, user))


class Client:
    """A WebSocket client that only sends."""

    def __init__(self, address, token):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE_S)
        nonce = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /ws HTTP/1.1",
            f"Host: {address}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {nonce}",
            "Sec-WebSocket-Protocol: sidewire.v1.json",
            f"Authorization: Bearer {token}",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        status = self.socket.recv(64)
        if not re.match(rb"HTTP/1.1 101 ", status):
            raise SystemExit(f"openapi: the relay refused a client: {status!r}")

    def send(self, message):
        payload = json.dumps(message).encode()
        if len(payload) > 125:
            raise ValueError("longer frames have another header")
        # Masked with zeros, which leaves the payload as it is.
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)

    def close(self):
        self.socket.close()


def wait_for(what, find):
    """Returns what `find` returns, as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := find()):
        if time.monotonic() > deadline:
            raise SystemExit(f"openapi: waited {PATIENCE_S} s for {what}")
        time.sleep(0.02)
    return found
