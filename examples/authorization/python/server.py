"""What a backend adds for Sidewire, with the standard library: an endpoint that gives a
logged-in user a token, one that tells the relay what a user may see, and one that returns
a project together with the position to follow it from.

    server.py KEYS [PORT] [INGEST_URL]

KEYS is the directory with jwt.secret, subscribe.key and ingest.key. With GRANT=backend in
the environment the tokens leave the decision to the subscribe endpoint. `http.server` is
not meant for production: move the functions to your framework.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.cookies
import json
import os
import re
import secrets
import sys
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

# As in [auth] and [[auth.keys]] of sidewire.toml.
ISSUER = "https://app.example.com"
AUDIENCE = "sidewire"
KEY_ID = "hs256-1"

TOKEN_LIFETIME_S = 300
ALLOWED_FOR_S = 60
BODY_BYTES_MAX = 1024 * 1024


class Session(NamedTuple):
    """Who is logged in."""

    tenant: str
    user: str


class Project(NamedTuple):
    """A project, and who may see it."""

    name: str
    members: set[str]


# YOUR DATABASE: the projects of each tenant.
PROJECTS = {
    "acme": {
        "apollo": Project("Apollo", {"ann", "bob"}),
        "gemini": Project("Gemini", {"ann"}),
    },
}
ADMINS = {"acme": {"ann"}}

# YOUR SESSIONS: here three users are logged in from the start, until the process ends.
SESSIONS = {secrets.token_hex(32): Session("acme", user) for user in ("ann", "bob", "eve")}


def session_of(cookie: str) -> Session | None:
    """Returns the tenant and the user that are logged in. Only the session may decide this,
    never a parameter, header or body that the browser's user can choose."""
    try:
        morsel = http.cookies.SimpleCookie(cookie).get("session")
    except http.cookies.CookieError:
        return None
    return SESSIONS.get(morsel.value) if morsel else None


def may_see_project(session: Session, project: str) -> bool:
    found = PROJECTS.get(session.tenant, {}).get(project)
    return found is not None and session.user in found.members


def may_see_all_projects(session: Session) -> bool:
    return session.user in ADMINS.get(session.tenant, set())


def granted_topics(session: Session) -> list[str]:
    """Returns the topics that a token lists: what its user may subscribe to until it
    expires."""
    if os.environ.get("GRANT") == "backend":
        # Only of this kind; which projects, the relay asks the subscribe endpoint.
        return ["project:*"]
    projects = PROJECTS.get(session.tenant, {})
    return [f"project:{it}" for it in projects if may_see_project(session, it)]


def mint_token(session: Session, secret: bytes) -> str:
    """Returns a signed token for the user."""
    now = int(time.time())
    header = {"alg": "HS256", "typ": "JWT", "kid": KEY_ID}
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "tenant_id": session.tenant,
        "user_id": session.user,
        "iat": now,
        "exp": now + TOKEN_LIFETIME_S,
        "topics": granted_topics(session),
    }
    signed = b".".join(base64url(json.dumps(it).encode()) for it in (header, claims))
    signature = hmac.digest(secret, signed, hashlib.sha256)
    return b".".join([signed, base64url(signature)]).decode()


def allowed_topics(session: Session, topics: list[str]) -> list[str]:
    """Returns those of the topics that the user may subscribe to."""

    def is_allowed(topic: str) -> bool:
        kind, _, id_ = topic.partition(":")
        if kind != "project":
            return False
        return may_see_all_projects(session) if id_ == "*" else may_see_project(session, id_)

    return [topic for topic in topics if is_allowed(topic)]


class Question(NamedTuple):
    """What the relay asks before it lets a client subscribe."""

    session: Session
    topics: list[str]

    @classmethod
    def parse(cls, body: bytes) -> Question:
        """Raises ValueError if the body is no question."""
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("the body is not an object")
        tenant, user, topics = found.get("tenant"), found.get("user"), found.get("topics")
        if not (isinstance(tenant, str) and isinstance(user, str) and isinstance(topics, list)):
            raise ValueError("a member is missing or has another type")
        if not all(isinstance(it, str) for it in topics):
            raise ValueError("a topic is not a string")
        return cls(Session(tenant, user), topics)


class Keys:
    """The keys in a directory."""

    def __init__(self, directory: Path) -> None:
        self.secret = read_key(directory / "jwt.secret")
        self.subscribe = read_key(directory / "subscribe.key")
        self.ingest = read_key(directory / "ingest.key")


def read_key(path: Path) -> bytes:
    """Reads a key without the one newline at its end, as the relay does. A secret that is
    signed with the newline is another secret."""
    key = re.sub(rb"\r?\n\Z", b"", path.read_bytes())
    if len(key) < 32:
        raise SystemExit(f"{path} has less than 32 bytes")
    return key


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def log_head(ingest_url: str, tenant: str, key: bytes) -> Any:
    """Returns the position of the tenant's newest event; None if there is none, or if the
    relay does not answer. Then the page subscribes first and loads again."""
    url = f"{ingest_url}/v1/tenants/{urllib.parse.quote(tenant, safe='')}"
    headers = {"Authorization": f"Bearer {key.decode()}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=1) as it:
            return json.load(it)["log"]["head"]
    except (OSError, ValueError, KeyError):
        return None


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    keys: Keys
    ingest_url: str

    # For a client that sends its request slowly, in seconds.
    timeout = 10

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/relay-token":
            self.give_token()
        elif path == "/relay-subscribe":
            self.allow_topics()
        else:
            self.answer(404)

    def do_GET(self) -> None:
        found = re.fullmatch(r"/projects/([a-z0-9-]+)", self.path.partition("?")[0])
        if found:
            self.give_project(found[1])
        else:
            self.answer(404)

    def give_token(self) -> None:
        """`POST /relay-token`: a token for the user of the session."""
        session = session_of(self.headers.get("Cookie", ""))
        if session is None:
            return self.answer(401)
        return self.answer(200, "text/plain", mint_token(session, self.keys.secret))

    def allow_topics(self) -> None:
        """`POST /relay-subscribe`: what the relay asks before it lets a client subscribe. A
        user who may see nothing is a 200 with an empty list; anything else means that this
        endpoint could not decide."""
        if not self.has_key(self.keys.subscribe):
            return self.answer(401)
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length):
            return self.answer(411)
        if int(length) > BODY_BYTES_MAX:
            return self.answer(413)
        try:
            question = Question.parse(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return self.answer(400)
        allow = allowed_topics(question.session, question.topics)
        return self.answer_json({"allow": allow, "ttl_s": ALLOWED_FOR_S})

    def give_project(self, project: str) -> None:
        """`GET /projects/{id}`: a project, and the position in the events that it includes."""
        session = session_of(self.headers.get("Cookie", ""))
        if session is None:
            return self.answer(401)
        if not may_see_project(session, project):
            return self.answer(404)
        # Before the database is read: what is committed later comes as an event.
        position = log_head(self.ingest_url, session.tenant, self.keys.ingest)
        name = PROJECTS[session.tenant][project].name
        return self.answer_json({"project": {"id": project, "name": name}, "position": position})

    def has_key(self, key: bytes) -> bool:
        """Compares the request's key in a time that does not depend on how much of it is
        right."""
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        is_equal = hmac.compare_digest(given.encode("latin-1", "replace"), key)
        return scheme.lower() == "bearer" and is_equal

    def answer_json(self, value: object) -> None:
        self.answer(200, "application/json", json.dumps(value))

    def answer(self, status: int, content_type: str = "text/plain", text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def main(directory: str, port: str = "8080", ingest_url: str = "http://127.0.0.1:3001") -> None:
    Handler.keys = Keys(Path(directory))
    Handler.ingest_url = ingest_url
    for cookie, session in SESSIONS.items():
        print(f"{session.user} has the cookie session={cookie}")
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
