"""The examples in README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support import Relay

README = Path(__file__).parents[1] / "README.md"

# What the examples import beside the package; blocks with it are only compiled.
ABSENT = re.compile(r"^from (django|fastapi)\b", re.MULTILINE)


def test_the_examples_work_one_after_the_other(relay: Relay) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    ran = 0
    for block in blocks:
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
    assert (len(blocks), ran) == (6, 4)
