"""Builds the programs to measure, and describes the machine."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench"


def binaries(exact: bool) -> dict[str, Path]:
    """Returns the release builds, copied to a place where a build during the measurement
    does not change them.

    Building the floor also builds a sidewire, with the library features that tests need.
    Users do not run that one; if `exact`, sidewire is built again by itself.
    """
    found = built("--bench", "floor")
    if exact:
        found |= built("--bin", "sidewire")
    OUT.mkdir(parents=True, exist_ok=True)
    return {name: copied(name, found[name]) for name in ("floor", "sidewire")}


def built(*target: str) -> dict[str, Path]:
    """Returns the executables by the names of their targets."""
    command = ["cargo", "build", "--release", "--locked", "-p", "sidewire"]
    command += ["--message-format=json", *target]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    messages = map(json.loads, output.stdout.splitlines())
    return {
        message["target"]["name"]: Path(message["executable"])
        for message in messages
        if message.get("executable")
    }


def copied(name: str, executable: Path) -> Path:
    # Another run may be using the old copy; unlinking does not affect it.
    (OUT / name).unlink(missing_ok=True)
    return Path(shutil.copy2(executable, OUT / name))


def machine() -> dict:
    """Returns the facts about the machine that are needed to compare figures."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    memory_kib = int(Path("/proc/meminfo").read_text().split("MemTotal:", 1)[1].split()[0])
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 1024 / 1024, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": output_of("rustc", "--version"),
        "commit": output_of("git", "rev-parse", "--short=10", "HEAD"),
        "changed": bool(output_of("git", "status", "--porcelain", "--untracked-files=no")),
    }


def output_of(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()
