"""What the publishers send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import RECEIPT, Opener, fresh

from sidewire import AsyncPublisher, IfLast, Position, Publisher

STORED = httpx.Response(200, json=RECEIPT)
EVENT = {"event": {"type": "order.shipped"}}


def test_an_event_is_posted_as_json_with_the_key(publishers: Opener) -> None:
    publisher, relay = publishers.answered(STORED, key="secret")
    publisher.publish("acme", EVENT, message_id="m-1")
    (request,) = relay.requests
    assert (request.method, str(request.url)) == (
        "POST",
        "http://relay:3001/v1/tenants/acme/events",
    )
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"messageId": "m-1", **EVENT}


def test_topics_and_conditions_are_in_the_query(publishers: Opener) -> None:
    publisher, relay = publishers.answered(STORED)
    conditions = [
        IfLast("doc:1", Position("e", 7)),
        IfLast("doc:2", Position("e", 0)),
        IfLast("a:b@c"),
    ]
    publisher.publish("acme", EVENT, topics=["order:7", "team:a&b +%"], if_last=conditions)
    assert relay.requests[0].url.params.multi_items() == [
        ("topic", "order:7"),
        ("topic", "team:a&b +%"),
        ("if_last", "doc:1@e:7"),
        ("if_last", "doc:2@e:0"),
        ("if_last", "a:b@c@0"),
    ]


@pytest.mark.parametrize(
    ("tenant", "path"),
    [
        ("a/b?c#d", b"/v1/tenants/a%2Fb%3Fc%23d/events"),
        ("50%25 ä", b"/v1/tenants/50%2525%20%C3%A4/events"),
        (".", b"/v1/tenants/%2E/events"),
        ("..", b"/v1/tenants/%2E%2E/events"),
        ("a.b", b"/v1/tenants/a.b/events"),
    ],
)
def test_every_tenant_is_one_segment_of_the_path(
    publishers: Opener, tenant: str, path: bytes
) -> None:
    publisher, relay = publishers.answered(STORED)
    publisher.publish(tenant, EVENT)
    assert relay.requests[0].url.raw_path == path


def test_a_path_before_v1_is_kept(publishers: Opener) -> None:
    relay = httpx.MockTransport(
        lambda request: httpx.Response(200, json={"closed": len(request.url.path)})
    )
    client: Any = httpx.Client if publishers.kind is Publisher else httpx.AsyncClient
    publisher = publishers.open("http://proxy/relay/", client=client(transport=relay))
    closed = publisher.disconnect_user("acme", "ann")
    assert closed == len("/relay/v1/tenants/acme/users/ann/connections")


def test_a_batch_of_json_is_posted_under_the_ids_of_its_events(publishers: Opener) -> None:
    answer = {"results": [RECEIPT, {**RECEIPT, "message_id": "m-2"}]}
    publisher, relay = publishers.answered(httpx.Response(200, json=answer))
    receipts = publisher.publish_batch(
        "acme",
        [EVENT, {**EVENT, "messageId": "m-2"}],
        topics=["order:7"],
        message_ids=["m-1", None],
    )
    (request,) = relay.requests
    assert request.url.raw_path == b"/v1/tenants/acme/events:batch?topic=order%3A7"
    assert json.loads(request.content) == {
        "messages": [{"messageId": "m-1", **EVENT}, {"messageId": "m-2", **EVENT}]
    }
    assert [it.message_id for it in receipts] == ["m-1", "m-2"]


def test_a_batch_of_protocol_buffers_is_a_batch_update(publishers: Opener) -> None:
    answer = {"results": [RECEIPT, RECEIPT]}
    publisher, relay = publishers.answered(httpx.Response(200, json=answer))
    events = [b"\x0a\x03m-1" + b"\x82\x02\x00", b"\x82\x02\x00"]
    publisher.publish_batch("acme", iter(events), message_ids=[None, "m" * 128])
    (request,) = relay.requests
    assert request.headers["content-type"] == "application/x-protobuf"
    first, second = b"\x0a\x03m-1\x82\x02\x00", b"\x82\x02\x00\x0a\x80\x01" + b"m" * 128
    assert request.content == b"\x0a\x08" + first + b"\x0a\x86\x01" + second


def test_a_user_is_disconnected_and_a_tenant_inspected(publishers: Opener) -> None:
    position = {"epoch": "e", "offset": "0"}
    state = {"tenant": "acme", "connections": 3, "users": 2, "topics": 5}
    answers = [{"closed": 2}, {**state, "log": {"head": position, "tail": position}, "new": 1}]
    publisher, relay = publishers.answered(*(httpx.Response(200, json=it) for it in answers))
    assert publisher.disconnect_user("acme", "ann/bob") == 2
    inspected = publisher.inspect_tenant("acme")
    assert (inspected.connections, inspected.users, inspected.topics) == (3, 2, 5)
    assert inspected.head == inspected.tail == Position("e", 0)
    assert [(it.method, it.url.raw_path) for it in relay.requests] == [
        ("DELETE", b"/v1/tenants/acme/users/ann%2Fbob/connections"),
        ("GET", b"/v1/tenants/acme"),
    ]


def test_a_key_file_is_read_without_its_line_break(publishers: Opener, tmp_path: Path) -> None:
    (tmp_path / "ingest.key").write_text("secret\r\n")
    publisher, relay = publishers.answered(STORED, key_file=tmp_path / "ingest.key")
    publisher.publish("acme", EVENT)
    assert relay.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("kind", [Publisher, AsyncPublisher])
@pytest.mark.parametrize(
    "options",
    [
        {"url": "relay:3001"},
        {"url": "ws://relay"},
        {"url": "unix:"},
        {"url": "http://relay:port"},
        {"url": "http://[::1"},
        {"url": "http://name:password@relay"},
        {"url": "http://relay/?topic=a:1"},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"deadline": -1},
        {"key": ""},
        {"key": "two words"},
        {"key": "line\n"},
        {"key": "schlüssel"},
        {"key": "secret", "key_file": "ingest.key"},
    ],
)
def test_options_without_a_meaning_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        kind(**{"url": "http://relay", **options})
    assert str(options.get("key") or "secret") not in str(refused.value)


def test_a_client_cannot_be_combined_with_a_socket_of_the_publisher() -> None:
    with httpx.Client() as client, pytest.raises(ValueError, match="uds="):
        Publisher("unix:/run/sidewire/ingest.sock", client=client)


def test_a_client_of_the_caller_stays_open_and_its_redirects_are_not_followed() -> None:
    client = httpx.Client(
        transport=httpx.MockTransport(lambda _: fresh(STORED)), follow_redirects=True
    )
    with Publisher("http://relay", client=client) as publisher:
        publisher.publish("acme", EVENT)
    assert not client.is_closed
    client.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda it: it.publish("acme", EVENT, topics="order:7"),
        lambda it: it.publish("acme", EVENT, if_last="doc:1@0"),
        lambda it: it.publish("acme", "{}"),
        lambda it: it.publish_batch("acme", [EVENT], message_ids="m"),
        lambda it: it.publish_batch("acme", [EVENT, b""]),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_before_anything_is_sent(
    publishers: Opener, call: Any
) -> None:
    publisher, relay = publishers.answered(STORED)
    with pytest.raises(TypeError):
        call(publisher)
    assert not relay.requests


@pytest.mark.parametrize(
    "call",
    [
        lambda it: it.publish_batch("acme", []),
        lambda it: it.publish_batch("acme", [EVENT], message_ids=["m-1", "m-2"]),
        lambda it: it.publish("acme", EVENT, message_id=""),
        lambda it: it.publish("acme", {"event": {"data": float("nan")}}),
    ],
)
def test_arguments_without_a_meaning_are_refused_before_anything_is_sent(
    publishers: Opener, call: Any
) -> None:
    publisher, relay = publishers.answered(STORED)
    with pytest.raises(ValueError, match=r"."):
        call(publisher)
    assert not relay.requests
