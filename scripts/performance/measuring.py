"""Runs the scenarios, one run at a time, and collects the results."""

import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import processes
from plan import Scenario, Side

# A run connects its clients first, and at its end waits for outstanding events.
RUN_SECONDS_EXTRA = 60


def measure(binaries: dict[str, Path], scenario: Scenario) -> dict:
    """Returns the rounds of a scenario, up to a failure."""
    began = time.monotonic()
    rounds: list[dict] = []
    measured = {"rounds": rounds, "failures": []}
    try:
        for number in range(1, scenario.rounds + 1):
            runs: dict = {}
            rounds.append(runs)
            for side in scenario.sides:
                say(f"{scenario.name}: round {number} of {scenario.rounds}, {side.name}")
                runs[side.name] = run(binaries, side)
    except (processes.Failed, subprocess.CalledProcessError, OSError, ValueError) as failure:
        # A server that has exited refuses connections or has printed nothing.
        measured["failures"].append(f"{scenario.name}: {failure or type(failure).__name__}")
    measured["seconds"] = round(time.monotonic() - began, 1)
    say(f"{scenario.name}: {measured['seconds']} s")
    return measured


def run(binaries: dict[str, Path], side: Side) -> dict:
    """Makes one run against a new server."""
    with server(binaries, side) as target:
        seconds_max = side.seconds + RUN_SECONDS_EXTRA
        result = processes.generate(
            binaries["sidewire"], target, side.command, side.arguments, seconds_max
        )
        return {"result": result, "counts": target.counts()}


def server(binaries: dict[str, Path], side: Side) -> AbstractContextManager:
    if side.target in ("relay", "relay over TLS"):
        return processes.relay(binaries["sidewire"], tls=side.target != "relay")
    return processes.floor(binaries["floor"], side.target)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
