"""Checks the files of docs/proxies: runs each proxy before two relays and tries what
docs/proxies/README.md promises. Prints a line for each scenario. scripts/check-proxies
runs it.

The files are used as they are, except for addresses, ports and directories. To see what idle
timeouts do, two more proxies have timeouts of 2 s instead of 75 s."""

import asyncio
import os
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import Bench
from draining import drain, return_of_relay
from processes import PROGRAMS, CheckError, make_certificate
from traffic import (
    binary_in_header,
    client_addresses,
    idle_with_pings,
    idle_without_pings,
    json_in_subprotocol,
    large_heads,
    no_buffering,
    origins,
    polls,
    reload,
    server_sent_events,
    slow_reader,
    tokens_are_not_logged,
)

IDLE = [idle_without_pings, idle_with_pings]
# In this order: the last ones end the relays.
SCENARIOS = [
    json_in_subprotocol, binary_in_header, large_heads, origins, client_addresses, no_buffering,
    server_sent_events, polls, slow_reader, reload, drain, return_of_relay, tokens_are_not_logged,
]


async def run(bench, scenario):
    began = time.monotonic()
    try:
        detail = await scenario(bench)
    except Exception as error:
        raise CheckError(f"{scenario.__doc__}: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - began
    print(f"proxies: {bench.kind}: {scenario.__doc__}: {detail} ({seconds:.1f} s)", flush=True)


async def run_all(bench):
    # The idle clients wait while the others are busy.
    async with asyncio.TaskGroup() as group:
        idle = [group.create_task(run(bench, scenario)) for scenario in IDLE]
        for scenario in SCENARIOS[:-3]:
            await run(bench, scenario)
        await asyncio.wait(idle)
    for scenario in SCENARIOS[-3:]:
        await run(bench, scenario)


def check(kind, directory, keys):
    began = time.monotonic()
    directory.mkdir()
    with ExitStack() as running:
        try:
            asyncio.run(run_all(Bench(kind, directory, keys, running)))
        except (CheckError, ExceptionGroup) as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            for log in sorted(directory.glob("*/*.log")):
                tail = log.read_text(errors="replace").splitlines()[-8:]
                print("\n".join([f"--- {log.parent.name}/{log.name}", *tail]), file=sys.stderr)
            print(f"proxies: {kind}: {error}", file=sys.stderr)
            return False
    print(f"proxies: {kind}: passed in {time.monotonic() - began:.1f} s", flush=True)
    return True


def main():
    kinds = sys.argv[1:] or list(PROGRAMS)
    if unknown := [kind for kind in kinds if kind not in PROGRAMS]:
        print(f"proxies: there is no {unknown[0]}, only {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sidewire-proxies-") as scratch:
        scratch = Path(scratch)
        # The proxies run as other users.
        os.chmod(scratch, 0o755)
        keys = scratch / "keys"
        keys.mkdir()
        (keys / "jwt.secret").write_text(secrets.token_hex(32))
        (keys / "ingest.key").write_text(secrets.token_hex(32))
        for key in keys.iterdir():
            key.chmod(0o600)
        make_certificate(keys)
        return 0 if all(check(kind, scratch / kind, keys) for kind in kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
