"""What schemas and JSON cost: JSON clients beside binary ones, an event's JSON, the
start with a large schema. Its section of docs/performance.md is written by itself, and
stays when the rest of the page is measured again."""

import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import building
import figures
import measuring
import plan
from measuring import say

BEGIN, END = "<!-- schemas: begin -->", "<!-- schemas: end -->"

RENDER_CASE = "json/render_work_item_of_200_bytes"
RENDER_BUDGET_US = 15
IDLE_EXTRA_BUDGET_BYTES = 64
START_FILES, START_MESSAGES = 200, 2000
START_BUDGET_MS = 2000
START_ROUNDS = 5

INTRODUCTION = """\
## Schemas and JSON

Written by `scripts/bench --schemas` by the same method: the sides alternate for {rounds} rounds, and the figures are
medians with their quartiles. Measured {when} at commit {commit}.
"""


def measured(size: plan.Size) -> tuple[str, list[str]]:
    """Returns the section, and everything that invalidates it."""
    binaries = building.binaries(exact=True)
    delivery = next(it for it in plan.scenarios(size) if it.name == "json")
    idle = idle_scenario(size)
    results = {"json": measuring.measure(binaries, delivery), "idle": measuring.measure(binaries, idle)}
    failures = [failure for it in results.values() for failure in it["failures"]]
    for scenario in (delivery, idle):
        for runs in results[scenario.name]["rounds"]:
            for side, run in runs.items():
                failures += figures.faults(scenario, side, run["result"])
    failures += figures.unequal_frames({"scenarios": results})
    if failures:
        return "", failures
    lines = [
        delivery_line(results["json"]["rounds"], size),
        memory_line(results["idle"]["rounds"], size),
        render_line(),
        start_line(binaries["sidewire"]),
    ]
    machine = building.machine()
    introduction = INTRODUCTION.format(
        rounds=size.rounds,
        when=building.output_of("date", "-u", "+%Y-%m-%d %H:%M UTC"),
        commit=f"`{machine['commit']}`" + (" with changes" if machine["changed"] else ""),
    )
    header = "| what | budget | measured |\n| --- | --- | --- |\n"
    return introduction + "\n" + header + "".join(f"| {' | '.join(it)} |\n" for it in lines), []


def idle_scenario(size: plan.Size) -> plan.Scenario:
    settle = ("--settle", plan.duration(size.settle_seconds))
    arguments = ("--connections", str(size.idle), *settle)
    sides = tuple(
        plan.Side(name, "relay", "idle", (*arguments, *more), size.settle_seconds)
        for name, more in (("binary", ()), ("json", ("--encoding", "json")))
    )
    return plan.Scenario("idle", sides, size.idle_rounds, delivers=False)


def delivery_line(rounds: list[dict], size: plan.Size) -> list[str]:
    cost = {
        side: [runs[side]["result"]["server"]["cpu_us_per_delivery"] for runs in rounds]
        for side in ("binary", "json")
    }
    ratio = figures.spread([j / b for b, j in zip(cost["binary"], cost["json"])])
    sizes = [rounds[0][side]["result"]["received_bytes"] for side in ("binary", "json")]
    return [
        f"server CPU per delivery, full load, {size.subscribers:,} JSON clients of one topic, as a multiple of"
        f" binary clients with events of the same size ({sizes[1]} and {sizes[0]} bytes)",
        "1.2 ×",
        f"{ratio.median:.2f} × ({ratio.low:.2f}–{ratio.high:.2f});"
        f" {statistics.median(cost['json']):.3f} µs and {statistics.median(cost['binary']):.3f} µs",
    ]


def memory_line(rounds: list[dict], size: plan.Size) -> list[str]:
    each = {
        side: statistics.median(
            runs[side]["result"]["server"]["memory_bytes_per_connection"] for runs in rounds
        )
        for side in ("binary", "json")
    }
    return [
        f"memory of an idle JSON connection, of {size.idle:,}, over a binary one",
        f"{IDLE_EXTRA_BUDGET_BYTES} bytes more",
        f"{each['json'] - each['binary']:+.0f} bytes; {each['json']:,.0f} and {each['binary']:,.0f}",
    ]


def render_line() -> list[str]:
    """Returns the time to render an event's JSON, measured by criterion."""
    say("rendering")
    subprocess.run(
        ["cargo", "bench", "--locked", "-p", "sidewire", "--bench", "micro", "--", RENDER_CASE],
        cwd=building.ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    case = building.OUT.parent / "criterion" / RENDER_CASE.replace("/", "_") / "new/estimates.json"
    estimate = json.loads(case.read_text())["median"]
    low, high = (estimate["confidence_interval"][it] / 1000 for it in ("lower_bound", "upper_bound"))
    return [
        "making the JSON of a work item of 200 bytes",
        f"{RENDER_BUDGET_US} µs",
        f"{estimate['point_estimate'] / 1000:.1f} µs ({low:.1f}–{high:.1f})",
    ]


def start_line(sidewire: Path) -> list[str]:
    """Returns the time to compile a large schema at start, as printed by `sidewire check`."""
    say("starting")
    with tempfile.TemporaryDirectory() as directory:
        config = write_large_schema(Path(directory))
        command = [sidewire, "check", "--config", config]
        times = []
        for _ in range(START_ROUNDS):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = re.search(r"schema: ([\d,]+) messages, compiled in ([\d,]+) ms", done.stdout)
            times.append(int(found[2].replace(",", "")))
    return [
        f"start with a schema of {START_FILES} files and {START_MESSAGES:,} messages",
        f"{START_BUDGET_MS:,} ms",
        f"{statistics.median(times):,.0f} ms to compile {found[1]} messages",
    ]


def write_large_schema(directory: Path) -> Path:
    """Writes a schema whose envelope has one event of each of its files."""
    messages = START_MESSAGES // START_FILES
    for file in range(START_FILES):
        lines = ['syntax = "proto3";', f"package large.f{file};", 'import "sidewire/v1/options.proto";']
        if file:
            lines.append(f'import "f{file - 1}.proto";')
        for number in range(messages):
            below = f"M{number + 1} below = 3;" if number + 1 < messages else ""
            other = f"repeated large.f{file - 1}.M{number} others = 4;" if file and number else ""
            lines.append(
                f'message M{number} {{ string id = 1 [(sidewire.v1.topic) = "thing"];'
                f" string text = 2; {below} {other} }}"
            )
        (directory / f"f{file}.proto").write_text("\n".join(lines))
    (directory / "envelope.proto").write_text(envelope())
    config = directory / "sidewire.toml"
    config.write_text(
        'client.listen = "127.0.0.1:3000"\nauth.mode = "none"\n'
        'schema.files = ["envelope.proto"]\nschema.envelope = "large.Envelope"\n'
    )
    return config


def envelope() -> str:
    imports = "".join(f'import "f{file}.proto";\n' for file in range(START_FILES))
    events = "".join(f"large.f{it}.M0 event_{it} = {100 + it};\n" for it in range(START_FILES))
    return f"""\
syntax = "proto3";
package large;
import "sidewire/v1/relay.proto";
{imports}
message Envelope {{
string message_id = 1;
int64 timestamp = 8;
sidewire.v1.Position position = 9;
repeated string topics = 18;
oneof payload {{
sidewire.v1.Subscribe subscribe = 10;
sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
sidewire.v1.Unsubscribe unsubscribe = 12;
sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
sidewire.v1.Ping ping = 14;
sidewire.v1.Pong pong = 15;
sidewire.v1.ErrorResponse error = 16;
{events}}}
}}
"""


def section_of(page: str) -> str | None:
    """Returns the section in the page, including its markers."""
    found = re.search(f"{re.escape(BEGIN)}.*?{re.escape(END)}", page, re.DOTALL)
    return found[0] if found else None


def put(page: str, section: str) -> str:
    """Returns the page with the section in place of the old one, or at its end."""
    marked = f"{BEGIN}\n{section.strip()}\n{END}"
    old = section_of(page)
    return page.replace(old, marked) if old else f"{page.rstrip()}\n\n{marked}\n"
