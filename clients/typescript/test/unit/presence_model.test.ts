/** Presence against a model of the relay, over random schedules. */

import { expect, test } from "vitest";
import { json } from "../../src/json.js";
import type { Presence } from "../../src/presence.js";
import { Presences } from "../../src/presences.js";
import { presencePayloads } from "../../src/routing_table.js";
import type { Subscription } from "../../src/subscription.js";
import { isCovered, ModelObserver, ModelPresence } from "../support/presence_model.js";
import { Random } from "../support/random.js";

const RUNS = Number(process.env.SIDEWIRE_MODEL_RUNS ?? 3_000);
const TOPICS = ["room:1", "room:2", "room:3", "team:1"];
const WATCHED = [...TOPICS, "room:*"];
const USERS = ["ann", "bob", "cat", "dan"];

const TABLE = {
  events: [
    {
      json_name: "here",
      presence: true,
      sender: ["user_id"],
      absent: { field: "absent", value: "true" },
      topics: [{ path: "topics[]", json_path: "topics[]", kind: null }],
    },
  ],
};

const logger = {
  debug: () => {},
  warn: () => {},
  error: (_: string, detail: unknown) => {
    throw detail;
  },
};

type Events = { here: { topics: string[]; absent: boolean } };

/** How often each case occurred in all runs. */
const counts = { shown: 0, gone: 0, goneAfterReconnect: 0, keptOverReconnect: 0, forgotten: 0 };

class World {
  readonly #random: Random;
  readonly #presence = new ModelPresence();
  readonly #client: Presences<Events>;
  /** The handles by topic, with what their callbacks have told of the users. */
  readonly #handles = new Map<string, { handle: Presence<Events>; told: Set<string> }>();
  /** The topics that are subscribed, as the client knows it. */
  readonly #subscribed = new Set<string>();
  #observer: ModelObserver | undefined;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#client = new Presences(json(TABLE), presencePayloads(TABLE), logger, () => {});
  }

  async run(steps: number, reconnects: boolean): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      this.#step();
      // Handles are shown what is there in a microtask.
      await Promise.resolve();
    }
    await this.#finish(reconnects);
  }

  #step(): void {
    const choice = this.#random.below(100);
    if (choice < 30) this.#change(this.#random.pick(USERS));
    else if (choice < 40) this.#watch(this.#random.pick(WATCHED));
    else if (choice < 48) this.#unwatch();
    else if (choice < 53) this.#reconnect();
    else if (choice < 70) this.#observer?.sendOwed();
    else if (choice < 95) this.#deliver();
    else this.#send();
  }

  #change(user: string): void {
    const before = this.#presence.messages.get(user);
    if (before !== undefined && this.#random.below(3) === 0) this.#presence.messages.delete(user);
    else {
      const topics = new Set([this.#random.pick(TOPICS), this.#random.pick(TOPICS)]);
      this.#presence.set(user, [...topics]);
    }
    this.#observer?.changed(user, before);
  }

  #watch(topic: string): void {
    if (this.#handles.has(topic)) return;
    const told = new Set<string>();
    const subscription = { topics: [topic], state: "live", unsubscribe: () => {} };
    const handle = this.#client.open(subscription as unknown as Subscription<Events>, {
      onChange: ({ user, payload }) => {
        counts[payload === undefined ? "gone" : "shown"] += 1;
        if (payload === undefined) told.delete(user);
        else told.add(user);
      },
    });
    this.#handles.set(topic, { handle, told });
    this.#observer?.subscribe([topic]);
  }

  #unwatch(): void {
    if (this.#handles.size === 0) return;
    const topic = this.#random.pick([...this.#handles.keys()]);
    this.#handles.get(topic)?.handle.close();
    this.#handles.delete(topic);
    this.#observer?.unsubscribe([topic]);
  }

  #reconnect(): void {
    this.#client.disconnected();
    this.#subscribed.clear();
    this.#observer = new ModelObserver(this.#presence);
    this.#observer.subscribe([...this.#handles.keys()]);
  }

  #send(): void {
    const isSettled = this.#observer?.frames.every((it) => it.kind !== "confirmed") ?? false;
    if (this.#client.next(this.#subscribed, isSettled, 0, true) !== undefined)
      this.#observer?.pong();
  }

  #deliver(): boolean {
    const frame = this.#observer?.frames.shift();
    if (frame === undefined) return false;
    if (frame.kind === "confirmed") for (const it of frame.topics) this.#subscribed.add(it);
    if (frame.kind === "unsubscribed") for (const it of frame.topics) this.#subscribed.delete(it);
    const before = this.#shown();
    this.#client.received(frame, this.#subscribed);
    const left = before - this.#shown();
    if (left > 0 && frame.kind === "pong") counts.goneAfterReconnect += left;
    if (left > 0 && frame.kind === "unsubscribed") counts.forgotten += left;
    return true;
  }

  #shown(): number {
    return [...this.#handles.values()].reduce((sum, it) => sum + it.handle.users("here").size, 0);
  }

  /** At rest the client sees who is there, and has told of nobody else. */
  async #finish(reconnects: boolean): Promise<void> {
    const before = this.#shown();
    if (reconnects || this.#observer === undefined) this.#reconnect();
    for (let steps = 0; ; steps += 1) {
      if (steps > 1000) throw new Error("the client does not come to rest");
      if (this.#observer?.sendOwed() || this.#deliver()) continue;
      this.#send();
      if (this.#observer?.frames.length === 0) break;
    }
    await Promise.resolve();
    if (reconnects) counts.keptOverReconnect += Math.min(before, this.#shown());
    for (const [topic, { handle, told }] of this.#handles) {
      const there = [...this.#presence.messages].filter(([, { topics }]) =>
        topics.some((it) => isCovered(it, [topic])),
      );
      const expected = there.map(([user]) => user).sort();
      const seen = [...handle.users("here").keys()].sort();
      if (`${seen}` !== `${expected}`) throw new Error(`${topic}: ${seen} for ${expected}`);
      if (`${[...told].sort()}` !== `${seen}`) throw new Error(`${topic}: told ${[...told]}`);
      for (const [user, { topics }] of there) {
        const payload = handle.users("here").get(user);
        if (`${payload?.topics}` !== `${topics}`) throw new Error(`${user} has ${payload?.topics}`);
      }
    }
  }
}

test("at rest each handle shows exactly the users who are on its topic", async () => {
  for (let seed = 1; seed <= RUNS; seed += 1) {
    try {
      await new World(seed).run(20 + (seed % 200), seed % 2 === 0);
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  for (const [name, count] of Object.entries(counts)) {
    expect(count, `too few ${name}: ${JSON.stringify(counts)}`).toBeGreaterThanOrEqual(10);
  }
}, 60_000);
