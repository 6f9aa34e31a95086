"""What the checks of documents with commands share: the fenced blocks of a document in
their order, and how one of commands is run."""

import re
import subprocess
import tempfile
from dataclasses import dataclass

# How long one block may take, in seconds.
PATIENCE = 120


@dataclass
class Block:
    """A fenced block: the word behind the fence, what stands in it, and from where to
    where that is in the document."""

    language: str
    text: str
    span: tuple[int, int] = (0, 0)

    def name(self) -> str:
        """The first line that says what the block is about."""
        lines = self.text.splitlines()
        telling = [it for it in lines if not re.match(r"mkdir |cd |cat >", it)]
        # What writes a file is about the file.
        line = lines[0] if lines[0].startswith("cat >") else telling[0]
        return " ".join(line.split()[:4])[:60]


def of(text: str) -> list[Block]:
    """The blocks of a document."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(it[1], it[2], it.span(2)) for it in found]


def commands(blocks: list[Block]):
    """Each block of commands with the output that the document shows right behind it;
    the output is empty where none is shown."""
    for block, following in zip(blocks, [*blocks[1:], Block("", "")]):
        if block.language == "sh":
            yield block, following.text if following.language == "text" else ""


def run(block: Block, directory, env) -> tuple[int, str]:
    """The exit status of the commands, and what they print, to standard error too. What
    they leave in the background goes on."""
    with tempfile.TemporaryFile("w+") as output:
        try:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text], cwd=directory, env=env,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return 124, f"not done after {PATIENCE} s\n"
        output.seek(0)
        printed = output.read()
        # What curl prints may end without a line break; a block never does.
        if printed and not printed.endswith("\n"):
            printed += "\n"
        return done.returncode, printed


def fault(block: Block, status: int, printed: str, shown: str) -> str | None:
    """What is wrong with the outcome of a block; `None` where nothing is."""
    if status != 0:
        return f"failed:\n{block.text}{printed}"
    if lasting(printed) != lasting(shown):
        return f"printed something else than the document shows:\n{block.text}{printed}"
    return None


def lasting(text: str) -> str:
    """The text without what differs from run to run: ids, times, durations, ports."""
    for pattern, name in [
        # What Go downloads.
        (r"(?m)^go: .*\n(\t.*\n)*", ""),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
        (r"\b[0-9a-f]{32}\b", "<epoch>"),
        (r"\b1[0-9]{9}\b", "<time>"),
        (r"\b[0-9]+(\.[0-9]+)? ?(µs|ms|s)\b", "<duration>"),
        (r"127\.0\.0\.1:[0-9]+", "<address>"),
    ]:
        text = re.sub(pattern, name, text)
    return text
