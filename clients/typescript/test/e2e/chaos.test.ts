/**
 * Clients of both encodings and over all transports, while connections are cut, refused and held up,
 * WebSockets and streams are blocked, the relay restarts, and its log is too short: no event may be lost
 * without a gap, doubled, or out of order.
 *
 * SIDEWIRE_CLIENT_CHAOS_SECONDS says how long it lasts, and SIDEWIRE_CLIENT_CHAOS_SEED repeats a run.
 */

import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import { type Position, Sidewire, type SidewireOptions } from "../../src/index.js";
import { protobuf } from "../../src/protobuf.js";
import { Publisher } from "../../src/publisher.js";
import type { Subscription } from "../../src/subscription.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { Random } from "../support/random.js";
import { TestRelay } from "../support/relay.js";
import { until } from "../support/wait.js";
import { WebSocket } from "../support/web_socket.js";

const SECONDS = Number(process.env.SIDEWIRE_CLIENT_CHAOS_SECONDS ?? 6);
const SEED = Number(process.env.SIDEWIRE_CLIENT_CHAOS_SEED ?? Date.now() % 1_000_000);
const TOPICS = ["order:1", "order:2", "order:3", "order:4", "order:5"];
/** So few events are kept that some absences are too long. */
const WINDOW = 400;

const counts = {
  events: 0,
  gaps: 0,
  disconnects: 0,
  restarts: 0,
  resumedFromSince: 0,
  replaced: 0,
  eventsOverSse: 0,
  eventsOverPoll: 0,
  movedToWebSocket: 0,
};

/** What a proxy blocks, so that the transports that are named pass. */
const BLOCKS = {
  all: undefined,
  sse: /^upgrade: websocket/im,
  poll: /^upgrade: websocket|^GET \/sse/im,
} as const;
type Passing = keyof typeof BLOCKS;

/** Returns the cases that have to occur and did not. */
function casesMissing(): string[] {
  const missing = Object.entries(counts).filter(([, count]) => count === 0);
  return missing.map(([name]) => name).filter((name) => name !== "replaced");
}

/** The page of a browser, which tells that the network is back. */
const page = new EventTarget();

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Checks one subscription. Every event of a topic has the next number of that topic. */
class Ledger {
  readonly topics: readonly string[];
  readonly last: Map<string, number>;
  /** The topics of which events may be missing since the last gap. */
  mayMiss: Set<string>;
  #position: Position | undefined;
  readonly faults: string[] = [];

  constructor(topics: readonly string[], earlier?: Ledger) {
    this.topics = topics;
    this.last = new Map(earlier?.last);
    this.mayMiss = new Set(earlier?.mayMiss ?? topics);
  }

  lastOf(topic: string): number | undefined {
    return this.last.get(topic);
  }

  gap(): void {
    counts.gaps += 1;
    this.mayMiss = new Set(this.topics);
  }

  event(type: string, position: Position | undefined): void {
    counts.events += 1;
    const [topic = "", text] = type.split("#");
    if (position === undefined) this.faults.push(`${type} has no position`);
    else if (this.#position !== undefined && this.#position.epoch === position.epoch) {
      const isLater = Number(position.offset) > Number(this.#position.offset);
      if (!isLater) this.faults.push(`${type} comes after ${this.#position.offset}`);
    }
    this.#position = position;
    // Events of the client's other subscriptions come too.
    if (!this.topics.includes(topic)) return;
    const number = Number(text);
    const last = this.last.get(topic);
    this.last.set(topic, number);
    const mayMiss = this.mayMiss.delete(topic);
    if (last !== undefined && number <= last) this.faults.push(`${type} after #${last}`);
    if (!mayMiss && number !== (last ?? 0) + 1) this.faults.push(`${type} follows #${last}`);
  }
}

interface Followed {
  readonly ledger: Ledger;
  readonly subscription: Subscription<Record<string, unknown>>;
}

/** A client with its own proxy and some subscriptions. */
class Follower {
  readonly proxy: FaultyProxy;
  readonly #relay: Sidewire;
  readonly #random: Random;
  readonly followed: Followed[] = [];
  readonly ended: Ledger[] = [];

  readonly #passing: Passing;
  #isBlocked = true;

  /** `passing` says what passes through the proxy. Unless this is `all`, it changes. */
  constructor(
    server: TestRelay,
    proxy: FaultyProxy,
    random: Random,
    passing: Passing,
    options: SidewireOptions,
  ) {
    this.proxy = proxy;
    this.#random = random;
    this.#passing = passing;
    proxy.block(BLOCKS[passing]);
    this.#relay = new Sidewire(`ws://127.0.0.1:${proxy.port}/ws`, {
      getToken: () => server.token("ann"),
      WebSocket,
      logger: { debug: () => {}, warn: console.warn, error: console.error },
      ...options,
    });
    let transport: string | undefined;
    this.#relay.on("state", (state) => {
      if (state.name === "resuming" || state.name === "open") {
        if (transport !== "websocket" && state.transport === "websocket") {
          counts.movedToWebSocket += transport === undefined ? 0 : 1;
        }
        transport = state.transport;
      }
      if (state.name !== "waiting") return;
      counts.disconnects += 1;
      if (state.reason.code === "REPLACED") counts.replaced += 1;
    });
    for (let left = 3; left > 0; left -= 1) this.#subscribe([this.#topic(), this.#topic()]);
  }

  /** Ends a subscription, and begins it again where it was, or another one from now on. */
  change(): void {
    const at = this.#random.below(this.followed.length);
    const [old] = this.followed.splice(at, 1);
    if (old === undefined) return;
    const since = old.subscription.position;
    old.subscription.unsubscribe();
    if (since !== undefined && this.#random.below(2) === 0) {
      counts.resumedFromSince += 1;
      this.#subscribe(old.ledger.topics, since, old.ledger);
    } else {
      this.#subscribe([this.#topic()]);
    }
    this.ended.push(old.ledger);
  }

  /** Lets a WebSocket pass, or no longer. */
  toggle(): void {
    this.#isBlocked = !this.#isBlocked;
    this.proxy.block(this.#isBlocked ? BLOCKS[this.#passing] : undefined);
    if (this.#isBlocked) this.proxy.cut();
    // Without it a WebSocket is tried once a minute, which is longer than the test lasts.
    else page.dispatchEvent(new Event("online"));
  }

  close(): void {
    this.#relay.close();
  }

  #count(): void {
    const { state } = this.#relay;
    const transport = "transport" in state ? state.transport : undefined;
    if (transport === "sse") counts.eventsOverSse += 1;
    if (transport === "poll") counts.eventsOverPoll += 1;
  }

  get faults(): string[] {
    return [...this.ended, ...this.followed.map((it) => it.ledger)].flatMap((it) => it.faults);
  }

  /** Says what each subscription lacks. */
  describe(lastOf: (topic: string) => number): unknown {
    const followed = this.followed.map(({ ledger, subscription }) => {
      const topics = ledger.topics.map((it) => `${it} ${ledger.lastOf(it)} of ${lastOf(it)}`);
      return { topics, state: subscription.state, position: subscription.position };
    });
    return { state: this.#relay.state, followed, faults: this.faults };
  }

  #topic(): string {
    return this.#random.pick(TOPICS);
  }

  #subscribe(topics: readonly string[], since?: Position, earlier?: Ledger): void {
    const ledger = new Ledger(topics, earlier);
    const subscription = this.#relay.subscribe(topics, {
      ...(since === undefined ? {} : { since }),
      onEvent: ({ payload, position }) => {
        this.#count();
        ledger.event((payload as { type: string }).type, position);
      },
      onGap: () => ledger.gap(),
    });
    this.followed.push({ ledger, subscription });
  }
}

/** Posts events whose numbers have no holes, each of them once. */
class Backend {
  readonly #publisher: Publisher;
  readonly #random: Random;
  readonly #numbers = new Map<string, number>();

  constructor(publisher: Publisher, random: Random) {
    this.#publisher = publisher;
    this.#random = random;
  }

  lastOf(topic: string): number {
    return this.#numbers.get(topic) ?? 0;
  }

  async post(topic = this.#random.pick(TOPICS), events = 1): Promise<void> {
    const first = this.lastOf(topic) + 1;
    this.#numbers.set(topic, first + events - 1);
    const envelopes = Array.from({ length: events }, (_, index) => ({
      event: { type: `${topic}#${first + index}` },
    }));
    const [only] = envelopes;
    if (events === 1 && only !== undefined) {
      await this.#publisher.publish("acme", only, { topics: [topic] });
    } else await this.#publisher.publishBatch("acme", envelopes, { topics: [topic] });
  }
}

test(
  "in chaos nothing is lost silently, doubled or out of order",
  async () => {
    console.log(`chaos: seed ${SEED}, ${SECONDS} s`);
    const jitter = new Random(SEED + 1);
    for (const name of ["addEventListener", "removeEventListener"] as const) {
      vi.stubGlobal(name, page[name].bind(page));
    }
    // Short delays, so that there are many connections.
    vi.spyOn(Math, "random").mockImplementation(() => 0.9 + jitter.below(100) / 1000);
    const random = new Random(SEED);
    const server = await TestRelay.start({ replay: `events = ${WINDOW}` });
    onTestFinished(() => server.stop());
    const ingest = await FaultyProxy.start(server.ingestPort);
    onTestFinished(() => ingest.stop());
    const url = `http://127.0.0.1:${ingest.port}`;
    const backend = new Backend(new Publisher(url, { key: server.key, timeoutMs: 2_000 }), random);
    const followers: Follower[] = [];
    const codec = protobuf(EnvelopeSchema, () => import("../../src/protobuf_json.js"));
    const schema = codec as NonNullable<SidewireOptions["schema"]>;
    const kinds: [Passing, SidewireOptions][] = [
      ["all", {}],
      ["all", { schema }],
      ["sse", {}],
      ["sse", { schema }],
      ["poll", {}],
      ["poll", { schema }],
    ];
    for (const [passing, options] of kinds) {
      const proxy = await FaultyProxy.start(server.clientPort);
      onTestFinished(() => proxy.stop());
      followers.push(new Follower(server, proxy, random, passing, options));
    }

    const endsAt = performance.now() + SECONDS * 1000;
    let restartAt = performance.now() + 4_000;
    // On a busy machine some cases take longer to occur.
    const latestEnd = endsAt + 30_000;
    const isOver = (now: number) =>
      now > endsAt && (casesMissing().length === 0 || now > latestEnd);
    while (!isOver(performance.now())) {
      // The relay does not restart during a post, since it forgets message ids then.
      if (performance.now() > restartAt) {
        counts.restarts += 1;
        restartAt = performance.now() + 4_000;
        await server.restart();
      }
      for (const { proxy } of followers) {
        const fault = random.below(100);
        if (fault < 3) proxy.cut();
        else if (fault < 5) proxy.refuse();
        else if (fault < 15) proxy.allow();
        else if (fault < 17) proxy.hold();
        else if (fault < 30) proxy.release();
      }
      if (random.below(10) === 0) random.pick(followers).change();
      if (random.below(40) === 0) random.pick(followers).toggle();
      const topics = TOPICS.slice(random.below(TOPICS.length));
      const posted = topics.map((topic) => backend.post(topic, 1 + random.below(4)));
      // What is under way may have been stored or not.
      if (random.below(40) === 0) ingest.cut();
      await Promise.all(posted);
    }

    for (const { proxy } of followers) {
      proxy.allow();
      proxy.release();
    }
    const all = () => followers.flatMap((it) => it.followed);
    const areLive = () => all().every((it) => it.subscription.state === "live");
    const areUpToDate = () =>
      all().every(({ ledger }) =>
        ledger.topics.every((topic) => ledger.lastOf(topic) === backend.lastOf(topic)),
      );
    const describe = () => followers.map((it) => it.describe((topic) => backend.lastOf(topic)));
    // A subscription that is not live when the last events are posted may get a gap instead of them.
    do {
      await until("every subscription is live", areLive, describe);
      for (const topic of TOPICS) await backend.post(topic);
      await until("the last events", () => areUpToDate() || !areLive(), describe);
    } while (!areUpToDate());
    for (const follower of followers) follower.close();
    console.log(`chaos: ${JSON.stringify(counts)}`);
    expect(followers.flatMap((it) => it.faults)).toEqual([]);
    expect(casesMissing()).toEqual([]);
  },
  (SECONDS + 60) * 1000,
);
