"""Answers of the relay as receipts and errors."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import httpx
import pytest
from support import RECEIPT, Opener, problem

import sidewire
from sidewire import (
    ConflictError,
    CurrentState,
    EventFault,
    IfLast,
    Position,
    Receipt,
    RefusedError,
    UnavailableError,
    UnexpectedAnswerError,
    ValidationError,
)

EVENT: dict[str, Any] = {"event": {}}


def test_a_receipt_has_the_members_of_the_answer(publishers: Opener) -> None:
    publisher, _ = publishers.answered(httpx.Response(200, json={**RECEIPT, "new": {"member": 1}}))
    receipt = publisher.publish("acme", EVENT)
    assert receipt == Receipt("m-1", Position("e", 42), ("order:7",), 3, False, True)
    assert hash(receipt)
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt.matched = 4  # type: ignore[misc]


def test_an_unacknowledged_event_is_a_success_that_says_so(publishers: Opener) -> None:
    answer = {name: value for name, value in RECEIPT.items() if name != "matched"}
    publisher, relay = publishers.answered(
        httpx.Response(202, json=answer), httpx.Response(202, json={"results": [answer, answer]})
    )
    receipts = [publisher.publish("acme", EVENT), *publisher.publish_batch("acme", [EVENT, EVENT])]
    assert [(it.acknowledged, it.matched) for it in receipts] == [(False, None)] * 3
    assert len(relay.requests) == 2


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        {},
        {**RECEIPT, "position": None},
        {**RECEIPT, "position": {"epoch": "e", "offset": "x"}},
        {**RECEIPT, "topics": "order:7"},
        {**RECEIPT, "matched": "3"},
        {**RECEIPT, "duplicate": None},
    ],
)
def test_a_malformed_receipt_is_unexpected(publishers: Opener, document: Any) -> None:
    publisher, _ = publishers.answered(httpx.Response(200, json=document))
    with pytest.raises(UnexpectedAnswerError, match="not one of a relay") as failed:
        publisher.publish("acme", EVENT)
    assert failed.value.__cause__
    assert len(failed.value.message_ids) == 1


def test_an_answer_that_is_nested_too_deeply_is_unexpected(publishers: Opener) -> None:
    publisher, _ = publishers.answered(httpx.Response(200, content=b"[" * 100_000))
    with pytest.raises(UnexpectedAnswerError):
        publisher.publish("acme", EVENT)


@pytest.mark.parametrize("results", [[], [RECEIPT] * 3, None])
def test_a_batch_has_a_receipt_for_each_event(publishers: Opener, results: Any) -> None:
    publisher, _ = publishers.answered(httpx.Response(200, json={"results": results}))
    with pytest.raises(UnexpectedAnswerError):
        publisher.publish_batch("acme", [EVENT, EVENT])


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("VALIDATION_ERROR", "ValidationError"),
        ("AUTHENTICATION_FAILED", "AuthenticationError"),
        ("AUTHORIZATION_FAILED", "AuthorizationError"),
        ("NOT_FOUND", "NotFoundError"),
        ("CONFLICT", "ConflictError"),
        ("RATE_LIMIT_EXCEEDED", "RateLimitError"),
        ("INTERNAL_ERROR", "UnavailableError"),
        ("A_NEW_CODE", "RefusedError"),
    ],
)
def test_the_code_gives_the_class_of_the_error(publishers: Opener, code: str, name: str) -> None:
    publisher, _ = publishers.answered(problem(418, code, detail="why", field="event.type"))
    with pytest.raises(RefusedError) as failed:
        publisher.publish("acme", EVENT)
    error = failed.value
    assert type(error) is getattr(sidewire, name)
    assert (error.status, error.code, error.detail) == (418, code, "why")
    assert error.field == "event.type"
    assert str(error) == f"418 {code}: why"


def test_a_refused_batch_has_the_fault_of_each_event(publishers: Opener) -> None:
    errors = [
        {"index": 0, "field": None, "message": "no topic"},
        {"index": 1, "field": "event.type", "message": "no type", "new": 1},
    ]
    publisher, _ = publishers.answered(
        problem(
            400, "VALIDATION_ERROR", detail="2 of the batch's events are refused", errors=errors
        )
    )
    with pytest.raises(ValidationError) as failed:
        publisher.publish_batch("acme", [EVENT, EVENT])
    assert failed.value.errors == (
        EventFault(0, None, "no topic"),
        EventFault(1, "event.type", "no type"),
    )
    assert str(failed.value) == (
        "400 VALIDATION_ERROR: 2 of the batch's events are refused; "
        "event 0: no topic; event 1: no type"
    )


def test_a_fault_that_the_detail_names_is_shown_once(publishers: Opener) -> None:
    errors = [{"index": 1, "field": None, "message": "no topic"}]
    publisher, _ = publishers.answered(
        problem(400, "VALIDATION_ERROR", detail="event 1: no topic", errors=errors)
    )
    with pytest.raises(ValidationError) as failed:
        publisher.publish_batch("acme", [EVENT, EVENT])
    assert str(failed.value) == "400 VALIDATION_ERROR: event 1: no topic"


def test_a_conflict_has_the_current_state_and_the_next_condition(publishers: Opener) -> None:
    current = [
        {"topic": "doc:1", "epoch": "e", "position": {"epoch": "e", "offset": "7"}},
        {"topic": "doc:2", "epoch": "e", "position": None},
        {"topic": "doc:3", "epoch": None, "position": None},
    ]
    publisher, _ = publishers.answered(problem(409, "CONFLICT", detail="no", current=current))
    with pytest.raises(ConflictError) as failed:
        publisher.publish("acme", EVENT, if_last=[IfLast("doc:1")])
    assert failed.value.current == (
        CurrentState("doc:1", "e", Position("e", 7)),
        CurrentState("doc:2", "e", None),
        CurrentState("doc:3", None, None),
    )
    assert str(failed.value) == "409 CONFLICT: no; doc:1@e:7; doc:2@e:0; doc:3@0"


def test_a_conflict_of_ids_has_no_current_state(publishers: Opener) -> None:
    publisher, _ = publishers.answered(problem(409, "CONFLICT", detail="another body"))
    with pytest.raises(ConflictError) as failed:
        publisher.publish("acme", EVENT)
    assert failed.value.current == ()


@pytest.mark.parametrize(
    "document",
    [
        b"<html>Forbidden</html>",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"code":7,"detail":[],"errors":5,"current":{}}',
        b'{"errors":[5,{},{"index":"0"}],"current":[5,{},{"topic":"a:1"}]}',
    ],
)
def test_a_refusal_without_a_problem_document_has_its_status(
    publishers: Opener, document: bytes
) -> None:
    publisher, _ = publishers.answered(httpx.Response(403, content=document))
    with pytest.raises(RefusedError, match=r"^403$") as failed:
        publisher.publish("acme", EVENT)
    assert type(failed.value) is RefusedError
    assert (failed.value.code, failed.value.errors) == (None, ())


def test_a_failure_of_a_proxy_is_told_from_that_of_a_relay(publishers: Opener) -> None:
    publisher, _ = publishers.answered(httpx.Response(502, text="Bad Gateway"), deadline=1)
    with pytest.raises(UnavailableError, match=r"^502; the events may be stored") as failed:
        publisher.publish("acme", EVENT)
    assert failed.value.code is None


def test_an_error_survives_pickling(publishers: Opener) -> None:
    current = [{"topic": "doc:1", "epoch": None, "position": None}]
    publisher, _ = publishers.answered(problem(409, "CONFLICT", detail="no", current=current))
    with pytest.raises(ConflictError) as failed:
        publisher.publish("acme", EVENT, message_id="m-1")
    copy = pickle.loads(pickle.dumps(failed.value))
    assert type(copy) is ConflictError
    assert (copy.message_ids, copy.current) == (("m-1",), (CurrentState("doc:1", None, None),))
    assert str(copy) == str(failed.value)


def test_no_error_contains_the_key(publishers: Opener) -> None:
    publisher, _ = publishers.answered(httpx.ConnectError("refused"), key="secret", deadline=1)
    with pytest.raises(sidewire.NoAnswerError) as failed:
        publisher.publish("acme", EVENT)
    assert "secret" not in repr(failed.value) + str(failed.value) + repr(publisher)


def test_a_position_is_read_as_it_is_written() -> None:
    position = Position("7c3e09d5635dcea77ac98e629dfe922e", 42)
    assert str(position) == "7c3e09d5635dcea77ac98e629dfe922e:42"
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize("text", ["", "e", "e:", ":1", "e:-1", "e:1.0", "e:²"])
def test_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="position"):
        Position.parse(text)
