"""Formats the results of a measurement as tables for a terminal and as docs/performance.md."""

from pathlib import Path

import curves
import figures
import schemas
from figures import GENERATOR_SHARE_MAX, Calls, Finding, Spread
from plan import OUTSTANDING, PAYLOAD_BYTES

NAME = "performance.md"

METHOD = """\
# Performance

The cost of Sidewire, as a multiple of the minimum cost of any server. `scripts/bench` writes this page; nothing in it
is entered by hand, except for the section on schemas where it says so.

## What is compared

The speed of a machine drifts: the same work may take twice as long an hour later. So nothing is compared with a figure
of another day. Each run includes a **floor** ([benches/floor](../benches/floor/main.rs)): one thread with epoll,
sockets in a flat array, a handshake from a template, publishes as length-prefixed bytes (or as minimal HTTP/1.1), and,
for each client and wake-up, one `writev` of up to 64 pending frames. It checks no token, has no tenants, no schema, no
bounds and no log. It does what the kernel requires in any case.

- Floor and relay alternate: {rounds} pairs, each with {warm_up} s of warm-up and {seconds} s of measurement, each in a
  new process. The figure is the median of the {rounds} ratios, next to its quartiles.
- The server is pinned to one core, the load generator to another. The relay runs with its default configuration, except
  that it has one shard, as the floor has one thread.
- The generator is `sidewire bench`, with events of {payload} bytes, one connection that publishes, and no batches. At
  full load at most {outstanding} events are under way, that is, not yet received by all clients.
- Server CPU is the CPU time of all threads of the process between the end of the warm-up and the end of the run, as
  counted by the kernel, divided by the deliveries in that time. Latency is measured from writing the POST to reading
  the frame on the last client.
- If an event is lost, duplicated or out of order in any run, no page is written. None is written either if the relay
  beats the floor by more than 5 %, since the floor is then not a minimum.
- A run in which the generator used more than {share:.0%} of its core is marked: the generator was the limit, and the
  server was idle between its wake-ups.
"""

READING = """\
`×` is a multiple of the floor; for batches, of single events; and for publishing with many connections, of publishing
with few. Memory is an absolute figure: the growth of Pss from before the first connection until {settle} s after the
last, divided by the number of connections. It does not include the kernel's socket buffers.
"""

REPRODUCE = """\
## How to reproduce

```console
$ scripts/bench
```

This takes about {minutes} minutes after the build. It needs Rust, Python 3.11, two cores that nothing else uses, and
20,000 file descriptors per process. `--only latency` measures and prints a single scenario. `--short` is what CI runs:
it looks for losses and takes less than three minutes. The results of single runs are in `target/bench/results.json`,
and `scripts/bench --report target/bench/results.json` writes this page from them again.
"""


def write(results: dict, directory: Path) -> list[Path]:
    """Writes the page and its plots, and returns their paths."""
    plots = {
        "performance-latency.svg": curves.latency(results),
        "performance-growth.svg": curves.growth(results),
    }
    page_file = directory / NAME
    kept = schemas.section_of(page_file.read_text()) if page_file.exists() else None
    written = []
    whole = page(results, plots) + (f"\n{kept}\n" if kept else "")
    for name, content in {NAME: whole, **plots}.items():
        if content:
            (directory / name).write_text(content)
            written.append(directory / name)
    return written


def page(results: dict, plots: dict[str, str | None]) -> str:
    size = figures.size_of(results)
    seconds = sum(it["seconds"] for it in results["scenarios"].values())
    method = METHOD.format(
        rounds=size.rounds,
        warm_up=f"{size.warm_up_seconds:g}",
        seconds=f"{size.seconds:g}",
        payload=PAYLOAD_BYTES,
        outstanding=OUTSTANDING,
        share=GENERATOR_SHARE_MAX,
    )
    parts = [
        method,
        machine(results),
        "## The budget\n",
        table(BUDGET_HEADER, budget_lines(results)),
        READING.format(settle=f"{size.settle_seconds:g}"),
        "## System calls\n",
        "On client sockets, from the first connection to the last, including the warm-up and the subscriptions.\n",
        table(CALLS_HEADER, calls_lines(results)),
        *plot_parts(plots, size),
        REPRODUCE.format(minutes=round(seconds / 60)),
    ]
    return "\n".join(parts)


def machine(results: dict) -> str:
    it = results["machine"]
    commit = f"`{it['commit']}`" + (" with changes" if it["changed"] else "")
    lines = [
        ["processor", f"{it['cpu']}, {it['cores']} cores"],
        ["memory", f"{it['memory_gib']} GiB"],
        ["kernel", it["kernel"]],
        ["compiler", it["rustc"]],
        ["commit", commit],
        ["measured", results["when"]],
    ]
    return "## The machine\n\n" + table(["", ""], lines)


BUDGET_HEADER = [
    "what",
    "budget",
    "measured",
    "quartiles",
    "",
    "compared with",
    "Sidewire",
    "marked",
]


def budget_lines(results: dict) -> list[list[str]]:
    return [budget_line(it) for it in figures.findings(results)]


def budget_line(it: Finding) -> list[str]:
    sign = " ×" if it.over else f" {it.row.unit}"
    digits = 2 if it.over else 0
    return [
        it.row.text,
        f"{it.row.budget:,g}{sign}",
        f"{it.value.median:,.{digits}f}{sign}",
        f"{it.value.low:,.{digits}f}–{it.value.high:,.{digits}f}",
        "met" if it.is_met else "**not met**",
        with_unit(it.over, it.row.unit) if it.over else "",
        with_unit(it.of, it.row.unit),
        f"{it.marked} of {it.runs}" if it.marked else "",
    ]


def with_unit(it: Spread, unit: str) -> str:
    return f"{short(it.median)} {unit} ({short(it.low)}–{short(it.high)})"


def short(value: float) -> str:
    """Formats a value with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


CALLS_HEADER = ["scenario", "", "writes per delivery", "frames per write", "reads per delivery"]


def calls_lines(results: dict) -> list[list[str]]:
    return [calls_line(it) for it in figures.calls(results)]


def calls_line(it: Calls) -> list[str]:
    numbers = (it.writes_per_delivery, it.frames_per_write, it.reads_per_delivery)
    shown = ["–" if number is None else f"{number:.3f}" for number in numbers]
    return [it.scenario, it.side, *shown]


def plot_parts(plots: dict[str, str | None], size) -> list[str]:
    texts = {
        "performance-latency.svg": (
            "## Latency over load",
            f"{size.subscribers:,} subscribers of one topic; each point is the median of {size.curve_rounds} runs.",
        ),
        "performance-growth.svg": (
            "## Publishing over the number connected",
            "100 clients receive the event, and the others have topics of their own. Each number of connections was "
            f"measured alternately\nwith {size.growth_few:,} in the same process, and is drawn relative to that.",
        ),
    }
    return [
        f"{heading}\n\n{text}\n\n![{heading.removeprefix('## ')}]({name})\n"
        for name, (heading, text) in texts.items()
        if plots[name]
    ]


def table(header: list[str], lines: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def printed(results: dict) -> str:
    """Returns the tables for a terminal."""
    parts = [aligned(BUDGET_HEADER, budget_lines(results))]
    if calls := calls_lines(results):
        parts.append(aligned(CALLS_HEADER, calls))
    return "\n".join(parts)


def aligned(header: list[str], lines: list[list[str]]) -> str:
    lines = [[cell.replace("*", "") for cell in cells] for cells in [header, *lines]]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(header))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() + "\n"
        for cells in lines
    )
