"""The publishers with a relay."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support import FaultyProxy, Opener, Relay

from sidewire import (
    AsyncPublisher,
    AuthenticationError,
    AuthorizationError,
    ConflictError,
    IfLast,
    NoAnswerError,
    NotFoundError,
    Position,
    Publisher,
    RateLimitError,
    Receipt,
    ValidationError,
)

SHIPPED = {"event": {"type": "order.shipped", "data": {"order": 7}}}


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"order:{uuid.uuid4()}"


@pytest.fixture
def publisher(publishers: Opener, relay: Relay) -> Publisher:
    return publishers.open(relay.url, key_file=relay.key_file)


@contextmanager
def faulty(relay: Relay, *faults: str | int) -> Iterator[str]:
    proxy = FaultyProxy(relay.url, faults)
    try:
        yield proxy.url
    finally:
        proxy.close()
    assert not proxy.faults


def envelope_class() -> Any:
    """Returns generated code for a part of the generic schema."""
    file = descriptor_pb2.FileDescriptorProto(name="part.proto", package="part", syntax="proto3")
    event = file.message_type.add(name="Event")
    event.field.add(name="type", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    envelope = file.message_type.add(name="Envelope")
    envelope.field.add(name="message_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    envelope.field.add(name="topics", number=18, type="TYPE_STRING", label="LABEL_REPEATED")
    envelope.field.add(
        name="event",
        number=32,
        type="TYPE_MESSAGE",
        type_name=".part.Event",
        label="LABEL_OPTIONAL",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part.Envelope"))


def test_a_client_receives_what_was_published(
    publisher: Publisher, relay: Relay, topic: str
) -> None:
    with relay.follower(topic) as follower:
        receipt = publisher.publish("acme", SHIPPED, topics=[topic])
        received = json.loads(follower.communicate()[0])
    assert (receipt.matched, receipt.duplicate, receipt.acknowledged) == (1, False, True)
    assert receipt.topics == (topic,)
    assert received["messageId"] == receipt.message_id
    assert received["position"]["offset"] == str(receipt.position.offset)
    assert received["event"] == SHIPPED["event"]


@pytest.mark.parametrize("own_id", ["", "own-id"])
def test_a_client_receives_a_message_of_generated_code(
    publisher: Publisher, relay: Relay, topic: str, own_id: str
) -> None:
    message = envelope_class()(message_id=own_id and f"{own_id}-{topic}", topics=[topic])
    message.event.type = "order.shipped"
    with relay.follower(topic) as follower:
        receipt = publisher.publish("acme", message)
        received = json.loads(follower.communicate()[0])
    assert received["messageId"] == receipt.message_id
    assert receipt.message_id == message.message_id or not own_id
    assert received["event"] == {"type": "order.shipped"}


def test_an_event_whose_answer_was_lost_is_stored_once(
    publishers: Opener, relay: Relay, topic: str
) -> None:
    with faulty(relay, 503, "drop", "lose", "lose") as url:
        publisher = publishers.open(url, key_file=relay.key_file)
        receipt = publisher.publish("acme", SHIPPED, topics=[topic])
    assert receipt.duplicate
    assert publishers.time.pauses == [2.1, 0.2, 0.4, 0.8]
    # The topic has this event and no later one.
    last = IfLast(topic, receipt.position)
    assert publishers.open(relay.url, key_file=relay.key_file).publish(
        "acme", SHIPPED, topics=[topic], if_last=[last]
    )


def test_bytes_without_an_id_are_stored_once_too(
    publishers: Opener, relay: Relay, topic: str
) -> None:
    with faulty(relay, "lose") as url:
        publisher = publishers.open(url, key_file=relay.key_file)
        event = envelope_class()(event={"type": "order.shipped"}).SerializeToString()
        receipts = publisher.publish_batch("acme", [event, event], topics=[topic])
    assert [it.duplicate for it in receipts] == [True, True]
    assert receipts[1].position.offset == receipts[0].position.offset + 1


def test_a_relay_that_does_not_answer_in_time_is_asked_again(
    publishers: Opener, relay: Relay, topic: str
) -> None:
    with faulty(relay, "hang") as url:
        publisher = publishers.open(url, key_file=relay.key_file, timeout=0.2)
        assert publisher.publish("acme", SHIPPED, topics=[topic])
    assert publishers.time.pauses[0] == 0.1


def test_a_publisher_gives_up_at_its_deadline(publishers: Opener, relay: Relay) -> None:
    publishers.time.on_pause = publishers.time.pass_the_deadline
    with faulty(relay, "lose") as url:
        publisher = publishers.open(url, key_file=relay.key_file)
        with pytest.raises(NoAnswerError, match="disconnected") as failed:
            publisher.publish("acme", SHIPPED, topics=["order:7"])
    assert failed.value.may_be_stored


def test_a_call_outlasts_a_restart_and_its_position_has_the_new_epoch(
    publishers: Opener, socket_relay: Relay
) -> None:
    publisher = publishers.open(socket_relay.url, key_file=socket_relay.key_file)
    before = publisher.publish("acme", SHIPPED, topics=["order:7"], message_id="m-1")
    socket_relay.stop()
    publishers.time.on_pause = socket_relay.start
    after = publisher.publish("acme", SHIPPED, topics=["order:7"], message_id="m-2")
    assert len(publishers.time.pauses) == 1
    assert after.position.epoch != before.position.epoch
    assert after.position.offset == 1
    # The ids are forgotten too, so the event is stored again.
    assert not publisher.publish("acme", SHIPPED, topics=["order:7"], message_id="m-1").duplicate


def test_a_condition_on_the_old_epoch_conflicts_after_a_restart(
    publishers: Opener, socket_relay: Relay
) -> None:
    publisher = publishers.open(socket_relay.url, key_file=socket_relay.key_file)
    before = publisher.publish("acme", SHIPPED, topics=["doc:1"])
    socket_relay.stop()
    publishers.time.on_pause = socket_relay.start
    with pytest.raises(ConflictError) as failed:
        publisher.publish(
            "acme", SHIPPED, topics=["doc:1"], if_last=[IfLast("doc:1", before.position)]
        )
    (state,) = failed.value.current
    assert publisher.publish("acme", SHIPPED, topics=["doc:1"], if_last=[state.if_last()])


def test_the_same_id_is_a_duplicate_with_the_same_body_and_a_conflict_with_another(
    publisher: Publisher, topic: str
) -> None:
    first = publisher.publish("acme", SHIPPED, topics=[topic], message_id=topic)
    again = publisher.publish("acme", {**SHIPPED, "messageId": topic}, topics=[topic])
    assert (again.duplicate, again.matched, again.position) == (True, 0, first.position)
    with pytest.raises(ConflictError) as failed:
        publisher.publish("acme", {"event": {}}, topics=[topic], message_id=topic)
    assert failed.value.current == ()


def test_of_two_writers_the_slower_one_learns_the_position_of_the_faster(
    publisher: Publisher, topic: str
) -> None:
    first = publisher.publish("acme", SHIPPED, topics=[topic], if_last=[IfLast(topic)])
    known = IfLast(topic, first.position)
    second = publisher.publish("acme", SHIPPED, topics=[topic], if_last=[known])
    with pytest.raises(ConflictError) as failed:
        publisher.publish("acme", SHIPPED, topics=[topic], if_last=[known])
    (state,) = failed.value.current
    assert (state.topic, state.position) == (topic, second.position)
    assert publisher.publish("acme", SHIPPED, topics=[topic], if_last=[state.if_last()])


def test_a_topic_without_events_has_a_condition_of_its_epoch(
    publisher: Publisher, topic: str
) -> None:
    epoch = publisher.publish("acme", SHIPPED, topics=["order:1"]).position.epoch
    none = IfLast(topic, Position(epoch, 0))
    assert publisher.publish("acme", SHIPPED, topics=[topic], if_last=[none])


def test_the_events_of_a_batch_are_next_to_each_other(publisher: Publisher, topic: str) -> None:
    first, second = publisher.publish_batch("acme", [SHIPPED, SHIPPED], topics=[topic])
    assert second.position == Position(first.position.epoch, first.position.offset + 1)


def test_threads_share_a_publisher(relay: Relay, topic: str) -> None:
    with Publisher(relay.url, key_file=relay.key_file) as publisher:

        def publish(_: int) -> Receipt:
            return publisher.publish("acme", SHIPPED, topics=[topic])

        with ThreadPoolExecutor(8) as threads:
            receipts = list(threads.map(publish, range(40)))
    assert len({it.position for it in receipts}) == 40


def test_tasks_share_a_publisher(relay: Relay, topic: str) -> None:
    async def publish_all() -> list[Receipt]:
        async with AsyncPublisher(relay.url, key_file=relay.key_file) as publisher:
            calls = [publisher.publish("acme", SHIPPED, topics=[topic]) for _ in range(40)]
            return await asyncio.gather(*calls)

    assert len({it.position for it in asyncio.run(publish_all())}) == 40


def test_a_refused_batch_names_its_events(publisher: Publisher, topic: str) -> None:
    with pytest.raises(ValidationError) as failed:
        publisher.publish_batch("acme", [{}, SHIPPED, {}], topics=[topic])
    assert [it.index for it in failed.value.errors] == [0, 2]
    assert publisher.publish("acme", SHIPPED, topics=[topic], if_last=[IfLast(topic)])


def test_an_event_without_a_topic_is_invalid(publisher: Publisher) -> None:
    with pytest.raises(ValidationError, match="no topic"):
        publisher.publish("acme", SHIPPED)


def test_a_key_opens_its_own_tenants_only(publishers: Opener, relay: Relay) -> None:
    with pytest.raises(AuthorizationError):
        publishers.open(relay.url, key_file=relay.key_file).publish("globex", SHIPPED)
    with pytest.raises(AuthenticationError):
        publishers.open(relay.url, key="another").publish("acme", SHIPPED)
    with pytest.raises(AuthenticationError):
        publishers.open(relay.url).publish("acme", SHIPPED)


def test_dots_are_a_tenant_like_any_other(publisher: Publisher, topic: str) -> None:
    assert publisher.publish("..", SHIPPED, topics=[topic])
    assert publisher.inspect_tenant("..").tenant == ".."


def test_a_tenant_is_inspected_and_a_user_disconnected(
    publisher: Publisher, relay: Relay, topic: str
) -> None:
    head = publisher.publish("acme", SHIPPED, topics=[topic]).position
    with relay.follower(topic):
        state = publisher.inspect_tenant("acme")
        assert (state.connections, state.users, state.topics) == (1, 1, 1)
        assert (state.head, state.tail.epoch) == (head, head.epoch)
        assert publisher.disconnect_user("acme", "ann") == 1
    assert publisher.disconnect_user("acme", "nobody") == 0


def test_a_tenant_without_events_is_not_found(publishers: Opener, socket_relay: Relay) -> None:
    publisher = publishers.open(socket_relay.url, key_file=socket_relay.key_file)
    with pytest.raises(NotFoundError):
        publisher.inspect_tenant("acme")


def test_a_rate_limit_beyond_the_deadline_is_not_waited_for(
    publishers: Opener, tmp_path: Path
) -> None:
    relay = Relay(tmp_path, ingest='tenant_burst = 1\ntenant_period = "1h"')
    try:
        publisher = publishers.open(relay.url, key_file=relay.key_file, deadline=60)
        publisher.publish("acme", SHIPPED, topics=["order:7"])
        with pytest.raises(RateLimitError) as failed:
            publisher.publish("acme", SHIPPED, topics=["order:7"])
        assert failed.value.retry_after == pytest.approx(3600, abs=1)
        assert failed.value.status == 429
    finally:
        relay.stop()
