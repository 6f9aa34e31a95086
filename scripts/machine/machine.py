"""A booted machine in a container, as seen from outside: commands that run in it, its
files, and its services. Knows nothing of the scenarios."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

# What a login of root has. Nothing else of this process's environment reaches the machine.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


# Stops a thread and keeps it stopped until it ends.
STOP_THREAD = """
import ctypes, os, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_ulong, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
thread = int(sys.argv[1])
for request in (SEIZE, INTERRUPT):
    if ptrace(request, thread, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(thread, WALL)
print("stopped", flush=True)
while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
    pass
"""


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

    def entered(self, *command):
        """Returns the command line that runs a command in the machine."""
        return ["nsenter", "--target", str(self.leader), "--all", "--", *command]

    def try_run(self, *command, seconds=90):
        """Runs a command in the machine, and returns what it printed and its status."""
        return subprocess.run(
            self.entered(*command),
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

    def shell(self, directory, commands, seconds=90):
        """Runs lines of a shell in the machine, of which every command must succeed, and returns what
        they printed."""
        return self.run("bash", "-euo", "pipefail", "-c", f"cd {directory}\n{commands}", seconds=seconds)

    @contextlib.contextmanager
    def started(self, directory, command):
        """Starts a command in the machine, and ends it after the block. Yields a function that returns
        the next line of its output."""
        # nsenter forks, so that ending it would not end the command.
        line = self.entered("setpriv", "--pdeathsig", "TERM", "sh", "-euc", f"cd {directory}\nexec {command}")
        with subprocess.Popen(
            line, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:

            def next_line(seconds=20.0):
                readable = select.select([process.stdout], [], [], seconds)[0]
                expect(readable, f"`{command}` prints nothing for {seconds:g} s")
                return process.stdout.readline()

            try:
                yield next_line
            finally:
                process.terminate()

    def on_terminal(self, command, shows, keys, seconds=20.0):
        """Runs a command on a terminal, types the keys when the screen shows a text, and waits
        until the command has succeeded."""
        pid, terminal = pty.fork()
        if pid == 0:
            line = self.entered("sh", "-euc", f"exec {command}")
            os.execvpe(line[0], line, ENVIRONMENT | {"TERM": "xterm"})
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        screen, end, typed = "", time.monotonic() + seconds, False
        try:
            while True:
                left = end - time.monotonic()
                if left < 0 or not select.select([terminal], [], [], left)[0]:
                    raise Failure(f"`{command}` has not ended after {seconds:g} s:\n{screen}")
                try:
                    screen += os.read(terminal, 65536).decode(errors="replace")
                except OSError:
                    break
                if not typed and shows in screen:
                    typed = True
                    os.write(terminal, keys.encode())
        except Failure:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(terminal)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        expect(typed, f"`{command}` does not show {shows!r}:\n{screen}")
        expect(status == 0, f"`{command}`: status {status}\n{screen}")

    def fails(self, *command, says):
        """Runs a command in the machine that must fail and say why."""
        ended = self.try_run(*command)
        line = " ".join(command)
        expect(ended.returncode != 0, f"`{line}` succeeds\n{ended.stdout}")
        expect(says in ended.stdout, f"`{line}` does not say {says!r}\n{ended.stdout}")

    @contextlib.contextmanager
    def stopped_thread(self, pid, name):
        """Stops the thread with this name of a process of the machine, like a debugger, until the
        block ends or the process does."""
        tasks = self.outer_process(pid) / "task"
        named = [task for task in tasks.iterdir() if (task / "comm").read_text() == f"{name}\n"]
        expect(len(named) == 1, f"{len(named)} threads of {pid} have the name {name}")
        command = [sys.executable, "-c", STOP_THREAD, named[0].name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopping:
            try:
                told = stopping.stdout.readline()
                expect(told == "stopped\n", f"the thread {name} cannot be stopped: {told}")
                yield
            finally:
                stopping.terminate()

    def outer_process(self, pid):
        """Returns where the kernel describes a process of the machine outside of it, where its
        threads have their other ids."""
        namespace = Path(f"/proc/{self.leader}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ids = re.search(r"^NSpid:(.*)$", (process / "status").read_text(), re.MULTILINE)
                inside = (process / "ns/pid").readlink() == namespace
                if inside and int(ids[1].split()[-1]) == pid:
                    return process
        raise Failure(f"the machine has no process {pid}")

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
