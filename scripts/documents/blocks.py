"""Shared by the checks of documents with commands: finds the fenced blocks of a document
in order, and runs the blocks of commands."""

import re
import subprocess
import tempfile
from dataclasses import dataclass

# Maximum time for one block, in seconds.
PATIENCE = 120


@dataclass
class Block:
    """A fenced block: the word after the fence, the text, and its span in the
    document."""

    language: str
    text: str
    span: tuple[int, int] = (0, 0)

    def name(self) -> str:
        """Returns the first line that describes the block."""
        lines = self.text.splitlines()
        telling = [it for it in lines if not re.match(r"mkdir |cd |cat >", it)]
        # A block that writes a file is named after the file.
        line = lines[0] if lines[0].startswith("cat >") else telling[0]
        return " ".join(line.split()[:4])[:60]


def of(text: str) -> list[Block]:
    """Returns the blocks of a document."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(it[1], it[2], it.span(2)) for it in found]


def commands(blocks: list[Block]):
    """Yields each block of commands with the output that the document shows right after
    it, which is empty if none is shown."""
    for block, following in zip(blocks, [*blocks[1:], Block("", "")]):
        if block.language == "sh":
            yield block, following.text if following.language == "text" else ""


def run(block: Block, directory, env) -> tuple[int, str]:
    """Returns the exit status of the commands and their output, including standard error.
    Their background processes keep running."""
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
        # The output of curl may end without a line break; a block never does.
        if printed and not printed.endswith("\n"):
            printed += "\n"
        return done.returncode, printed


def fault(block: Block, status: int, printed: str, shown: str) -> str | None:
    """Returns a description of a block's failure, else `None`."""
    if status != 0:
        return f"failed:\n{block.text}{printed}"
    if lasting(printed) != lasting(shown):
        return f"printed other output than the document shows:\n{block.text}{printed}"
    return None


def lasting(text: str) -> str:
    """Returns the text without ids, times, durations and ports, which differ between runs."""
    for pattern, name in [
        # Downloads of Go.
        (r"(?m)^go: .*\n(\t.*\n)*", ""),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
        (r"\b[0-9a-f]{32}\b", "<epoch>"),
        (r"\b1[0-9]{9}\b", "<time>"),
        (r"\b[0-9]+(\.[0-9]+)? ?(µs|ms|s)\b", "<duration>"),
        (r"127\.0\.0\.1:[0-9]+", "<address>"),
    ]:
        text = re.sub(pattern, name, text)
    return text
