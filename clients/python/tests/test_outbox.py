"""The example examples/python-outbox."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outbox import add_event, main, open_database, publish_pending, ship
from support import FaultyProxy, Opener, Relay, problem

from sidewire import AuthenticationError, NoAnswerError, Publisher


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


def test_nothing_is_set_aside_for_a_wrong_key(
    database: sqlite3.Connection, publishers: Opener
) -> None:
    ship(database, 1)
    publisher, _ = publishers.answered(problem(401, "AUTHENTICATION_FAILED"))
    with pytest.raises(AuthenticationError):
        publish_pending(database, publisher)
    assert pending(database) == 1


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
