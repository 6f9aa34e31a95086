"""The plan of the measurement: the scenarios, and the budget for their figures. Nothing
is run here."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    """The size and the duration of the measurement."""

    subscribers: int
    selective: int
    connects: int
    idle: int
    settle_seconds: float
    idle_rounds: int
    growth_few: int
    growth_many: int
    growth_blocks: int
    growth_warm_up_seconds: float
    growth_block_seconds: float
    warm_up_seconds: float
    seconds: float
    rounds: int
    # For the curve of latency over load; 0 omits the curves.
    curve_rounds: int


WHOLE = Size(
    subscribers=1000,
    selective=5000,
    connects=1000,
    idle=18_000,
    settle_seconds=30,
    idle_rounds=3,
    growth_few=1000,
    growth_many=18_000,
    growth_blocks=15,
    growth_warm_up_seconds=0.3,
    growth_block_seconds=1,
    warm_up_seconds=2,
    seconds=5,
    rounds=7,
    curve_rounds=3,
)

# Enough to detect losses; the figures mean little.
SHORT = Size(
    subscribers=200,
    selective=500,
    connects=200,
    idle=1000,
    settle_seconds=1,
    idle_rounds=1,
    growth_few=200,
    growth_many=1000,
    growth_blocks=2,
    growth_warm_up_seconds=0.2,
    growth_block_seconds=0.3,
    warm_up_seconds=0.5,
    seconds=1,
    rounds=1,
    curve_rounds=0,
)

# At full load: events that some client has not received yet.
OUTSTANDING = 64
RATE = 50
PAYLOAD_BYTES = 200
PUBLISHERS = 64
BATCH = 100

# For the JSON scenario: payload sizes as posted, chosen so that the events of both sides
# have the same size on the wire (figures.py checks it).
JSON_PAYLOAD_BYTES = 200
JSON_BINARY_PAYLOAD_BYTES = 306

CURVE_RATES = [10, 25, 50, 100, 200, 400, 800]
CURVE_WARM_UP_SECONDS = 1
CURVE_SECONDS_MIN = 3
# So that there are at least a hundred events for the 99th percentile at the lowest rate.
CURVE_EVENTS_MIN = 100

CURVE_CONNECTED = [100, 5000, 10_000]
CURVE_BLOCKS = 3


@dataclass(frozen=True)
class Side:
    """One of the alternatives that a scenario compares."""

    name: str
    # "relay", "relay over TLS", or the floor by its ingest protocol: "raw" or "http".
    target: str
    # Command of the generator.
    command: str
    arguments: tuple[str, ...]
    # Expected duration of the run, without connecting.
    seconds: float


@dataclass(frozen=True)
class Scenario:
    """A comparison. Each round runs the sides one after another, each in its own process."""

    name: str
    sides: tuple[Side, ...]
    rounds: int
    # True if clients receive events.
    delivers: bool


def scenarios(size: Size) -> list[Scenario]:
    """Returns the scenarios in the order in which they are run."""
    many = str(size.subscribers)
    connects = ("--connections", str(size.connects), "--concurrency", "64")
    publishers = ("--publishers", str(PUBLISHERS))
    full = ("--outstanding", str(OUTSTANDING))
    found = [
        paired(size, "throughput", "raw", "--connections", many, "--topics", "1", *full),
        json(size, "--connections", many, "--topics", "1", *full),
        paired(size, "latency", "raw", "--connections", many, "--topics", "1", "--rate", str(RATE)),
        paired(size, "selective", "http", "--connections", str(size.selective), *full),
        paired(size, "connect", "raw", *connects, delivers=False),
        ingest(size, publishers),
        idle(size),
        growth(size),
    ]
    if size.curve_rounds:
        found += [latency_curve(size), growth_curve(size)]
    return found


def paired(size: Size, name: str, floor: str, *arguments: str, delivers: bool = True) -> Scenario:
    sides = (
        timed(size, "floor", floor, name, *arguments),
        timed(size, "relay", "relay", name, *arguments),
    )
    return Scenario(name, sides, size.rounds, delivers)


def json(size: Size, *arguments: str) -> Scenario:
    """Returns a comparison of binary and JSON clients at the same load."""
    sides = (
        timed(size, "binary", "relay", "throughput", *arguments, payload=JSON_BINARY_PAYLOAD_BYTES),
        timed(
            size, "json", "relay", "throughput", *arguments, "--encoding", "json",
            payload=JSON_PAYLOAD_BYTES,
        ),
    )
    return Scenario("json", sides, size.rounds, delivers=True)


def ingest(size: Size, publishers: tuple[str, ...]) -> Scenario:
    batches = ("--batch", str(BATCH))
    sides = (
        timed(size, "floor", "http", "ingest", *publishers),
        timed(size, "relay", "relay", "ingest", *publishers),
        timed(size, "relay, batches", "relay", "ingest", *publishers, *batches),
    )
    return Scenario("ingest", sides, size.rounds, delivers=False)


# Scenarios that TLS affects, with the figure that shows it.
TLS_FIGURES = {
    "throughput": "cpu_us_per_delivery",
    "latency": "cpu_us_per_delivery",
    "selective": "cpu_us_per_delivery",
    "connect": "cpu_us_per_connect",
}


def over_tls(scenario: Scenario) -> Scenario:
    """Returns the scenario with two alternating relays, one of which uses TLS."""
    plain = next(side for side in scenario.sides if side.target == "relay")
    encrypted = replace(plain, name="relay over TLS", target="relay over TLS")
    return replace(scenario, sides=(plain, encrypted))


def timed(
    size: Size,
    name: str,
    target: str,
    command: str,
    *arguments: str,
    payload: int = PAYLOAD_BYTES,
) -> Side:
    times = (size.warm_up_seconds, size.seconds)
    return side(name, target, command, *times, *arguments, payload=payload)


def side(
    name: str,
    target: str,
    command: str,
    warm_up: float,
    seconds: float,
    *arguments: str,
    payload: int = PAYLOAD_BYTES,
) -> Side:
    times = ("--warmup", duration(warm_up), "--duration", duration(seconds))
    payloads = ("--payload", str(payload)) if command != "connect" else ()
    return Side(name, target, command, (*arguments, *times, *payloads), warm_up + seconds)


def duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def idle(size: Size) -> Scenario:
    settle = ("--settle", duration(size.settle_seconds))
    arguments = ("--connections", str(size.idle), *settle)
    relay = Side("relay", "relay", "idle", arguments, size.settle_seconds)
    return Scenario("idle", (relay,), size.idle_rounds, delivers=False)


def growth(size: Size) -> Scenario:
    relay = growth_side(size, "relay", size.growth_few, size.growth_many, size.growth_blocks)
    return Scenario("growth", (relay,), 1, delivers=True)


def growth_side(size: Size, name: str, few: int, many: int, blocks: int) -> Side:
    numbers = ("--few", str(few), "--many", str(many), "--blocks", str(blocks))
    times = (size.growth_warm_up_seconds, size.growth_block_seconds)
    block = ("--warmup", duration(times[0]), "--duration", duration(times[1]))
    seconds = 2 * blocks * (sum(times) + many / 2000)
    return Side(name, "relay", "growth", (*numbers, *block), seconds)


def latency_curve(size: Size) -> Scenario:
    """Returns a side for each rate and target."""
    sides = []
    for rate in CURVE_RATES:
        seconds = max(CURVE_SECONDS_MIN, CURVE_EVENTS_MIN / rate)
        for name, target in ("floor", "raw"), ("relay", "relay"):
            arguments = ("--connections", str(size.subscribers), "--topics", "1")
            arguments += ("--rate", str(rate))
            label = f"{name} {rate}/s"
            times = (CURVE_WARM_UP_SECONDS, seconds)
            sides.append(side(label, target, "latency", *times, *arguments))
    return Scenario("latency-curve", tuple(sides), size.curve_rounds, delivers=True)


def growth_curve(size: Size) -> Scenario:
    """Returns a side for each number that the scenario `growth` lacks, alternating with
    1,000."""
    sides = []
    for connected in CURVE_CONNECTED:
        few, many = sorted((size.growth_few, connected))
        sides.append(growth_side(size, f"{connected} connected", few, many, CURVE_BLOCKS))
    return Scenario("growth-curve", tuple(sides), 1, delivers=True)


# Extracts a figure from the generator's report of a run.
Figure = Callable[[dict], float | None]
# The reference figure, if there is one, and the measured figure.
Pair = tuple[float | None, float]


@dataclass(frozen=True)
class Row:
    """A line of the budget."""

    scenario: str
    text: str
    unit: str
    # Upper bound of the figures, or of the ratios if there is a reference.
    budget: float
    # Extracts the figures from the runs of one round, by side.
    pairs: Callable[[dict[str, dict]], list[Pair]]
    # True if the figure is the ratio of CPU time to the floor's. If it is less than 1, the
    # floor is wrong.
    tests_floor: bool = False


def rows(size: Size) -> list[Row]:
    """Returns the budget, in the order of the table."""
    subscribers, selective = f"{size.subscribers:,}", f"{size.selective:,}"
    few, many, idle = f"{size.growth_few:,}", f"{size.growth_many:,}", f"{size.idle:,}"
    texts = {
        "throughput": f"server CPU per delivery, full load, {subscribers} subscribers of one topic",
        "json": "the same to JSON clients, over binary clients with events of the same size on the wire",
        "latency": f"the same at {RATE} events/s",
        "last": f"p99 from the POST to the last of {subscribers} clients, at {RATE} events/s",
        "selective": f"server CPU per delivery, {selective} connections with a topic each, HTTP ingest",
        "growth": f"server CPU per event with 100 matching, {many} connected over {few}",
        "idle": f"memory per idle connection with one subscription, of {idle}",
        "connect": "server CPU to connect, verify HS256, subscribe and confirm",
        "ingest": f"server CPU per event posted alone on {PUBLISHERS} connections, no subscriber",
        "batches": f"server CPU per event in batches of {BATCH}, over one posted alone",
    }
    delivery, event = over_floor(server("cpu_us_per_delivery")), server("cpu_us_per_event")
    connect, memory = server("cpu_us_per_connect"), server("memory_bytes_per_connection")
    batches = quotient(event, "relay, batches", "relay")
    return [
        Row("throughput", texts["throughput"], "µs", 1.2, delivery, tests_floor=True),
        Row("json", texts["json"], "µs", 1.2, quotient(server("cpu_us_per_delivery"), "json", "binary")),
        Row("latency", texts["latency"], "µs", 1.2, delivery, tests_floor=True),
        Row("latency", texts["last"], "µs", 1.5, over_floor(last_p99)),
        Row("selective", texts["selective"], "µs", 1.5, delivery, tests_floor=True),
        Row("growth", texts["growth"], "µs", 1.05, growth_pairs),
        Row("idle", texts["idle"], "bytes", 4096, alone(memory)),
        Row("connect", texts["connect"], "µs", 4, over_floor(connect), tests_floor=True),
        Row("ingest", texts["ingest"], "µs", 2.5, over_floor(event), tests_floor=True),
        Row("ingest", texts["batches"], "µs", 0.25, batches),
    ]


def server(name: str) -> Figure:
    return lambda result: (result.get("server") or {}).get(name)


def last_p99(result: dict) -> float | None:
    return (result.get("last_latency_us") or {}).get("p99")


def over_floor(figure: Figure) -> Callable[[dict], list[Pair]]:
    return quotient(figure, "relay", "floor")


def quotient(figure: Figure, of: str, over: str) -> Callable[[dict], list[Pair]]:
    def pairs(runs: dict) -> list[Pair]:
        if of not in runs or over not in runs:
            return []
        found = (figure(runs[over]["result"]), figure(runs[of]["result"]))
        return [found] if all(found) else []

    return pairs


def alone(figure: Figure) -> Callable[[dict], list[Pair]]:
    def pairs(runs: dict) -> list[Pair]:
        found = [figure(run["result"]) for run in runs.values()]
        return [(None, it) for it in found if it is not None]

    return pairs


def growth_pairs(runs: dict) -> list[Pair]:
    """Returns each block with few connections, with the alternating block with many."""
    pairs = []
    for run in runs.values():
        blocks = run["result"]["blocks"]
        numbers = sorted({it["connections"] for it in blocks})
        few, many = (
            [it["cpu_us_per_event"] for it in blocks if it["connections"] == number]
            for number in numbers
        )
        pairs += zip(few, many)
    return pairs
