"""Which calls are tried again, when, and under which ids."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from support import RECEIPT, Answer, Opener, fresh, problem

from sidewire import (
    AsyncPublisher,
    NoAnswerError,
    RateLimitError,
    SidewireError,
    UnavailableError,
    UnexpectedAnswerError,
    ValidationError,
)

STORED = httpx.Response(200, json=RECEIPT)
REFUSED = httpx.ConnectError("refused")
LOST = httpx.ReadError("reset")
EVENT = {"event": {"type": "order.shipped"}}


@pytest.mark.parametrize(
    "failure",
    [
        REFUSED,
        LOST,
        httpx.ConnectTimeout("no"),
        httpx.ReadTimeout("no"),
        httpx.WriteTimeout("no"),
        httpx.PoolTimeout("no"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("closed"),
        httpx.ProxyError("no"),
        problem(408, "VALIDATION_ERROR"),
        problem(429, "RATE_LIMIT_EXCEEDED", 1),
        problem(503, "RATE_LIMIT_EXCEEDED", 1),
        problem(503, "INTERNAL_ERROR", 1),
        httpx.Response(408),
        httpx.Response(502),
        httpx.Response(503),
        httpx.Response(504),
    ],
    ids=str,
)
def test_a_call_that_may_succeed_later_is_repeated_byte_for_byte(
    publishers: Opener, failure: Answer
) -> None:
    publisher, relay = publishers.answered(failure, failure, STORED)
    assert publisher.publish("acme", EVENT).position.offset == 42
    first, second, third = relay.bodies()
    assert first == second == third
    assert json.loads(first)["messageId"]


@pytest.mark.parametrize("failure", [LOST, problem(503, "RATE_LIMIT_EXCEEDED", 1)], ids=str)
def test_a_batch_and_administrative_calls_are_repeated_too(
    publishers: Opener, failure: Answer
) -> None:
    publisher, relay = publishers.answered(
        failure,
        httpx.Response(200, json={"results": [RECEIPT]}),
        failure,
        httpx.Response(200, json={"closed": 0}),
    )
    publisher.publish_batch("acme", [EVENT])
    publisher.disconnect_user("acme", "ann")
    first, second, third, fourth = relay.requests
    assert first.content == second.content
    assert third.url == fourth.url


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 431, 500, 501])
def test_what_was_refused_is_not_repeated(publishers: Opener, status: int) -> None:
    publisher, relay = publishers.answered(problem(status, "VALIDATION_ERROR", 1))
    with pytest.raises(ValidationError):
        publisher.publish("acme", EVENT)
    assert len(relay.requests) == 1
    assert not publishers.time.pauses


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(301, headers={"location": "http://elsewhere/"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(204),
    ],
    ids=str,
)
def test_an_answer_of_another_server_is_not_repeated(publishers: Opener, answer: Answer) -> None:
    publisher, relay = publishers.answered(answer)
    with pytest.raises(UnexpectedAnswerError) as failed:
        publisher.publish("acme", EVENT)
    assert failed.value.may_be_stored
    assert len(relay.requests) == 1


def test_a_mistake_in_a_request_is_not_repeated(publishers: Opener) -> None:
    publisher, relay = publishers.answered(httpx.LocalProtocolError("bad header"))
    with pytest.raises(NoAnswerError, match="bad header"):
        publisher.publish("acme", EVENT)
    assert len(relay.requests) == 1


def test_pauses_double_up_to_five_seconds(publishers: Opener) -> None:
    publisher, _ = publishers.answered(*[REFUSED] * 8, STORED)
    publisher.publish("acme", EVENT)
    assert publishers.time.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_pauses_are_drawn_from_their_whole_range(publishers: Opener) -> None:
    publisher, _ = publishers.answered(*[REFUSED] * 3, STORED)
    publishers.time.draws = [0.0, 0.5, 0.25]
    publisher.publish("acme", EVENT)
    assert publishers.time.pauses == [0.0, 0.1, 0.1]


def test_no_call_is_repeated_before_retry_after(publishers: Opener) -> None:
    publisher, _ = publishers.answered(
        problem(429, "RATE_LIMIT_EXCEEDED", 2), problem(503, "INTERNAL_ERROR", 3), STORED
    )
    publishers.time.draws = [0.0, 0.5]
    publisher.publish("acme", EVENT)
    assert publishers.time.pauses == [2.0, 3.1]


@pytest.mark.parametrize(
    "value", ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "nan", "soon", "1.5", "²"]
)
def test_a_retry_after_that_is_not_in_seconds_counts_as_none(
    publishers: Opener, value: str
) -> None:
    headers = [(b"retry-after", value.encode())]
    publisher, _ = publishers.answered(httpx.Response(503, headers=headers), STORED)
    publisher.publish("acme", EVENT)
    assert publishers.time.pauses == [0.1]


def test_a_call_ends_at_once_if_the_relay_asks_to_wait_beyond_the_deadline(
    publishers: Opener,
) -> None:
    publisher, relay = publishers.answered(problem(429, "RATE_LIMIT_EXCEEDED", 60), deadline=30)
    with pytest.raises(RateLimitError) as failed:
        publisher.publish("acme", EVENT, message_id="m-1")
    assert failed.value.retry_after == 60
    assert failed.value.message_ids == ("m-1",)
    assert not failed.value.may_be_stored
    assert (len(relay.requests), publishers.time.pauses) == (1, [])


def test_a_retry_after_of_any_length_is_read(publishers: Opener) -> None:
    answer = httpx.Response(503, headers={"retry-after": "9" * 5000})
    publisher, _ = publishers.answered(answer)
    with pytest.raises(UnavailableError) as failed:
        publisher.publish("acme", EVENT)
    assert failed.value.retry_after == float("inf")


def test_each_further_try_is_logged_with_its_reason(
    publishers: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, _ = publishers.answered(REFUSED, STORED, key="secret")
    with caplog.at_level("INFO", logger="sidewire"):
        publisher.publish("acme", EVENT, topics=["order:7"])
    logged = [it.getMessage() for it in caplog.records if it.name == "sidewire"]
    assert logged == [
        "POST /v1/tenants/acme/events failed, next try in 0.1 s: no answer: ConnectError: refused"
    ]


def test_no_try_begins_after_the_deadline(publishers: Opener) -> None:
    publisher, relay = publishers.answered(REFUSED, deadline=3)
    began = publishers.time.now
    with pytest.raises(NoAnswerError, match="ConnectError: refused"):
        publisher.publish("acme", EVENT)
    assert publishers.time.pauses == [0.1, 0.2, 0.4, 0.8]
    assert publishers.time.now < began + 3
    assert len(relay.requests) == 5


def test_a_pause_that_takes_longer_than_the_deadline_is_the_last(publishers: Opener) -> None:
    publisher, relay = publishers.answered(REFUSED)
    publishers.time.on_pause = publishers.time.pass_the_deadline
    with pytest.raises(NoAnswerError):
        publisher.publish("acme", EVENT)
    assert len(relay.requests) == 1


def test_a_try_waits_no_longer_than_its_timeout_and_the_deadline(publishers: Opener) -> None:
    def hang(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        publishers.time.now += timeouts[-1]
        raise httpx.ReadTimeout("no answer")

    timeouts: list[float] = []
    publishers.time.draws = [0.0] * 3
    publisher, _ = publishers.answered(hang, timeout=10, deadline=25)
    with pytest.raises(NoAnswerError):
        publisher.publish("acme", EVENT)
    assert timeouts == [10, 10, 5]


@pytest.mark.parametrize(
    ("failures", "may_be_stored"),
    [
        ([REFUSED], False),
        ([httpx.ConnectTimeout("no")], False),
        ([httpx.PoolTimeout("no")], False),
        ([problem(503, "RATE_LIMIT_EXCEEDED", 0)], False),
        ([problem(408, "VALIDATION_ERROR")], False),
        ([LOST], True),
        ([httpx.ReadTimeout("no")], True),
        ([httpx.Response(502)], True),
        ([LOST, REFUSED], True),
        ([LOST, problem(503, "INTERNAL_ERROR", 0)], True),
        ([LOST, problem(401, "AUTHENTICATION_FAILED")], True),
        ([REFUSED, problem(401, "AUTHENTICATION_FAILED")], False),
    ],
)
def test_an_error_says_whether_the_events_may_be_stored_nevertheless(
    publishers: Opener, failures: list[Answer], may_be_stored: bool
) -> None:
    publisher, relay = publishers.answered(*failures, deadline=1)
    with pytest.raises(SidewireError) as failed:
        publisher.publish_batch("acme", [EVENT, EVENT], message_ids=["m-1", None])
    assert failed.value.may_be_stored == may_be_stored
    assert ("may be stored" in str(failed.value)) == may_be_stored
    sent = json.loads(relay.requests[0].content)["messages"]
    assert failed.value.message_ids == tuple(it["messageId"] for it in sent)


def test_the_failure_of_a_call_without_events_says_nothing_of_events(publishers: Opener) -> None:
    publisher, _ = publishers.answered(LOST, deadline=1)
    with pytest.raises(NoAnswerError) as failed:
        publisher.disconnect_user("acme", "ann")
    assert not failed.value.may_be_stored
    assert failed.value.__cause__ is LOST


def test_other_tasks_run_during_a_pause() -> None:
    async def publish_twice() -> list[str]:
        paused = asyncio.Event()
        order: list[str] = []

        async def pause(_: float) -> None:
            paused.set()
            await other
            order.append("repeated")

        async def publish_other() -> None:
            await paused.wait()
            await publisher.publish("acme", EVENT)
            order.append("other")

        answers: list[httpx.Response] = [httpx.Response(503), STORED, STORED]
        transport = httpx.MockTransport(lambda _: fresh(answers.pop(0)))
        async with httpx.AsyncClient(transport=transport) as client:
            publisher = AsyncPublisher("http://relay", client=client)
            publisher._sleep = pause
            other = asyncio.create_task(publish_other())
            await publisher.publish("acme", EVENT)
        return order

    assert asyncio.run(publish_twice()) == ["other", "repeated"]
