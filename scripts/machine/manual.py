"""The commands of docs/operations.md, as they stand there. Some are part of other scenarios, and
`follow_manual` runs the rest."""

import asyncio
import json
import re
from pathlib import Path

from load import TENANT, event
from machine import expect, wait_until
from packaged import CONFIG, SERVICE, with_unix_sockets

PAGE = Path(__file__).resolve().parents[2] / "docs/operations.md"
DIRECTORY = "/root/manual"
INGEST_KEYS = '[[ingest.keys]]\nname = "backend"\nkey_file = "keys/ingest.key"\n'


# Languages of the page's other blocks.
NO_COMMANDS = {"ini", "text", "toml", "yaml"}


class Manual:
    """The blocks of commands, and which of them nobody has asked for."""

    def __init__(self):
        text = PAGE.read_text(encoding="utf-8")
        languages = set(re.findall(r"^[ \t]*```(\w+)", text, re.MULTILINE))
        unknown = languages - NO_COMMANDS - {"sh", "console"}
        expect(not unknown, f"{PAGE} has blocks in {unknown}: are they commands?")
        indented = re.search(r"^[ \t]+```(sh|console)", text, re.MULTILINE)
        expect(not indented, f"{PAGE} has an indented block of commands")
        self.blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        self.left = list(self.blocks)

    def block(self, part):
        """Returns the block that contains this text."""
        found = [block for block in self.blocks if part in block]
        expect(len(found) == 1, f"{PAGE} has {len(found)} blocks with `{part}`")
        self.left = [block for block in self.left if block != found[0]]
        return found[0]


def follow_manual(operator, manual):
    """Every command does what the text around it says."""
    machine = operator.machine
    machine.write(f"{DIRECTORY}/event.json", json.dumps(event("")))
    machine.write(f"{DIRECTORY}/privkey.pem", "the private key\n", mode=0o600)
    first_steps(operator, manual)
    secrets(operator, manual)
    unix_sockets(operator, manual)
    question = manual.block("/readyz").removeprefix("$ ")
    command, _, answer = question.partition("\n")
    expect(machine.shell(DIRECTORY, command).strip() == answer.strip(), f"{command}: not {answer}")
    machine.remove(DIRECTORY)
    return f"{len(manual.blocks)} blocks"


def first_steps(operator, manual):
    """A client follows a topic, an event reaches it, and the operator's tools show it."""
    machine = operator.machine
    token, tail, publish = manual.block("sidewire tail").splitlines()
    machine.shell(DIRECTORY, token)
    with machine.started(DIRECTORY, tail) as next_line:
        wait_until(lambda: operator.metric("sidewire_subscriptions") > 0, "the client subscribes")
        machine.shell(DIRECTORY, publish)
        received = next_line()
        expect("workItemCreated" in received, f"`{tail}` prints {received}")
        top, listing = manual.block("sidewire top").splitlines()
        listed = machine.shell(DIRECTORY, listing)
        expect(re.search(r"\bann\b", listed), f"`{listing}` prints\n{listed}")
        machine.on_terminal(top, shows=TENANT, keys="q")


def secrets(operator, manual):
    """Secrets are made and installed so that the service can read them, and a reload applies
    them."""
    machine = operator.machine
    packaged = machine.read(CONFIG)
    entry = '\n[[auth.keys]]\nsecret_file = "keys/next.secret"\nalgorithm = "HS256"\n'
    operator.configure(packaged + entry)
    machine.shell(DIRECTORY, manual.block("sidewire keys"))
    with operator.reloading():
        machine.shell(DIRECTORY, manual.block("sidewire check"))
    token = operator.token("ann", secret_file="/etc/sidewire/keys/next.secret")
    expect(asyncio.run(operator.handshake(token)) == 101, "the new secret does not count")
    operator.configure(packaged)
    with operator.reloading():
        machine.shell(DIRECTORY, manual.block("install -m"))
    for name in ("next.secret", "tls.key"):
        path = f"/etc/sidewire/keys/{name}"
        listed = machine.run("stat", "--format=%a %U:%G", path).strip()
        expect(listed == "640 root:sidewire", f"{path} is {listed}")
        machine.remove(path)
    machine.shell(DIRECTORY, manual.block("openssl rand"))
    listed = machine.run("stat", "--format=%a %s", f"{DIRECTORY}/jwt.secret").strip()
    expect(listed == "600 64", f"the secret is {listed}")


def unix_sockets(operator, manual):
    """Whoever can connect to the sockets needs no key."""
    machine = operator.machine
    packaged = machine.read(CONFIG)
    expect(INGEST_KEYS in packaged, f"{CONFIG} has no key of a backend")
    operator.configure(with_unix_sockets(packaged).replace(INGEST_KEYS, ""))
    machine.systemctl("restart", SERVICE)
    printed = machine.shell(DIRECTORY, manual.block("--unix-socket"))
    expect(printed.count('"duplicate":false') == 2, f"two events are not stored:\n{printed}")
    expect("\nsidewire_connections " in printed, f"there are no metrics:\n{printed}")
    operator.configure(packaged)
    machine.systemctl("restart", SERVICE)
    wait_until(operator.is_ready, "the relay is ready")
