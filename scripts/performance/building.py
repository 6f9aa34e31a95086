"""Builds what is measured, and says on what machine it is measured."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench"


def binaries() -> dict[str, Path]:
    """The release builds, copied to where a build during the measurement does not
    change them.

    The floor is built first and by itself: with it cargo also makes a sidewire with
    the features that tests ask of the libraries, and that is not what users run.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    return {
        "floor": built("floor", "--bench", "floor"),
        "sidewire": built("sidewire", "--bin", "sidewire"),
    }


def built(name: str, *target: str) -> Path:
    command = ["cargo", "build", "--release", "--locked", "--message-format=json", *target]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    messages = map(json.loads, output.stdout.splitlines())
    [executable] = [
        message["executable"]
        for message in messages
        if message.get("executable") and message["target"]["name"] == name
    ]
    copy = OUT / name
    # A copy of another run may be in use; removing its name leaves it alone.
    copy.unlink(missing_ok=True)
    shutil.copy2(executable, copy)
    return copy


def machine() -> dict:
    """What somebody has to know who compares figures."""
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
