"""The example examples/python-outbox."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from outbox import add_event, main, open_database, publish_pending, ship
from support import RECEIPT, Answer, FaultyProxy, Opener, Relay, problem

from sidewire import NoAnswerError, Publisher, SidewireError


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    database = open_database(":memory:")
    yield database
    database.close()


@pytest.fixture
def publishers() -> Iterator[Opener]:
    """The example blocks."""
    opener = Opener(Publisher)
    yield opener
    opener.close()


def pending(database: sqlite3.Connection) -> int:
    counted = database.execute("SELECT count(*) FROM outbox WHERE refused IS NULL").fetchone()
    return int(counted[0])


def test_an_order_and_its_event_are_stored_together_or_not_at_all(
    database: sqlite3.Connection,
) -> None:
    ship(database, 1)
    with pytest.raises(sqlite3.IntegrityError):
        ship(database, 1)
    assert pending(database) == 1


def test_each_event_is_published_once_although_an_answer_is_lost(
    database: sqlite3.Connection, publishers: Opener, relay: Relay
) -> None:
    for order in (1, 2, 3):
        ship(database, order)
    watcher = publishers.open(relay.url, key_file=relay.key_file)
    marker = {"event": {"type": "marker"}}
    before = watcher.publish("acme", marker, topics=["marker:1"])
    proxy = FaultyProxy(relay.url, ["pass", "lose"])
    publishers.time.on_pause = publishers.time.pass_the_deadline
    try:
        publisher = publishers.open(proxy.url, key_file=relay.key_file)
        with pytest.raises(NoAnswerError):
            publish_pending(database, publisher)
        # The first one is published; the second one is stored, but nobody knows.
        assert pending(database) == 2
        assert publish_pending(database, publisher) == 2
    finally:
        proxy.close()
    assert pending(database) == 0
    after = watcher.publish("acme", marker, topics=["marker:1"])
    assert after.position.offset == before.position.offset + 4


def test_an_event_that_the_relay_refuses_for_good_is_set_aside(
    database: sqlite3.Connection, publishers: Opener, relay: Relay
) -> None:
    with database:
        add_event(database, {"evnt": {}}, ["order:1"])
    ship(database, 2)
    publisher = publishers.open(relay.url, key_file=relay.key_file)
    assert publish_pending(database, publisher) == 1
    (refused,) = database.execute("SELECT refused FROM outbox").fetchone()
    assert "VALIDATION_ERROR" in refused


@pytest.mark.parametrize(
    "refusal",
    [problem(400, "VALIDATION_ERROR"), problem(409, "CONFLICT"), problem(413, "VALIDATION_ERROR")],
    ids=str,
)
def test_the_others_are_published_past_an_event_that_can_never_be_stored(
    database: sqlite3.Connection, publishers: Opener, refusal: httpx.Response
) -> None:
    for order in (1, 2):
        ship(database, order)
    publisher, relay = publishers.answered(refusal, httpx.Response(200, json=RECEIPT))
    assert publish_pending(database, publisher) == 1
    assert pending(database) == 0
    (topics,) = database.execute("SELECT topics FROM outbox WHERE refused IS NOT NULL").fetchone()
    assert json.loads(topics) == ["order:1"]
    assert len(relay.requests) == 2


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        problem(401, "AUTHENTICATION_FAILED"),
        problem(403, "AUTHORIZATION_FAILED"),
        problem(404, "NOT_FOUND"),
        problem(405, "VALIDATION_ERROR"),
        problem(408, "VALIDATION_ERROR"),
        problem(415, "VALIDATION_ERROR"),
        problem(429, "RATE_LIMIT_EXCEEDED", 60),
        problem(503, "INTERNAL_ERROR", 60),
        # What a proxy refuses is up to its configuration.
        httpx.Response(400),
        httpx.Response(413),
    ],
    ids=str,
)
def test_an_event_that_may_be_stored_later_holds_up_the_others(
    database: sqlite3.Connection, publishers: Opener, failure: Answer
) -> None:
    for order in (1, 2):
        ship(database, order)
    publisher, relay = publishers.answered(failure, deadline=1)
    with pytest.raises(SidewireError):
        publish_pending(database, publisher)
    assert pending(database) == 2
    assert len(set(relay.bodies())) == 1


def test_the_program_ships_and_publishes(
    relay: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = str(tmp_path / "orders.sqlite")
    publish = ["publish", "--url", relay.url, "--key-file", str(relay.key_file)]
    for arguments in (["ship", "7"], publish):
        monkeypatch.setattr(sys, "argv", ["outbox.py", database, *arguments])
        main()
    assert capsys.readouterr().out == "1 published\n"
