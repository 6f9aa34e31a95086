// The overview: rates, connections, latency, memory against its bounds, and what was dropped.

import { BarChart, LineChart } from "./charts.js";
import { make, table } from "./dom.js";
import { brief, bytes, count, duration, words } from "./text.js";

export const title = "Overview";

/** Seconds that the chart of rates spans. */
const CHART_SECONDS = 120;
/** Seconds over which the latency and the drops are counted. */
const RECENT_SECONDS = 60;

/** The samples of the last minutes, which outlive the view. */
export class History {
  constructor() {
    this.samples = [];
  }

  add(sample) {
    const newest = this.newest;
    // A restarted relay counts from 0.
    if (newest && (sample.at_ms <= newest.at_ms || sample.accepted_total < newest.accepted_total)) {
      this.samples = [];
    }
    this.samples.push(sample);
    this.samples = this.samples.filter((it) => sample.at_ms - it.at_ms <= (CHART_SECONDS + 5) * 1000);
  }

  get newest() {
    return this.samples.at(-1);
  }

  /**
   * Returns the oldest sample that is at most so many seconds older than the newest; if there is
   * none, as after a slow answer, the one before the newest; the newest if it is the only one.
   */
  before(seconds) {
    const newest = this.newest;
    const earlier = this.samples.slice(0, -1);
    return earlier.find((it) => newest.at_ms - it.at_ms <= seconds * 1000) ?? earlier.at(-1) ?? newest;
  }

  /** Returns the growth per second of what `read` returns, over the last seconds. */
  rate(read, seconds = 3) {
    const [old, newest] = [this.before(seconds), this.newest];
    const passed = (newest.at_ms - old.at_ms) / 1000;
    return passed > 0 ? (read(newest) - read(old)) / passed : 0;
  }

  /** Returns the rates between neighbours, as the points of a line. */
  rates(read) {
    return this.samples.slice(1).map((sample, index) => {
      const old = this.samples[index];
      const passed = (sample.at_ms - old.at_ms) / 1000;
      return { at: sample.at_ms, value: (read(sample) - read(old)) / passed };
    });
  }
}

const accepted = (sample) => sample.accepted_total + sample.client_events_total;
const delivered = (sample) => sample.written_total;

export function mount(view, { app }) {
  const tiles = new Map();
  const tile = (name, label) => {
    const value = make("span", null, "–");
    const note = make("small", null);
    tiles.set(name, (text, more = "") => {
      value.textContent = text;
      note.textContent = more;
    });
    return make("div.tile", null, make("dt", null, label), make("dd", null, value, note));
  };
  const acceptedChart = new LineChart("Events accepted per second, over the last two minutes", CHART_SECONDS, brief);
  const deliveredChart = new LineChart("Events delivered per second, over the last two minutes", CHART_SECONDS, brief);
  const latency = new BarChart("Delivery latency in the last minute", brief);
  const latencyNote = make("p.quiet", null);
  const memory = make("div", null);
  const memoryNote = make("p.quiet", null);
  const drops = make("div", null);

  view.append(
    make("div.head", null, make("h1", null, title), make("p", null, "What the relay does now.")),
    make("dl.tiles", null,
      tile("accepted", "Events in"), tile("delivered", "Deliveries"),
      tile("connections", "Connections"), tile("tenants", "Tenants"),
      tile("queued", "Waiting"), tile("cpu", "CPU")),
    make("div.grid", null,
      make("section.card", { "aria-labelledby": "accepted-title" },
        make("div.card-head", null, make("h2", { id: "accepted-title" }, "Events accepted"), make("p.quiet", null, "per second")),
        acceptedChart.element),
      make("section.card", { "aria-labelledby": "delivered-title" },
        make("div.card-head", null, make("h2", { id: "delivered-title" }, "Deliveries"), make("p.quiet", null, "per second, to all connections")),
        deliveredChart.element),
      make("section.card", { "aria-labelledby": "latency-title" },
        make("div.card-head", null, make("h2", { id: "latency-title" }, "Delivery latency"), latencyNote),
        latency.element),
      make("section.card", { "aria-labelledby": "memory-title" },
        make("div.card-head", null, make("h2", { id: "memory-title" }, "Memory"), memoryNote), memory)),
    make("section.card", { "aria-labelledby": "drops-title" },
      make("div.card-head", null, make("h2", { id: "drops-title" }, "Events not delivered"),
        make("p.quiet", null, "Counted once for each connection that they were meant for.")),
      drops),
  );

  const show = () => {
    const { history } = app;
    const now = history.newest;
    if (!now) {
      return;
    }
    const [acceptedNow, deliveredNow] = [history.rate(accepted), history.rate(delivered)];
    tiles.get("accepted")(`${brief(acceptedNow)}/s`, `${count(accepted(now))} in total`);
    tiles.get("delivered")(`${brief(deliveredNow)}/s`, `${bytes(history.rate((it) => it.bytes_written_total))}/s`);
    tiles.get("connections")(count(now.connections), `${count(now.subscriptions)} subscriptions`);
    tiles.get("tenants")(count(now.tenants), now.tenants_dormant ? `and ${count(now.tenants_dormant)} dormant` : "");
    tiles.get("queued")(count(now.queued), now.blocked ? `${count(now.blocked)} blocked connections` : "events in outboxes");
    tiles.get("cpu")(`${Math.round(history.rate((it) => it.cpu_seconds) * 100)} %`,
      now.resident_bytes ? `${bytes(now.resident_bytes)} resident` : "of one core");
    acceptedChart.show(history.rates(accepted));
    deliveredChart.show(history.rates(delivered));
    showLatency(history, latency, latencyNote);
    showMemory(now.memory, memory, memoryNote);
    showDrops(history, drops);
  };
  show();
  const stop = app.onSample(show);
  return () => {
    stop();
    for (const chart of [acceptedChart, deliveredChart, latency]) {
      chart.end();
    }
  };
}

function showLatency(history, chart, note) {
  const [old, now] = [history.before(RECENT_SECONDS).latency, history.newest.latency];
  const counts = now.counts.map((value, index) => value - old.counts[index]);
  const bound = (index) => now.bounds_ms[index];
  chart.show(counts.map((value, index) => {
    const label = index < now.bounds_ms.length ? duration(bound(index)) : "more";
    const range = index < now.bounds_ms.length ? `up to ${label}` : `more than ${duration(bound(index - 1))}`;
    return { label, value, title: `${count(value)} ${range}` };
  }));
  const total = counts.reduce((sum, value) => sum + value, 0);
  const within = (part) => {
    let sum = 0;
    const index = counts.findIndex((value) => (sum += value) >= total * part);
    return index < now.bounds_ms.length ? `≤ ${duration(bound(index))}` : `> ${duration(bound(index - 1))}`;
  };
  note.textContent = total
    ? `last minute: half ${within(0.5)}, 99 % ${within(0.99)}`
    : "none in the last minute";
}

function showMemory(now, element, note) {
  const held = now.uses.reduce((sum, it) => sum + it.count, 0);
  note.textContent = "held for clients and backends";
  const meter = (name, value, max) => make("div.meter", null,
    make("span", null, name), make("span", null, `${bytes(value)} of ${bytes(max)}`),
    make("progress", { max, value: Math.min(value, max), "aria-label": name }));
  const parts = now.uses.filter((it) => it.count > 0).sort((a, b) => b.count - a.count);
  const name = (it) => words(it.name).replace(/^./, (letter) => letter.toUpperCase());
  element.replaceChildren(
    make("div.meters", null, meter("All together", held, now.max), meter("Events in logs, for replay", now.log, now.log_max)),
    make("dl.others", null, ...parts.map((it) => make("div", null, make("dt", null, name(it)), make("dd", null, bytes(it.count))))));
}

const REASONS = {
  too_slow: "The connection was closed as too slow",
  closed: "The connection ended before",
  revoked: "The topic was taken away before catch-up was complete",
  catching_up: "The connection was catching up, or had yet to begin",
  outbox_full: "Client event: the outbox had no room",
  inbox_full: "Client event: the inbox of a shard had no room",
};

function showDrops(history, element) {
  const now = history.newest.dropped_total;
  const rows = now.map((it, index) => [
    REASONS[it.name] ?? words(it.name),
    count(it.count - history.before(RECENT_SECONDS).dropped_total[index].count),
    count(it.count),
  ]);
  const columns = [
    { title: "Reason" },
    { title: "Last minute", type: "number" },
    { title: "Since the start", type: "number" },
  ];
  element.replaceChildren(table(columns, rows, ""));
}
