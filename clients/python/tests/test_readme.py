"""The examples in README.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from support import RECEIPT, Answer, Opener, Relay, problem

from sidewire import Publisher, SidewireError

README = Path(__file__).parents[1] / "README.md"

# What the examples import beside the package; blocks with it are only compiled.
ABSENT = re.compile(r"^from (django|fastapi)\b", re.MULTILINE)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_examples_work_one_after_the_other(relay: Relay) -> None:
    names: dict[str, Any] = {}
    ran = 0
    for block in blocks():
        code = compile(
            block.replace("http://127.0.0.1:3001", relay.url).replace(
                '"ingest.key"', repr(str(relay.key_file))
            ),
            str(README),
            "exec",
        )
        if not ABSENT.search(block):
            publisher = names.get("publisher")
            exec(code, names)
            ran += 1
            if publisher is not None and publisher is not names["publisher"]:
                publisher.close()
    names["client"].close()
    assert (len(blocks()), ran) == (6, 4)


@pytest.fixture
def django(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the example with Django, whose database and tasks are replaced."""
    replaced: dict[str, dict[str, Any]] = {
        "django": {},
        "django.conf": {"settings": Mock()},
        "django.db": {"models": Mock(Model=object), "transaction": Mock()},
        "celery": {"shared_task": lambda task: task},
    }
    for name, members in replaced.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    (block,) = (it for it in blocks() if "from django" in it)
    names: dict[str, Any] = {"__name__": "example"}
    exec(block, names)
    return names


def publish_rows(django: dict[str, Any], *answers: Answer) -> tuple[list[Mock], Exception | None]:
    """Runs the task of the example on two rows; returns them and the error of the run."""
    rows = [
        Mock(tenant="acme", envelope={"event": {}}, topics=["order:1"], message_id=it, refused="")
        for it in ("m-1", "m-2")
    ]
    django["OutboxEvent"].objects = Mock()
    django["OutboxEvent"].objects.filter.return_value.order_by.return_value = rows
    opener = Opener(Publisher)
    django["Publisher"] = lambda *_, **__: opener.answered(*answers, deadline=1)[0]
    try:
        django["publish_pending"]()
    except SidewireError as error:
        return rows, error
    finally:
        opener.close()
    return rows, None


@pytest.mark.parametrize(
    "refusal",
    [problem(400, "VALIDATION_ERROR"), problem(409, "CONFLICT"), problem(413, "VALIDATION_ERROR")],
    ids=str,
)
def test_the_example_with_django_sets_aside_an_event_that_can_never_be_stored(
    django: dict[str, Any], refusal: httpx.Response
) -> None:
    (first, second), error = publish_rows(django, refusal, httpx.Response(200, json=RECEIPT))
    assert error is None
    assert str(refusal.status_code) in first.refused
    assert (first.save.call_count, first.delete.call_count) == (1, 0)
    assert (second.save.call_count, second.delete.call_count) == (0, 1)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        problem(401, "AUTHENTICATION_FAILED"),
        problem(405, "VALIDATION_ERROR"),
        problem(408, "VALIDATION_ERROR"),
        problem(415, "VALIDATION_ERROR"),
        httpx.Response(413),
    ],
    ids=str,
)
def test_the_example_with_django_keeps_an_event_that_may_be_stored_later(
    django: dict[str, Any], failure: Answer
) -> None:
    rows, error = publish_rows(django, failure)
    assert error is not None
    assert [it.refused for it in rows] == ["", ""]
    assert not any(it.save.called or it.delete.called for it in rows)
