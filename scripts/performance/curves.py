"""The two plots: latency over load, and the cost of publishing over the number of
connections."""

import plots
from figures import size_of, spread
from plan import CURVE_CONNECTED, CURVE_RATES, growth_pairs
from plots import Line

GROWTH_BUDGET = 1.05


def latency(results: dict) -> str | None:
    """Plots p50 and p99 from the POST to the last client, by events per second."""
    rounds = rounds_of(results, "latency-curve")
    lines = [
        Line(f"{name} p{percent}", name, latency_points(rounds, name, percent), percent == 50)
        for name in ("floor", "relay")
        for percent in (50, 99)
    ]
    values = [value for line in lines for _, value in line.points]
    if not values:
        return None
    clients = size_of(results).subscribers
    return plots.plot(
        f"From the POST to the last of {clients:,} clients",
        plots.logarithmic("events a second", CURVE_RATES),
        plots.logarithmic("milliseconds", plots.one_two_five(min(values), max(values))),
        lines,
    )


def latency_points(rounds: list[dict], name: str, percent: int) -> list[tuple[float, float]]:
    """Returns the medians over the rounds, in milliseconds."""
    points = []
    for rate in CURVE_RATES:
        runs = [runs[side] for runs in rounds if (side := f"{name} {rate}/s") in runs]
        found = [(run["result"]["last_latency_us"] or {}).get(f"p{percent}") for run in runs]
        if micros := list(filter(None, found)):
            points.append((rate, spread(micros).median / 1000))
    return points


def growth(results: dict) -> str | None:
    """Plots the server CPU per event, by the number of connections."""
    points = growth_points(results)
    if not points:
        return None
    size = size_of(results)
    reference, most = dict(points)[size.growth_few], points[-1][0]
    budget = reference * GROWTH_BUDGET
    lines = [
        Line("relay", "relay", points),
        Line(
            f"budget: {GROWTH_BUDGET} × that with {size.growth_few:,}",
            "budget",
            [(size.growth_few, budget), (most, budget)],
            dashed=True,
            has_dots=False,
        ),
    ]
    return plots.plot(
        "Publishing an event that 100 clients get",
        plots.linear("clients connected", plots.from_zero(most)),
        plots.linear(
            "server CPU, µs per event", plots.from_zero(1.2 * max(it for _, it in points))
        ),
        lines,
    )


def growth_points(results: dict) -> list[tuple[float, float]]:
    """Returns the cost for each number of connections. Each was measured alternately with
    the same reference number in the same process, so it is drawn as the overall cost of
    the reference times their ratio."""
    size = size_of(results)
    pairs = [pair for runs in rounds_of(results, "growth") for pair in growth_pairs(runs)]
    if not pairs:
        return []
    reference = spread([few for few, _ in pairs]).median
    points = {size.growth_few: reference, size.growth_many: reference * growth_of(pairs)}
    for runs in rounds_of(results, "growth-curve"):
        for connected in CURVE_CONNECTED:
            side = f"{connected} connected"
            if side in runs:
                ratio = growth_of(growth_pairs({side: runs[side]}))
                above = connected > size.growth_few
                points[connected] = reference * ratio if above else reference / ratio
    return sorted(points.items())


def rounds_of(results: dict, scenario: str) -> list[dict]:
    return results["scenarios"].get(scenario, {}).get("rounds", [])


def growth_of(pairs: list[tuple[float, float]]) -> float:
    return spread([many / few for few, many in pairs]).median
