"""Writes plots as SVG: a few lines over two axes, readable on light and on dark
pages."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 72, 62

STYLE = """\
  .page { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, sans-serif }
  .title { font-size: 15px; font-weight: 600 } .grid { stroke: #d1d9e0; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 } .dashed { stroke-dasharray: 6 4 }
  .relay { stroke: #0969da } .floor { stroke: #9a6700 } .budget { stroke: #cf222e }
  .dot { stroke: none } .relay.dot { fill: #0969da } .floor.dot { fill: #9a6700 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d }
    .relay { stroke: #58a6ff } .floor { stroke: #e3b341 } .budget { stroke: #ff7b72 }
    .relay.dot { fill: #58a6ff } .floor.dot { fill: #e3b341 }
  }"""


@dataclass(frozen=True)
class Axis:
    """Maps values to positions between 0 and 1, and lists the labelled values."""

    label: str
    ticks: list[float]
    place: Callable[[float], float]
    text: Callable[[float], str] = lambda value: f"{value:,g}"


@dataclass(frozen=True)
class Line:
    label: str
    # CSS class of the line.
    kind: str
    points: list[tuple[float, float]]
    dashed: bool = False
    has_dots: bool = True


def linear(label: str, ticks: list[float]) -> Axis:
    """Returns a linear axis from the first tick to the last."""
    first, last = ticks[0], ticks[-1]
    return Axis(label, ticks, lambda value: (value - first) / (last - first))


def logarithmic(label: str, ticks: list[float], text=None) -> Axis:
    first, last = math.log(ticks[0]), math.log(ticks[-1])
    options = {"text": text} if text else {}
    return Axis(label, ticks, lambda value: (math.log(value) - first) / (last - first), **options)


def one_two_five(low: float, high: float) -> list[float]:
    """Returns the ticks 1, 2, 5, 10, … from the last one not above `low` to the first one
    not below `high`."""
    steps = [step * 10.0**power for power in range(-3, 10) for step in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    return steps[first : max(last, first + 1) + 1]


def from_zero(high: float) -> list[float]:
    """Returns four to eight ticks from 0, the last of which is not below `high`."""
    step = next(it for it in one_two_five(high / 1000, high) if high / it <= 7)
    return [round(step * number, 6) for number in range(math.ceil(high / step) + 1)]


def plot(title: str, x: Axis, y: Axis, lines: list[Line]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        text(LEFT, 26, title, "start", "title"),
        *axes(x, y),
        *legend(lines),
    ]
    for line in lines:
        parts += drawn(line, x, y)
    return "\n".join([*parts, "</svg>", ""])


def axes(x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y.ticks:
        at = down(y, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(text(LEFT - 8, at + 4, y.text(tick), "end"))
    for tick in x.ticks:
        at = across(x, tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        parts.append(text(at, bottom + 20, x.text(tick), "middle"))
    parts.append(text((LEFT + right) / 2, HEIGHT - 14, x.label, "middle"))
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return parts


def legend(lines: list[Line]) -> list[str]:
    parts, at = [], LEFT
    for line in lines:
        parts.append(f'<path class="{classes(line)}" d="M{at} 48h26"/>')
        parts.append(text(at + 32, 52, line.label, "start"))
        at += 52 + 7 * len(line.label)
    return parts


def drawn(line: Line, x: Axis, y: Axis) -> list[str]:
    places = [(across(x, it[0]), down(y, it[1])) for it in line.points]
    path = "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
    parts = [f'<path class="{classes(line)}" d="M{path}"/>']
    if line.has_dots:
        parts += [
            f'<circle class="{line.kind} dot" cx="{left:.1f}" cy="{top:.1f}" r="3.5"/>'
            for left, top in places
        ]
    return parts


def classes(line: Line) -> str:
    return f"line {line.kind}" + (" dashed" if line.dashed else "")


def text(x: float, y: float, content: str, anchor: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def across(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def down(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
