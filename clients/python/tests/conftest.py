"""The fixtures of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Opener, Relay

from sidewire import AsyncPublisher, Publisher


@pytest.fixture(params=[Publisher, AsyncPublisher], ids=["sync", "async"])
def publishers(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Makes publishers; a test with it runs for both kinds."""
    opener = Opener(request.param)
    yield opener
    opener.close()


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that all tests share."""
    relay = Relay(tmp_path_factory.mktemp("relay"))
    yield relay
    relay.stop()


@pytest.fixture
def socket_relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay of one test, on a Unix socket, which it keeps when it starts again."""
    relay = Relay(tmp_path, listen="unix:ingest.sock")
    yield relay
    relay.stop()
