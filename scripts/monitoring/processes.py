"""Starts processes and ends exactly these, and prints what a step has done."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path


@contextlib.contextmanager
def step(name: str):
    """Prints how long a step took and its result, which the caller appends to the list."""
    began = time.monotonic()
    result: list[str] = []
    try:
        yield result
    except CheckError as error:
        sys.exit(f"monitoring: {name}: {error}")
    print(
        f"monitoring: {name:<14} {time.monotonic() - began:5.1f} s  {'; '.join(result)}", flush=True
    )


class CheckError(Exception):
    """Something is not as it should be. The text says what, and where."""


def check(holds: object, message: str) -> None:
    if not holds:
        raise CheckError(message)


def wait_until(what: str, holds, seconds: float = 20):
    """Returns the first result of `holds` that is true. Fails after some seconds."""
    end = time.monotonic() + seconds
    while True:
        if result := holds():
            return result
        check(time.monotonic() < end, f"{what}: not after {seconds:g} s")
        time.sleep(0.05)


def run(*command: object, **options) -> str:
    """Runs a command and returns what it printed. Fails with its output."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        **options,
    )
    check(done.returncode == 0, f"{command[0]} failed:\n{done.stdout}")
    return done.stdout


def free_port() -> int:
    """Returns a port of the loopback address that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


class Processes:
    """The processes that were started. All of them are ended in the end."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.started: list[tuple[str, subprocess.Popen]] = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for _, process in reversed(self.started):
            end(process)
        if kind is not None:
            for name, _ in self.started:
                print(f"--- the last lines of {name}:\n{self.tail(name)}", file=sys.stderr)

    def start(self, name: str, *command: object) -> subprocess.Popen:
        """Starts a process. Its output goes to a file."""
        with open(self.directory / f"{name}.log", "ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
            )
        self.started.append((name, process))
        return process

    def tail(self, name: str, lines: int = 5) -> str:
        text = (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])


def end(process: subprocess.Popen) -> None:
    """Ends a process, as a service manager does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
