"""Draws panels of the dashboard as one SVG, readable on light and on dark pages."""

import math
from html import escape

COLUMNS = 2
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 58, 30
COLOURS = 8

STYLE = """\
  .page { fill: #ffffff } text { fill: #1f2328; font: 11px system-ui, sans-serif }
  .title { font-size: 13px; font-weight: 600 } .grid { stroke: #d1d9e0; stroke-width: 1 }
  .line { fill: none; stroke-width: 1.5 } .area { stroke: none; fill-opacity: 0.25 }
  .c0 { stroke: #0969da } .c1 { stroke: #1a7f37 } .c2 { stroke: #9a6700 } .c3 { stroke: #cf222e }
  .c4 { stroke: #8250df } .c5 { stroke: #bf3989 } .c6 { stroke: #57606a } .c7 { stroke: #1b7c83 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d }
    .c0 { stroke: #58a6ff } .c1 { stroke: #3fb950 } .c2 { stroke: #d29922 } .c3 { stroke: #ff7b72 }
    .c4 { stroke: #bc8cff } .c5 { stroke: #f778ba } .c6 { stroke: #9198a1 } .c7 { stroke: #39c5cf }
  }"""

# The factor and the text of Grafana's units.
UNITS = {
    "short": (1, ""),
    "ops": (1, "/s"),
    "s": (1000, " ms"),
    "bytes": (1 / 2**20, " MiB"),
    "Bps": (1 / 1024, " KiB/s"),
}


def draw(panels: list[tuple[dict, list[dict]]]) -> str:
    """Returns the panels in a grid. The values of each series are pairs of seconds and value."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' aria-label="Panels of the dashboard during a test">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>',
    ]
    for number, (panel, series) in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *drawn(panel, series), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def drawn(panel: dict, series: list[dict]) -> list[str]:
    """Returns one panel. Of its series, only those with a value other than 0 are drawn, and no
    more than there are colours: those with the highest values."""
    factor, unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    highest = {id(one): max(value for _, value in one["values"]) for one in series}
    shown = [one for one in series if highest[id(one)] > 0]
    shown = sorted(shown, key=lambda one: -highest[id(one)])[:COLOURS]
    top = factor * max((highest[id(one)] for one in shown), default=1)
    duration = max(moment for one in series for moment, _ in one["values"])
    ticks = ticks_up_to(top)

    def across(moment: float) -> float:
        return LEFT + moment / duration * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - value / ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [text(12, 22, panel["title"], "start", "title")]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text(LEFT - 6, down(tick) + 4, f"{tick:,g}{unit}", "end"))
    for moment in range(0, int(duration) + 1, 10):
        parts.append(text(across(moment), HEIGHT - 10, f"{moment} s", "middle"))
    at = 12.0
    for number, one in enumerate(shown):
        name = one["name"] or "value"
        if at + 6.3 * len(name) + 20 < WIDTH:
            parts.append(f'<path class="line c{number}" d="M{at:.0f} 38h14"/>')
            parts.append(text(at + 18, 42, name, "start"))
        at += 6.3 * len(name) + 34
        places = [
            f"{across(moment):.1f} {down(factor * value):.1f}" for moment, value in one["values"]
        ]
        parts.append(f'<path class="line c{number}" d="M{"L".join(places)}"/>')
    return parts


def ticks_up_to(top: float) -> list[float]:
    """Returns up to six ticks from 0, the last of which is not below `top`."""
    power = 10.0 ** math.floor(math.log10(top))
    step = next(it for it in (power / 5, power / 2, power, 2 * power) if top / it <= 5)
    return [step * number for number in range(math.ceil(top / step) + 1)]


def text(x: float, y: float, content: str, anchor: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
