"""A booted machine in a container, as seen from outside: commands that run in it, its
files, and its services. Knows nothing of the scenarios."""

import os
import shutil
import subprocess
import time
from pathlib import Path

# What a login of root has. Nothing else of this process's environment reaches the machine.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class Failure(Exception):
    """A scenario found something else than it expects."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def wait_until(condition, what, seconds=20.0):
    """Waits until the condition returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise Failure(f"after {seconds:g} s still not: {what}")
        time.sleep(0.05)


class Machine:
    """The machine whose first process has the id `leader` outside."""

    def __init__(self, leader):
        self.leader = leader

    def try_run(self, *command, seconds=90):
        """Runs a command in the machine, and returns what it printed and its status."""
        entered = ["nsenter", "--target", str(self.leader), "--all", "--", *command]
        return subprocess.run(
            entered,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def run(self, *command, seconds=90):
        """Runs a command in the machine that must succeed, and returns what it printed."""
        ended = self.try_run(*command, seconds=seconds)
        line = " ".join(command)
        expect(ended.returncode == 0, f"`{line}`: status {ended.returncode}\n{ended.stdout}")
        return ended.stdout

    def fails(self, *command, says):
        """Runs a command in the machine that must fail and say why."""
        ended = self.try_run(*command)
        line = " ".join(command)
        expect(ended.returncode != 0, f"`{line}` succeeds\n{ended.stdout}")
        expect(says in ended.stdout, f"`{line}` does not say {says!r}\n{ended.stdout}")

    def path(self, path):
        """Returns where a file of the machine is for this process."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def read(self, path):
        return self.path(path).read_text(encoding="utf-8")

    def write(self, path, text, mode=0o644, group=None):
        """Writes a file, which nobody sees half-written or with another mode."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        draft.write_text(text, encoding="utf-8")
        if group is not None:
            os.chown(draft, 0, group)
        draft.chmod(mode)
        draft.rename(target)

    def remove(self, path):
        target = self.path(path)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def systemctl(self, *arguments, seconds=90):
        return self.run("systemctl", "--no-pager", *arguments, seconds=seconds)

    def shown(self, unit, name):
        """Returns a property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    def drop_in(self, unit, text):
        """Adds lines to a unit, instead of those that were added before."""
        self.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def remove_drop_in(self, unit):
        self.remove(f"/etc/systemd/system/{unit}.d")
        self.systemctl("daemon-reload")
