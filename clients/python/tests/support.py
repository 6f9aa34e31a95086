"""What the tests share: an AsyncPublisher that blocks, a clock that stands still, fake
answers, a relay, and a proxy before it that fails."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Union, cast

import httpx

from sidewire import AsyncPublisher, Publisher

SIDEWIRE = os.environ.get(
    "SIDEWIRE", str(Path(__file__).parents[3] / "target" / "debug" / "sidewire")
)

RECEIPT: dict[str, Any] = {
    "message_id": "m-1",
    "position": {"epoch": "e", "offset": "42"},
    "topics": ["order:7"],
    "matched": 3,
    "duplicate": False,
}

Answer = Union[httpx.Response, Exception, Callable[[httpx.Request], httpx.Response]]


def problem(
    status: int, code: str, retry_after: int | None = None, **members: Any
) -> httpx.Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    document = {"type": "about:blank", "title": "T", "status": status, "code": code, **members}
    return httpx.Response(status, json=document, headers=headers)


def fresh(answer: httpx.Response) -> httpx.Response:
    """Returns a copy, because a client can read an answer only once."""
    return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


class FakeTime:
    """A clock that only moves in a pause."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.draws: list[float] = []
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def random(self) -> float:
        """Returns the next draw; without any, the largest, so that pauses are longest."""
        return self.draws.pop(0) if self.draws else 1.0

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.on_pause()

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def pass_the_deadline(self) -> None:
        self.now += 3600

    def give_to(self, publisher: Publisher | AsyncPublisher) -> None:
        publisher._now = self.monotonic
        publisher._random = self.random
        if isinstance(publisher, AsyncPublisher):
            publisher._sleep = self.sleep_async
        else:
            publisher._sleep = self.sleep


class FakeRelay:
    """Gives the answers in order, the last one again and again, and keeps the requests."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return fresh(answer)
        return answer(request)

    def bodies(self) -> list[bytes]:
        return [request.content for request in self.requests]


class Blocking:
    """An AsyncPublisher whose methods block, so that one test is for both publishers."""

    def __init__(self, publisher: AsyncPublisher) -> None:
        self._publisher = publisher
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._publisher, name)
        return lambda *args, **options: self._loop.run_until_complete(method(*args, **options))

    def close(self) -> None:
        self._loop.run_until_complete(self._publisher.aclose())
        self._loop.close()


class Opener:
    """Makes publishers of one kind, with a fake clock, and closes them in the end."""

    def __init__(self, kind: type[Publisher] | type[AsyncPublisher]) -> None:
        self.kind = kind
        self.time = FakeTime()
        self._opened: list[Publisher] = []

    def answered(self, *answers: Answer, **options: Any) -> tuple[Publisher, FakeRelay]:
        """Returns a publisher whose relay gives these answers."""
        relay = FakeRelay(answers)
        transport = httpx.MockTransport(relay)
        client: httpx.Client | httpx.AsyncClient
        if self.kind is AsyncPublisher:
            client = httpx.AsyncClient(transport=transport)
        else:
            client = httpx.Client(transport=transport)
        return self.open("http://relay:3001", client=client, **options), relay

    def open(self, url: str, **options: Any) -> Publisher:
        publisher = self.kind(url, **options)
        self.time.give_to(publisher)
        if isinstance(publisher, AsyncPublisher):
            publisher = cast(Publisher, Blocking(publisher))
        self._opened.append(publisher)
        return publisher

    def close(self) -> None:
        for publisher in self._opened:
            publisher.close()


CONFIG = """
[client]
listen = "127.0.0.1:0"

[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"

[schema]
bundled = "generic"

[ingest]
listen = "{listen}"
{ingest}

[[ingest.keys]]
name = "backend"
key_file = "ingest.key"
tenants = ["acme", ".."]

[ops]
listen = "127.0.0.1:0"
"""


class Relay:
    """A relay whose files are in a directory of its own."""

    def __init__(self, directory: Path, *, listen: str = "127.0.0.1:0", ingest: str = "") -> None:
        self.directory = directory
        self.key_file = directory / "ingest.key"
        self._config = directory / "sidewire.toml"
        self._config.write_text(CONFIG.format(listen=listen, ingest=ingest))
        for name in ("ingest.key", "jwt.secret"):
            (directory / name).write_text(secrets.token_hex(32) + "\n")
            (directory / name).chmod(0o600)
        self.start()

    def start(self) -> None:
        command = [SIDEWIRE, "serve", "--config", str(self._config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        ready = self._wait_until_ready()
        self.client = ready["client"]
        address = ready["ingest"]
        self.url = address if address.startswith("unix:") else f"http://{address}"

    def _wait_until_ready(self) -> dict[str, Any]:
        assert self.process.stderr
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if "the relay is ready" in line:
                return cast(dict[str, Any], json.loads(line))
        raise AssertionError(f"the relay did not start: {lines}")

    def stop(self) -> None:
        # A drain would only take time.
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()

    @contextmanager
    def follower(self, *topics: str) -> Iterator[subprocess.Popen[str]]:
        """Runs a client that prints one event of the topics and ends."""
        secret = str(self.directory / "jwt.secret")
        token = [SIDEWIRE, "token", "--tenant", "acme", "--user", "ann", "--secret-file", secret]
        minted = subprocess.run(token, check=True, capture_output=True, text=True)
        token_file = self.directory / "token.jwt"
        token_file.write_text(minted.stdout)
        command = [
            SIDEWIRE,
            "tail",
            "--config",
            str(self._config),
            "--url",
            f"ws://{self.client}/ws",
        ]
        options = ["--token-file", str(token_file), "--count", "1"]
        with subprocess.Popen(
            [*command, *options, *topics],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr
                assert any("following" in line for line in process.stderr)
                yield process
            finally:
                process.kill()


class FaultyProxy:
    """Passes calls on to a relay, but lets the first ones fail as it is told: `lose` passes
    the call on and drops the answer, `drop` does not pass it on, `hang` answers nothing
    until the proxy ends, and a status is answered in place of the relay."""

    def __init__(self, relay_url: str, faults: Sequence[str | int]) -> None:
        proxy = self
        self.faults = list(faults)
        self.ended = threading.Event()
        self._relay_url = relay_url

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.handle(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, call: BaseHTTPRequestHandler) -> None:
        body = call.rfile.read(int(call.headers["content-length"]))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            self._answer(call, fault, b"", {"Retry-After": "2"})
            return
        if fault == "hang":
            self.ended.wait()
        if fault in ("drop", "hang"):
            call.close_connection = True
            return
        names = ("authorization", "content-type")
        headers = {name: call.headers[name] for name in names}
        answer = httpx.post(self._relay_url + call.path, content=body, headers=headers)
        if fault == "lose":
            call.close_connection = True
        else:
            self._answer(call, answer.status_code, answer.content, {})

    @staticmethod
    def _answer(
        call: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        call.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            call.send_header(name, value)
        call.end_headers()
        call.wfile.write(body)

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
