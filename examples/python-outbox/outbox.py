"""An order service whose events are in its database until the relay has them.

    outbox.py DATABASE ship ORDER
    outbox.py DATABASE publish --url URL --key-file FILE

`ship` stores the order and its event in one transaction: both are there, or neither.
`publish` posts the events in the order of their transactions. It can be ended at any
time and run again.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import uuid
from typing import Any

from sidewire import ConflictError, Publisher, SidewireError, ValidationError

TENANT = "acme"

# The statuses of an event that can never be stored: it is invalid, its id was given to
# another event, or it is too large. With any other status it may be stored later: with 408
# because the network was slow, with 403 as soon as the configuration is mended.
REFUSED_FOR_GOOD = {400, 409, 413}

TABLES = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  message_id TEXT NOT NULL UNIQUE,
  topics TEXT NOT NULL,
  envelope TEXT NOT NULL,
  refused TEXT -- why the relay does not take the event; NULL if it has not been asked
);
"""


def open_database(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.executescript(TABLES)
    return database


def ship(database: sqlite3.Connection, order: int) -> None:
    """Ships an order."""
    with database:
        database.execute("INSERT INTO orders (id, status) VALUES (?, 'shipped')", [order])
        event = {"type": "order.shipped", "data": {"order": order}}
        add_event(database, {"event": event}, [f"order:{order}"])


def add_event(database: sqlite3.Connection, envelope: dict[str, Any], topics: list[str]) -> None:
    """Adds an event to the outbox, in the transaction of the caller. Its id is stored with
    it, so that it is the same however often the event is posted."""
    row = [str(uuid.uuid4()), json.dumps(topics), json.dumps(envelope)]
    database.execute("INSERT INTO outbox (message_id, topics, envelope) VALUES (?, ?, ?)", row)


def publish_pending(database: sqlite3.Connection, publisher: Publisher) -> int:
    """Publishes the events of the outbox and returns their number. Stops at the first one
    that cannot be published now, since later ones must not overtake it."""
    published = 0
    pending = database.execute(
        "SELECT number, message_id, topics, envelope FROM outbox"
        " WHERE refused IS NULL ORDER BY number"
    ).fetchall()
    for number, message_id, topics, envelope in pending:
        try:
            publisher.publish(
                TENANT, json.loads(envelope), topics=json.loads(topics), message_id=message_id
            )
        except (ConflictError, ValidationError) as error:
            if error.status not in REFUSED_FOR_GOOD:
                raise
            # The others are not to wait for an event that can never be stored.
            with database:
                change = "UPDATE outbox SET refused = ? WHERE number = ?"
                database.execute(change, [str(error), number])
            continue
        with database:
            database.execute("DELETE FROM outbox WHERE number = ?", [number])
        published += 1
    return published


def main() -> None:
    parser = argparse.ArgumentParser(description="An order service with an outbox.")
    parser.add_argument("database")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ship").add_argument("order", type=int)
    publish = commands.add_parser("publish")
    publish.add_argument("--url", default="http://127.0.0.1:3001")
    publish.add_argument("--key-file", required=True)
    arguments = parser.parse_args()
    database = open_database(arguments.database)
    try:
        if arguments.command == "ship":
            ship(database, arguments.order)
            return
        with Publisher(arguments.url, key_file=arguments.key_file) as publisher:
            print(publish_pending(database, publisher), "published")
    except SidewireError as error:
        sys.exit(f"outbox: {error}; run `publish` again later")
    finally:
        database.close()


if __name__ == "__main__":
    main()
