"""Derives figures from the results: ratios with their quartiles, losses, runs with
the generator at its limit, system calls. Pure."""

import statistics
from dataclasses import asdict, dataclass

from plan import WHOLE, Row, Scenario, Size, rows, scenarios

GENERATOR_SHARE_MAX = 0.9

# If the relay beats the floor by more than this, the floor is wrong.
FLOOR_RATIO_MIN = 0.95

# Counts that must be 0 in every run, and figures that a run with deliveries must report.
FAULTS = [
    "lost",
    "duplicated",
    "reordered",
    "foreign",
    "refused",
    "disconnects",
    "connect_failures",
]
FAULTS_OF_DELIVERY = ["lost", "duplicated", "reordered"]


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of several figures."""

    low: float
    median: float
    high: float


def spread(figures: list[float]) -> Spread:
    if len(figures) == 1:
        return Spread(*(figures * 3))
    return Spread(*statistics.quantiles(figures, n=4, method="inclusive"))


@dataclass(frozen=True)
class Finding:
    """A line of the budget with its measurements."""

    row: Row
    # The value that the budget limits.
    value: Spread
    # The figures themselves: of the reference, if there is one, and of the measured
    # side.
    over: Spread | None
    of: Spread
    runs: int
    # Runs in which the generator was at its limit.
    marked: int

    @property
    def is_met(self) -> bool:
        return self.value.median <= self.row.budget

    @property
    def refutes_floor(self) -> bool:
        return self.row.tests_floor and self.value.median < FLOOR_RATIO_MIN


def size_of(results: dict) -> Size:
    return Size(**results["size"])


def is_whole(results: dict) -> bool:
    """Returns True for a whole measurement, which the document is about."""
    names = {it.name for it in scenarios(WHOLE)}
    return results["size"] == asdict(WHOLE) and set(results["scenarios"]) == names


def findings(results: dict) -> list[Finding]:
    """Returns a finding for each line of the budget that has measurements."""
    found = (
        finding(row, results["scenarios"].get(row.scenario, {}).get("rounds", []))
        for row in rows(size_of(results))
    )
    return [it for it in found if it]


def finding(row: Row, rounds: list[dict]) -> Finding | None:
    pairs = [pair for runs in rounds for pair in row.pairs(runs)]
    if not pairs:
        return None
    runs = [run for sides in rounds for run in sides.values()]
    overs, of = [over for over, _ in pairs if over], spread([of for _, of in pairs])
    return Finding(
        row,
        value=spread([of / over for over, of in pairs]) if overs else of,
        over=spread(overs) if overs else None,
        of=of,
        runs=len(runs),
        marked=sum(map(is_marked, runs)),
    )


def is_marked(run: dict) -> bool:
    share = (run["result"].get("generator") or {}).get("cpu_share")
    return share is not None and share > GENERATOR_SHARE_MAX


def failures(results: dict) -> list[str]:
    """Returns everything that invalidates the measurement."""
    found = []
    for scenario in scenarios(size_of(results)):
        measured = results["scenarios"].get(scenario.name)
        if measured:
            found += measured["failures"]
            for runs in measured["rounds"]:
                for side, run in runs.items():
                    found += faults(scenario, side, run["result"])
    found += unequal_frames(results)
    for it in findings(results):
        if it.refutes_floor and not results["short"]:
            found.append(
                f"{it.row.scenario}: the floor is wrong: the relay takes {it.value.median:.2f}"
                f" times as much ({it.row.text})"
            )
    return found


def unequal_frames(results: dict) -> list[str]:
    """Checks that JSON and binary events have the same size, or they cannot be compared."""
    for runs in results["scenarios"].get("json", {}).get("rounds", []):
        sizes = [run["result"]["received_bytes"] for run in runs.values()]
        if len(sizes) == 2 and abs(sizes[0] - sizes[1]) > 0.02 * max(sizes):
            return [f"json: the events of the two sides have {sizes[0]} and {sizes[1]} bytes"]
    return []


def faults(scenario: Scenario, side: str, result: dict) -> list[str]:
    """Returns the events that a run lost, duplicated or reordered, and missing figures."""
    found = [
        f"{scenario.name}, {side}: {result[name]:,} {name.replace('_', ' ')}"
        for name in FAULTS
        if result.get(name)
    ]
    if result.get("complaint"):
        found.append(f"{scenario.name}, {side}: the generator says: {result['complaint']}")
    if scenario.delivers:
        unknown = [name for name in FAULTS_OF_DELIVERY if result.get(name) is None]
        found += [f"{scenario.name}, {side}: {name} is not known" for name in unknown]
        if not result.get("deliveries"):
            found.append(f"{scenario.name}, {side}: nothing was delivered")
    return found


@dataclass(frozen=True)
class Calls:
    """System calls of one side on its clients' sockets, over all its runs."""

    scenario: str
    side: str
    writes_per_delivery: float | None
    frames_per_write: float | None
    reads_per_delivery: float | None


def calls(results: dict) -> list[Calls]:
    """Returns the calls of each side of each two-sided scenario with deliveries."""
    found = []
    for scenario in scenarios(size_of(results)):
        rounds = results["scenarios"].get(scenario.name, {}).get("rounds", [])
        if scenario.delivers and len(scenario.sides) == 2 and rounds:
            found += [calls_of(scenario.name, side.name, rounds) for side in scenario.sides]
    return found


def calls_of(scenario: str, side: str, rounds: list[dict]) -> Calls:
    counts = [runs[side]["counts"] for runs in rounds if side in runs]
    frames, writes, reads = (
        sum(it[name] for it in counts) if all(name in it for it in counts) else None
        for name in ("frames", "client_writes", "client_reads")
    )
    return Calls(
        scenario,
        side,
        writes_per_delivery=divided(writes, frames),
        frames_per_write=divided(frames, writes),
        reads_per_delivery=divided(reads, frames),
    )


def divided(count: int | None, by: int | None) -> float | None:
    return count / by if count is not None and by else None
