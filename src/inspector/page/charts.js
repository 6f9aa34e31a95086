// Charts as SVG, drawn again with every sample.

import { makeSvg } from "./dom.js";

const HEIGHT = 180;
const LEFT = 44;
const BOTTOM = 22;
const TOP = 8;

/** Returns a round number at or above the value, whose half is round too: 2, 4, 6, 8, 10, 20, … */
function roundUp(value) {
  const size = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 3, 4, 6, 8, 10].map((step) => step * size).find((step) => step >= value) ?? 10 * size;
}

class Chart {
  constructor(label) {
    this.element = makeSvg("svg", { class: "chart", role: "img", "aria-label": label });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.element);
  }

  get width() {
    return Math.max(this.element.clientWidth, 200);
  }

  end() {
    this.resized.disconnect();
  }

  /** Draws the horizontal rules with their values, and returns the height for a value. */
  drawScale(top, format) {
    const bottom = HEIGHT - BOTTOM;
    const y = (value) => bottom - (value / top) * (bottom - TOP);
    this.element.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const rules = [0, 0.5, 1].flatMap((part) => {
      const at = Math.round(y(part * top)) + 0.5;
      return [
        makeSvg("line", { class: "rule", x1: LEFT, x2: this.width, y1: at, y2: at }),
        makeSvg("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, format(part * top)),
      ];
    });
    this.element.replaceChildren(...rules);
    return y;
  }

  label(text, x, anchor = "middle") {
    this.element.append(makeSvg("text", { x, y: HEIGHT - 4, "text-anchor": anchor }, text));
  }
}

/** A line over the last seconds; the newest value is on the right. */
export class LineChart extends Chart {
  /**
   * @param {string} label
   * @param {number} seconds the time that the chart spans
   * @param {(value: number) => string} format
   */
  constructor(label, seconds, format) {
    super(label);
    this.seconds = seconds;
    this.format = format;
    this.line = [];
  }

  /** Shows a list of {at, value}, with `at` in ms. */
  show(line) {
    this.line = line;
    this.draw();
  }

  draw() {
    const newest = this.line.at(-1)?.at ?? 0;
    const shown = this.line.filter((point) => newest - point.at <= this.seconds * 1000);
    const y = this.drawScale(roundUp(Math.max(...shown.map((point) => point.value), 1)), this.format);
    const x = (at) => this.width - ((newest - at) / 1000 / this.seconds) * (this.width - LEFT);
    const points = shown.map((point) => `${x(point.at).toFixed(1)},${y(point.value).toFixed(1)}`);
    if (points.length > 1) {
      const area = `${x(shown[0].at).toFixed(1)},${y(0)} ${points.join(" ")} ${this.width},${y(0)}`;
      this.element.append(
        makeSvg("polygon", { class: "area", points: area }),
        makeSvg("polyline", { class: "line", points: points.join(" ") }));
    }
    this.label(`${this.seconds / 60} min ago`, LEFT, "start");
    this.label("now", this.width, "end");
  }
}

/** One bar for each bucket of a histogram. */
export class BarChart extends Chart {
  constructor(label, format) {
    super(label);
    this.format = format;
    this.bars = [];
  }

  /** Shows bars: each {label, value, title}. */
  show(bars) {
    this.bars = bars;
    this.draw();
  }

  draw() {
    const y = this.drawScale(roundUp(Math.max(...this.bars.map((bar) => bar.value), 1)), this.format);
    const step = (this.width - LEFT) / Math.max(this.bars.length, 1);
    const every = Math.ceil(52 / step);
    this.bars.forEach((bar, index) => {
      const left = LEFT + index * step;
      // An empty bucket keeps a line, so that the scale can be read.
      const height = bar.value > 0 ? Math.max(y(0) - y(bar.value), 2) : 1;
      this.element.append(makeSvg("rect", {
        class: bar.value > 0 ? "bar-mark" : "bar-mark empty",
        x: (left + 2).toFixed(1),
        y: (y(0) - height).toFixed(1),
        width: Math.max(step - 4, 1).toFixed(1),
        height: height.toFixed(1),
        rx: 1.5,
      }, makeSvg("title", null, bar.title)));
      if (index % every === 0) {
        this.label(bar.label, left + step / 2);
      }
    });
  }
}
