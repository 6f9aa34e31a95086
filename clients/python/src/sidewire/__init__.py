"""Publishes events to a Sidewire relay from a backend.

`Publisher` blocks, and `AsyncPublisher` is for asyncio. Both give each event one
message_id before the first try and keep it for every further try, so that the relay
stores the event once:

    with Publisher("http://127.0.0.1:3001", key_file="ingest.key") as publisher:
        publisher.publish("acme", {"event": {"type": "order.shipped"}}, topics=["order:7"])

The file reads from the top down: what callers see, then a call and its tries, then the
encoding of events and the reading of answers. Only the two publishers do I/O.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import time
import uuid
from collections.abc import Awaitable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Generic, Protocol, TypeVar, Union
from urllib.parse import quote

import httpx

__all__ = [
    "AsyncPublisher",
    "AuthenticationError",
    "AuthorizationError",
    "ConflictError",
    "CurrentState",
    "Envelope",
    "EventFault",
    "IfLast",
    "NoAnswerError",
    "NotFoundError",
    "Position",
    "ProtobufMessage",
    "Publisher",
    "RateLimitError",
    "Receipt",
    "RefusedError",
    "SidewireError",
    "TenantState",
    "UnavailableError",
    "UnexpectedAnswerError",
    "ValidationError",
]

__version__ = "0.1.0"

T = TypeVar("T")

_log = logging.getLogger(__name__)


# --- What callers pass in and get back ---


class ProtobufMessage(Protocol):
    """A message of generated code."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802, the name in generated code


Envelope = Union[Mapping[str, Any], bytes, ProtobufMessage]
"""An event: canonical proto3 JSON as a mapping, or Protocol Buffers as bytes or as a
message of generated code."""


@dataclass(frozen=True)
class Position:
    """The place of an event in the order of its tenant. Offsets of different epochs
    cannot be compared."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads what `str(position)` gives, such as a column of a database."""
        epoch, colon, offset = text.partition(":")
        if not (epoch and colon and _is_digits(offset)):
            raise ValueError(f"{text!r} is not a position: epoch:offset")
        return cls(epoch, int(offset))


@dataclass(frozen=True)
class IfLast:
    """A condition: the event is stored only if the last event of `topic` in the log is
    at `position`.

    A position with offset 0 means that the log has this epoch and no event of the
    topic. Without a position, it means that the log has no event of the topic, whatever
    its epoch.
    """

    topic: str
    position: Position | None = None

    def __str__(self) -> str:
        return f"{self.topic}@{0 if self.position is None else self.position}"


@dataclass(frozen=True)
class Receipt:
    """The relay has stored the event, now or before."""

    message_id: str
    position: Position
    topics: tuple[str, ...]
    matched: int | None
    """The number of connections that the event is queued for; None if not every shard
    of the relay has acknowledged it yet."""
    duplicate: bool
    """The event had been stored before: by an earlier call with its message_id, or by a
    try of this call whose answer was lost."""
    acknowledged: bool
    """False if the relay answered 202: the event is in the log and will be delivered,
    but not every shard has queued it yet. Do not publish it again."""


@dataclass(frozen=True)
class TenantState:
    """The connections and the log of a tenant."""

    tenant: str
    connections: int
    users: int
    topics: int
    head: Position
    """The position of the newest event."""
    tail: Position
    """The oldest position that a client can resume from."""


@dataclass(frozen=True)
class EventFault:
    """Why the relay refused an event of a batch."""

    index: int
    """The index of the event in the batch, from 0."""
    field: str | None
    message: str

    def __str__(self) -> str:
        return f"event {self.index}: {self.message}"


@dataclass(frozen=True)
class CurrentState:
    """The state of a topic whose condition did not hold."""

    topic: str
    epoch: str | None
    """The epoch of the log; None if the tenant has no log."""
    position: Position | None
    """The position of the topic's last event; None if the log has none."""

    def if_last(self) -> IfLast:
        """Returns the condition that holds if the topic has not changed since."""
        if self.position is None and self.epoch is not None:
            return IfLast(self.topic, Position(self.epoch, 0))
        return IfLast(self.topic, self.position)


# --- Errors ---


class SidewireError(Exception):
    """A call failed. Invalid arguments are ValueError or TypeError instead, and nothing
    is sent."""

    message_ids: tuple[str, ...] = ()
    """The ids of the call's events, in their order, to publish them again under."""
    may_be_stored: bool = False
    """True if a try got no answer, so that its events may be in the log although the
    call failed. Publish them again under the same ids."""
    retry_after: float | None = None
    """The seconds after which the relay asks to try again."""

    def __str__(self) -> str:
        doubt = "; the events may be stored nevertheless" if self.may_be_stored else ""
        return self._description() + doubt

    def _description(self) -> str:
        return super().__str__()


class NoAnswerError(SidewireError):
    """The relay could not be reached or did not answer before the deadline."""


class UnexpectedAnswerError(SidewireError):
    """The answer is not one of a relay. The server may be something else."""


class RefusedError(SidewireError):
    """The relay, or a proxy before it, refused the call. There is a subclass for each
    code of the relay."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(status, document)
        self.status = status
        self.code = _text(document.get("code"))
        """The code of the relay, such as VALIDATION_ERROR; None if a proxy refused."""
        self.detail = _text(document.get("detail")) or _text(document.get("title"))
        """The reason, for people."""
        self.field = _text(document.get("field"))
        """The path of the invalid field."""
        self.errors = tuple(_read_list(_read_fault, document.get("errors")))
        """The faults of a batch."""

    def _description(self) -> str:
        reason = ": ".join(filter(None, [self.code, self.detail]))
        faults = [str(it) for it in self.errors if it.message not in reason]
        return "; ".join([f"{self.status} {reason}".rstrip(), *faults])


class ValidationError(RefusedError):
    """VALIDATION_ERROR: the events or the call are invalid; or, with `status` 408, the body
    came too slowly until the deadline."""


class AuthenticationError(RefusedError):
    """AUTHENTICATION_FAILED: the ingest key is missing or unknown."""


class AuthorizationError(RefusedError):
    """AUTHORIZATION_FAILED: the ingest key is not for this tenant."""


class NotFoundError(RefusedError):
    """NOT_FOUND: the relay has no such call, or knows nothing of the tenant."""


class ConflictError(RefusedError):
    """CONFLICT: a condition does not hold, and `current` has the state of its topic; or,
    if `current` is empty, the message_id was given to an event with another body."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(status, document)
        self.current = tuple(_read_list(_read_current, document.get("current")))

    def _description(self) -> str:
        return "; ".join([super()._description(), *(str(it.if_last()) for it in self.current)])


class RateLimitError(RefusedError):
    """RATE_LIMIT_EXCEEDED: too many events, or the relay has no room for them. It stayed
    so until the deadline, or `retry_after` lies beyond it."""


class UnavailableError(RefusedError):
    """INTERNAL_ERROR: the relay is shutting down; or no relay behind the proxy is available."""


_ERRORS: Mapping[str | None, type[RefusedError]] = {
    "VALIDATION_ERROR": ValidationError,
    "AUTHENTICATION_FAILED": AuthenticationError,
    "AUTHORIZATION_FAILED": AuthorizationError,
    "NOT_FOUND": NotFoundError,
    "CONFLICT": ConflictError,
    "RATE_LIMIT_EXCEEDED": RateLimitError,
    "INTERNAL_ERROR": UnavailableError,
}


# --- The publishers ---


class _Caller:
    """What both publishers share: where the relay is, and how often a call is tried."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        key_file: str | os.PathLike[str] | None,
        timeout: float,
        deadline: float,
    ) -> None:
        if not (0 < timeout < math.inf and deadline > 0):
            raise ValueError("timeout and deadline are above 0 seconds, and a timeout is finite")
        self._base, self._socket = _parse_url(url)
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"sidewire-python/{__version__}",
            **_authorization(key, key_file),
        }
        self._timeout = timeout
        self._deadline = deadline
        # Tests replace these, and the publishers' way to pause.
        self._now = time.monotonic
        self._random = random.random

    def _tries(self, call: _Call[T]) -> Generator[httpx.Request | float, _Outcome, T]:
        """Yields each request to send and each pause to make, in seconds; takes what came
        of a request, and returns the answer or raises."""
        path, _, _ = call.target.partition("?")
        ends = self._now() + self._deadline
        left = self._deadline
        failures = 0
        may_be_stored = False
        while True:
            outcome = yield self._request(call, min(self._timeout, left))
            result = _read_outcome(call, outcome)
            if not isinstance(result, SidewireError):
                return result
            may_be_stored |= result.may_be_stored
            result.may_be_stored = may_be_stored and bool(call.message_ids)
            result.message_ids = call.message_ids
            # Callers that failed together come back apart, and none before it is asked to.
            pause = (result.retry_after or 0.0) + self._random() * _backoff(failures)
            if not _is_worth_another_try(result) or self._now() + pause >= ends:
                raise result
            _log.info("%s %s failed, next try in %.1f s: %s", call.method, path, pause, result)
            yield pause
            failures += 1
            left = ends - self._now()
            if left <= 0:
                raise result

    def _request(self, call: _Call[T], timeout: float) -> httpx.Request:
        return httpx.Request(
            call.method,
            self._base + call.target,
            headers={**self._headers, **call.headers},
            content=call.body,
            extensions={"timeout": httpx.Timeout(timeout).as_dict()},
        )


class Publisher(_Caller):
    """Publishes events to one relay. Threads may share it.

    `url` is the ingest listener, `http://host:port` or `unix:/path`, and `key` or
    `key_file` its ingest key. Connecting, sending and each wait for a part of the answer
    take at most `timeout` seconds. A call is tried again until `deadline` seconds after
    its start; keep that well below the relay's `ingest.message_id_age`.

    A `client` of your own, for TLS or a proxy, is used as it is and not closed.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        client: httpx.Client | None = None,
    ) -> None:
        super().__init__(url, key=key, key_file=key_file, timeout=timeout, deadline=deadline)
        _check_client(client, self._socket)
        self._owned = None
        if client is None:
            transport = httpx.HTTPTransport(uds=self._socket) if self._socket else None
            client = self._owned = httpx.Client(transport=transport)
        self._client = client
        self._sleep: Callable[[float], None] = time.sleep

    def publish(
        self,
        tenant: str,
        envelope: Envelope,
        *,
        topics: Iterable[str] = (),
        if_last: Iterable[IfLast] = (),
        message_id: str | None = None,
    ) -> Receipt:
        """Publishes one event, also to `topics`, if every condition in `if_last` holds.

        The id is `message_id`, or else the envelope's own, or else a new one. To publish
        the event again in another call, pass the same id and the same envelope.
        """
        return self._run(_event_call(tenant, envelope, topics, if_last, message_id))

    def publish_batch(
        self,
        tenant: str,
        envelopes: Iterable[Envelope],
        *,
        topics: Iterable[str] = (),
        message_ids: Iterable[str | None] | None = None,
    ) -> tuple[Receipt, ...]:
        """Publishes events that are stored next to each other, or not at all. All of them
        are mappings, or all are Protocol Buffers. `message_ids` has an item for each."""
        return self._run(_batch_call(tenant, envelopes, topics, message_ids))

    def disconnect_user(self, tenant: str, user: str) -> int:
        """Closes the user's connections with 4002 and returns their number.

        A try that failed, such as one whose answer was lost, may have closed connections.
        The next try does not count these, so that the result may be 0.
        """
        return self._run(_disconnect_call(tenant, user))

    def inspect_tenant(self, tenant: str) -> TenantState:
        """Returns the state of a tenant. Raises NotFoundError if it has neither a
        connection nor an event."""
        return self._run(_inspect_call(tenant))

    def close(self) -> None:
        """Closes the connections to the relay."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: _Call[T]) -> T:
        tries = self._tries(call)
        outcome: _Outcome = None
        while True:
            try:
                step = tries.send(outcome)
            except StopIteration as end:
                answer: T = end.value
                return answer
            if isinstance(step, httpx.Request):
                try:
                    outcome = self._client.send(step, follow_redirects=False)
                except httpx.RequestError as error:
                    outcome = error
            else:
                self._sleep(step)


class AsyncPublisher(_Caller):
    """A `Publisher` for asyncio, with the same arguments, answers and errors. Tasks of
    one event loop may share it."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        deadline: float = 30.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, key=key, key_file=key_file, timeout=timeout, deadline=deadline)
        _check_client(client, self._socket)
        self._owned = None
        if client is None:
            transport = httpx.AsyncHTTPTransport(uds=self._socket) if self._socket else None
            client = self._owned = httpx.AsyncClient(transport=transport)
        self._client = client
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def publish(
        self,
        tenant: str,
        envelope: Envelope,
        *,
        topics: Iterable[str] = (),
        if_last: Iterable[IfLast] = (),
        message_id: str | None = None,
    ) -> Receipt:
        """See `Publisher.publish`."""
        return await self._run(_event_call(tenant, envelope, topics, if_last, message_id))

    async def publish_batch(
        self,
        tenant: str,
        envelopes: Iterable[Envelope],
        *,
        topics: Iterable[str] = (),
        message_ids: Iterable[str | None] | None = None,
    ) -> tuple[Receipt, ...]:
        """See `Publisher.publish_batch`."""
        return await self._run(_batch_call(tenant, envelopes, topics, message_ids))

    async def disconnect_user(self, tenant: str, user: str) -> int:
        """See `Publisher.disconnect_user`."""
        return await self._run(_disconnect_call(tenant, user))

    async def inspect_tenant(self, tenant: str) -> TenantState:
        """See `Publisher.inspect_tenant`."""
        return await self._run(_inspect_call(tenant))

    async def aclose(self) -> None:
        """Closes the connections to the relay."""
        if self._owned is not None:
            await self._owned.aclose()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, call: _Call[T]) -> T:
        tries = self._tries(call)
        outcome: _Outcome = None
        while True:
            try:
                step = tries.send(outcome)
            except StopIteration as end:
                answer: T = end.value
                return answer
            if isinstance(step, httpx.Request):
                try:
                    outcome = await self._client.send(step, follow_redirects=False)
                except httpx.RequestError as error:
                    outcome = error
            else:
                await self._sleep(step)


def _parse_url(url: str) -> tuple[str, str | None]:
    """Returns the URL without a slash at its end, and the path of the Unix socket."""
    scheme, _, path = url.partition(":")
    if scheme == "unix" and path:
        return "http://localhost", path
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is neither http://host:port nor https://… nor unix:/path")
    # httpx would send a user name in place of the ingest key.
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("the URL of a relay has no user name, query or fragment")
    return url.rstrip("/"), None


def _authorization(key: str | None, key_file: str | os.PathLike[str] | None) -> dict[str, str]:
    if key_file is not None:
        if key is not None:
            raise ValueError("key and key_file are both given")
        key = Path(key_file).read_text(encoding="utf-8").rstrip("\n")
    if key is None:
        return {}
    # The error does not show the key.
    if not key or not all("!" <= character <= "~" for character in key):
        raise ValueError("an ingest key has visible ASCII characters only, and at least one")
    return {"Authorization": f"Bearer {key}"}


def _check_client(client: object, socket: str | None) -> None:
    if client is not None and socket is not None:
        raise ValueError(
            "with a client of your own, give its transport the Unix socket (`uds=`), "
            "and the publisher http://localhost"
        )


# --- Calls ---


@dataclass(frozen=True)
class _Call(Generic[T]):
    """One call of the ingest listener. Its bytes are the same in every try."""

    method: str
    target: str
    read: Callable[[Any, bool], T]
    """Reads the JSON of an answer; the flag says whether the relay acknowledged."""
    headers: Mapping[str, str]
    body: bytes = b""
    message_ids: tuple[str, ...] = ()


def _event_call(
    tenant: str,
    envelope: Envelope,
    topics: Iterable[str],
    if_last: Iterable[IfLast],
    message_id: str | None,
) -> _Call[Receipt]:
    event = _encode(envelope, message_id)
    return _Call(
        "POST",
        _target(tenant, "events", topic=topics, if_last=if_last),
        _read_receipt,
        {"Content-Type": event.content_type},
        event.body,
        (event.message_id,),
    )


def _batch_call(
    tenant: str,
    envelopes: Iterable[Envelope],
    topics: Iterable[str],
    message_ids: Iterable[str | None] | None,
) -> _Call[tuple[Receipt, ...]]:
    envelopes = tuple(envelopes)
    given = (None,) * len(envelopes) if message_ids is None else tuple(_listed(message_ids))
    if not envelopes or len(given) != len(envelopes):
        raise ValueError("a batch has at least one envelope, and as many message_ids or none")
    events = [_encode(*pair) for pair in zip(envelopes, given)]
    (content_type, *others) = {event.content_type for event in events}
    if others:
        raise TypeError("a batch is either all mappings or all Protocol Buffers")
    is_json = content_type == _JSON
    bodies = [event.body for event in events]

    def read(document: Any, acknowledged: bool) -> tuple[Receipt, ...]:
        results = _member(document, "results", list)
        if len(results) != len(events):
            raise ValueError(f"{len(results)} receipts for {len(events)} events")
        return tuple(_read_receipt(result, acknowledged) for result in results)

    return _Call(
        "POST",
        _target(tenant, "events:batch", topic=topics),
        read,
        {"Content-Type": content_type},
        b'{"messages":[' + b",".join(bodies) + b"]}" if is_json else _encode_strings(bodies),
        tuple(event.message_id for event in events),
    )


def _disconnect_call(tenant: str, user: str) -> _Call[int]:
    target = _target(tenant, "users", _segment(user), "connections")
    return _Call("DELETE", target, lambda document, _: _member(document, "closed", int), {})


def _inspect_call(tenant: str) -> _Call[TenantState]:
    return _Call("GET", _target(tenant), _read_tenant, {})


def _target(tenant: str, *path: str, **query: Iterable[object]) -> str:
    pairs = [(name, value) for name, values in query.items() for value in _listed(values)]
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in pairs)
    return "/".join(["/v1/tenants", _segment(tenant), *path]) + (text and f"?{text}")


def _segment(name: str) -> str:
    # httpx would resolve dots as a relative path.
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _listed(values: Iterable[T]) -> Iterable[T]:
    """Refuses a string, whose characters would be taken for the values."""
    if isinstance(values, str):
        raise TypeError(f"{values!r} is a string where a list is expected")
    return values


# --- What came of a try ---

_Outcome = Union[httpx.Response, httpx.RequestError, None]

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The failures after which the relay cannot have seen the call."""

_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 5.0


def _backoff(failures: int) -> float:
    """Returns the longest pause in seconds after that many earlier failures."""
    return min(_BACKOFF_MAX, _BACKOFF_FIRST * 2.0 ** min(failures, 10))


def _is_worth_another_try(error: SidewireError) -> bool:
    if isinstance(error, RefusedError):
        # 408 says that the body came too slowly; 502 and 504 are how a proxy says that it got
        # no answer.
        return error.status in (408, 429, 502, 503, 504)
    # Only a bug in a client or a server gives another error than a TransportError.
    cause = error.__cause__
    return isinstance(cause, httpx.TransportError) and not isinstance(
        cause, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
    )


def _read_outcome(call: _Call[T], outcome: _Outcome) -> T | SidewireError:
    if isinstance(outcome, httpx.Response):
        return _read_response(call, outcome)
    error = NoAnswerError(f"no answer: {type(outcome).__name__}: {outcome}")
    error.may_be_stored = not isinstance(outcome, _UNSENT)
    error.__cause__ = outcome
    return error


def _read_response(call: _Call[T], response: httpx.Response) -> T | SidewireError:
    status = response.status_code
    if status in (200, 202):
        try:
            return call.read(response.json(), status == 200)
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            return _unexpected(f"the answer with {status} is not one of a relay", error)
    if status < 400:
        return _unexpected(f"a relay does not answer with {status}")
    document = _read_problem(response)
    code = _text(document.get("code"))
    fallback = UnavailableError if status >= 500 else RefusedError
    refused = _ERRORS.get(code, fallback)(status, document)
    refused.retry_after = _read_retry_after(response)
    # A proxy that reports a failure may have passed the call on.
    refused.may_be_stored = status >= 500 and code is None
    return refused


def _unexpected(reason: str, cause: Exception | None = None) -> UnexpectedAnswerError:
    error = UnexpectedAnswerError(reason)
    error.may_be_stored = True
    error.__cause__ = cause
    return error


def _read_problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
    except (RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_retry_after(response: httpx.Response) -> float | None:
    """Returns the seconds of `Retry-After`. A date, which a relay never sends, counts as
    none, because the clocks may differ."""
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if _is_digits(text) else None


# --- The members of answers ---


def _read_receipt(document: Any, acknowledged: bool) -> Receipt:
    return Receipt(
        message_id=_member(document, "message_id", str),
        position=_read_position(document["position"]),
        topics=tuple(map(str, _member(document, "topics", list))),
        matched=_member(document, "matched", int) if "matched" in document else None,
        duplicate=_member(document, "duplicate", bool),
        acknowledged=acknowledged,
    )


def _read_tenant(document: Any, _: bool) -> TenantState:
    log = _member(document, "log", dict)
    return TenantState(
        tenant=_member(document, "tenant", str),
        connections=_member(document, "connections", int),
        users=_member(document, "users", int),
        topics=_member(document, "topics", int),
        head=_read_position(log["head"]),
        tail=_read_position(log["tail"]),
    )


def _read_position(document: Any) -> Position:
    # As in proto3 JSON, the offset is a string.
    return Position(_member(document, "epoch", str), int(_member(document, "offset", str)))


def _read_fault(document: Any) -> EventFault:
    index, message = _member(document, "index", int), _member(document, "message", str)
    return EventFault(index, _text(document.get("field")), message)


def _read_current(document: Any) -> CurrentState:
    position = document["position"]
    return CurrentState(
        _member(document, "topic", str),
        _text(document["epoch"]),
        None if position is None else _read_position(position),
    )


def _read_list(read: Callable[[Any], T], items: Any) -> Iterator[T]:
    """Reads the items of a problem document; the refusal matters more than an item that
    cannot be read."""
    for item in items if isinstance(items, list) else []:
        try:
            yield read(item)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue


def _member(document: Any, name: str, kind: type[T]) -> T:
    value = document[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


# --- Events as bytes ---

_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class _Event:
    message_id: str
    body: bytes
    content_type: str


def _encode(envelope: Envelope, message_id: str | None) -> _Event:
    """Returns the event with a message_id in its bytes. Without one the relay could not
    recognise the event when it is sent again."""
    if message_id == "":
        raise ValueError("an empty message_id is none; leave it out to get a new one")
    if isinstance(envelope, Mapping):
        return _encode_json(envelope, message_id)
    if isinstance(envelope, bytes):
        return _encode_protobuf(envelope, message_id)
    if hasattr(envelope, "SerializeToString"):
        return _encode_protobuf(envelope.SerializeToString(), message_id)
    raise TypeError(f"an envelope is a mapping, bytes or a message, not {type(envelope)}")


def _encode_json(envelope: Mapping[str, Any], message_id: str | None) -> _Event:
    names = ("messageId", "message_id")
    # In proto3 JSON, null is the same as no member.
    own = [envelope[name] for name in names if envelope.get(name) is not None]
    if not all(isinstance(it, str) for it in own):
        raise ValueError("the message_id of the envelope is not a string")
    chosen = _choose_id(own, message_id)
    others = {name: value for name, value in envelope.items() if name not in names}
    body = json.dumps({"messageId": chosen, **others}, separators=(",", ":"), allow_nan=False)
    return _Event(chosen, body.encode(), _JSON)


def _encode_protobuf(envelope: bytes, message_id: str | None) -> _Event:
    spans = list(_message_id_spans(envelope))
    own = [envelope[start:end].decode() for _, start, end in spans]
    chosen = _choose_id(own, message_id)
    if chosen not in own:
        # The relay refuses a second message_id, even after an empty one.
        for begin, _, end in spans:
            envelope = envelope[:begin] + envelope[end:]
        envelope += _encode_strings([chosen.encode()])
    return _Event(chosen, envelope, _PROTOBUF)


def _choose_id(own: list[str], given: str | None) -> str:
    """Returns the id of an event from those in its envelope and that of the caller."""
    if len(own) > 1:
        raise ValueError(f"the envelope has the message_ids {own}")
    of_envelope = own[0] if own else ""
    if of_envelope and given and of_envelope != given:
        raise ValueError(f"the envelope has the message_id {of_envelope!r}, not {given!r}")
    return given or of_envelope or str(uuid.uuid4())


# --- The wire format of Protocol Buffers, as far as it is needed ---

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_FIRST_FIELD = 1 << 3 | _LENGTH_DELIMITED
"""The tag of the envelope's `message_id`, and of the `messages` of a BatchUpdate."""


def _encode_strings(values: Iterable[bytes]) -> bytes:
    """Encodes the values as field 1."""
    fields = (bytes([_FIRST_FIELD]) + _encode_varint(len(it)) + it for it in values)
    return b"".join(fields)


def _message_id_spans(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields where each field 1 begins, and where its value begins and ends."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _read_varint(message, at)
        value, at = _skip_value(message, at, tag & 7)
        if at > len(message):
            raise ValueError("the envelope's Protocol Buffers are cut off")
        if tag == _FIRST_FIELD:
            yield begin, value, at


def _skip_value(message: bytes, at: int, wire_type: int) -> tuple[int, int]:
    """Returns where the content of a field begins and ends."""
    if wire_type == _VARINT:
        return at, _read_varint(message, at)[1]
    if wire_type == _FIXED64:
        return at, at + 8
    if wire_type == _FIXED32:
        return at, at + 4
    if wire_type == _LENGTH_DELIMITED:
        length, at = _read_varint(message, at)
        return at, at + length
    raise ValueError("the envelope's bytes are not Protocol Buffers, or contain a group")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns the number and where it ends."""
    number = 0
    for size, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << (7 * size)
        if byte < 0x80:
            return number, at + size + 1
    raise ValueError("the envelope's Protocol Buffers are cut off")


def _encode_varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
