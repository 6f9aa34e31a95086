/** Subscriptions against a model of the relay, over random schedules. */

import { expect, test } from "vitest";
import type { Incoming } from "../../src/codec.js";
import type { Effect } from "../../src/core/effects.js";
import type { Follower } from "../../src/core/follower.js";
import { RECENT_LIMITS } from "../../src/core/recent.js";
import { Session } from "../../src/core/session.js";
import { compareOffsets, type Position } from "../../src/position.js";
import { Random } from "../support/random.js";
import { IMPLICIT, ModelConnection, ModelRelay, type Verdict } from "../support/relay_model.js";

const RUNS = Number(process.env.SIDEWIRE_MODEL_RUNS ?? 3_000);
const TOPICS = ["kind:1", "kind:2", "kind:3", "kind:4"];
/** What the token subscribes in some runs. */
const CLAIMED = ["kind:4"];
const FOLLOWERS_MAX = 5;
const FAILURES: readonly Verdict[] = ["refuse", "refuse first topic", "defer", "fail for now"];

// Vitest's own is too slow for this many checks.
function assert(holds: boolean, message: string): void {
  if (!holds) throw new Error(message);
}

/** How often each case occurred in all runs. */
const counts = {
  replays: 0,
  cutInReplay: 0,
  gaps: 0,
  refused: 0,
  deferred: 0,
  replaced: 0,
  reopened: 0,
  dividedOrRefused: 0,
  resumedFromSince: 0,
  beforeReplay: 0,
  unsubscribed: 0,
  revoked: 0,
  clientEvents: 0,
  ofClaimedTopics: 0,
};

/** What one subscription must have got. */
interface Owed {
  /** The position after which its events are due; undefined before its first confirmation. */
  since: Position | undefined;
  readonly given: Set<string>;
  last: Position | undefined;
}

class World {
  readonly #random: Random;
  readonly #relay = new ModelRelay();
  readonly #session: Session;
  readonly #owed = new Map<Follower, Owed>();
  readonly #claimed: readonly string[];
  #link: ModelConnection | undefined;
  /** True if each Subscribe begins a stream of its own, as over HTTP. */
  #subscribesOnce = false;
  #now = 0;
  #replayLeft = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    // In some runs so few events are kept that a subscription may need a new connection.
    this.#claimed = seed % 4 === 0 ? CLAIMED : [];
    this.#session = new Session(seed % 3 === 0 ? { idle: 1, waiting: 2 } : RECENT_LIMITS);
  }

  run(steps: number): void {
    for (let step = 0; step < steps; step += 1) this.#step();
    this.#finish();
  }

  #step(): void {
    const choice = this.#random.below(1000);
    if (choice < 180) this.#relay.publish(this.#someTopics([...TOPICS, IMPLICIT]));
    else if (choice < 260) this.#subscribe();
    else if (choice < 285) this.#unsubscribe();
    else if (choice < 355) this.#connect();
    else if (choice < 395) this.#cut();
    else if (choice < 515) this.#send();
    else if (choice < 565) this.#link?.ping();
    else if (choice < 685) this.#link?.take();
    else if (choice < 800) this.#link?.answer("take");
    else if (choice < 830) this.#link?.answer(this.#random.pick(FAILURES));
    else if (choice < 970) this.#deliver(1 + this.#random.below(8));
    else if (choice < 985) this.#now += 1000;
    else if (choice < 993) this.#relay.evict();
    else if (choice < 996) this.#revoke(this.#random.pick(TOPICS));
    else if (choice < 998) this.#link?.relayClientEvent();
    else if (this.#random.below(4) === 0) this.#restart();
  }

  #revoke(topic: string): void {
    if (!this.#claimed.includes(topic)) this.#link?.revoke(topic);
  }

  #someTopics(from: readonly string[]): Set<string> {
    const topics = new Set([this.#random.pick(from)]);
    if (this.#random.below(2) === 0) topics.add(this.#random.pick(from));
    return topics;
  }

  #subscribe(): void {
    if (this.#owed.size >= FOLLOWERS_MAX) return;
    const topics = this.#random.below(10) === 0 ? [] : [...this.#someTopics(TOPICS)];
    const head = this.#relay.head;
    const since =
      this.#random.below(3) === 0
        ? this.#relay.at(Math.max(0, head - this.#random.below(12)))
        : undefined;
    if (since !== undefined) counts.resumedFromSince += 1;
    const follower = this.#session.subscribe(topics, since);
    this.#owed.set(follower, { since, given: new Set(), last: undefined });
  }

  #unsubscribe(): void {
    if (this.#owed.size === 0) return;
    const follower = this.#random.pick([...this.#owed.keys()]);
    this.#session.unsubscribe(follower);
    this.#owed.delete(follower);
    counts.unsubscribed += 1;
  }

  #connect(): void {
    if (this.#link !== undefined) return;
    this.#subscribesOnce = this.#random.below(2) === 0;
    this.#begin();
    this.#session.opened(this.#subscribesOnce);
  }

  #begin(): void {
    this.#link = new ModelConnection(this.#relay, this.#claimed);
    this.#replayLeft = 0;
  }

  #cut(): void {
    if (this.#link === undefined) return;
    this.#link = undefined;
    this.#session.closed();
    if (this.#replayLeft > 0) counts.cutInReplay += 1;
    this.#replayLeft = 0;
  }

  #restart(): void {
    this.#cut();
    this.#relay.restart();
  }

  #send(): boolean {
    if (this.#link === undefined) return false;
    const step = this.#session.next(this.#now);
    if (step === undefined) return false;
    if (step.kind === "send") {
      if (this.#subscribesOnce) this.#begin();
      this.#link.request(step.message);
    } else if (this.#subscribesOnce) {
      counts.reopened += 1;
      this.#begin();
      this.#session.reopened();
    } else {
      counts.replaced += 1;
      this.#cut();
      this.#connect();
    }
    return true;
  }

  #deliver(frames: number): boolean {
    let delivered = false;
    for (let left = frames; left > 0; left -= 1) {
      const frame = this.#link?.frames.shift();
      if (frame === undefined) break;
      delivered = true;
      this.#receive(frame);
    }
    return delivered;
  }

  #receive(frame: Incoming): void {
    if (frame.kind === "confirmed" && frame.position !== undefined) {
      this.#replayLeft = frame.replayed;
      if (frame.replayed > 0) counts.replays += 1;
    } else if (isStored(frame) && this.#replayLeft > 0) {
      this.#replayLeft -= 1;
    } else if (frame.kind === "refused" && frame.retryAfterMs !== undefined) {
      counts.deferred += 1;
    } else if (frame.kind === "refused" && this.#subscribesOnce) {
      counts.dividedOrRefused += 1;
    }
    const effects = this.#session.receive(frame, this.#now);
    for (const effect of effects) this.#check(effect);
    for (const [follower, owed] of this.#owed) {
      // Confirmed for the first time, or after a gap.
      if (owed.since === undefined && follower.state === "live") owed.since = follower.position;
      this.#hasAllUpTo(follower, follower.position);
    }
    const events = effects.filter((it) => it.kind === "event");
    if (frame.kind === "event" && events.length > new Set(events.map((it) => it.to)).size) {
      counts.beforeReplay += 1;
    }
  }

  #check(effect: Effect): void {
    if (effect.kind === "refused") counts.refused += 1;
    if (effect.kind === "revoked") {
      counts.revoked += 1;
      this.#owed.delete(effect.to);
    }
    if (effect.kind === "gap") this.#gap(effect.to, effect.since);
    if (effect.kind !== "event") return;
    const owed = this.#owed.get(effect.to);
    const { position } = effect.event;
    if (owed === undefined) throw new Error("an event for nobody");
    if (position === undefined) {
      counts.clientEvents += 1;
      return;
    }
    const name = `${position.epoch}:${position.offset}`;
    assert(!owed.given.has(name), `${name} is given twice`);
    const isInOrder =
      owed.last?.epoch !== position.epoch || compareOffsets(position.offset, owed.last.offset) > 0;
    assert(isInOrder, `${name} comes after ${owed.last?.offset}`);
    owed.given.add(name);
    owed.last = position;
  }

  #gap(follower: Follower, since: Position): void {
    counts.gaps += 1;
    const owed = this.#owed.get(follower);
    if (owed?.since === undefined) throw new Error("a gap before the first confirmation");
    this.#hasAllUpTo(follower, since);
    const isGone =
      since.epoch !== `e${this.#relay.epoch}` || Number(since.offset) < this.#relay.evicted;
    assert(isGone, `a gap after ${since.offset}, from where all could be replayed`);
    owed.since = undefined;
  }

  /** Every event that is due up to a position was given. */
  #hasAllUpTo(follower: Follower, position: Position | undefined): void {
    const owed = this.#owed.get(follower);
    const epoch = `e${this.#relay.epoch}`;
    if (owed?.since?.epoch !== epoch || position?.epoch !== epoch) return;
    const topics = [...follower.topics, IMPLICIT, ...this.#claimed];
    const offsets = this.#relay.offsetsOf(
      topics,
      Number(owed.since.offset),
      Number(position.offset),
    );
    for (const offset of offsets) {
      if (this.#claimed.some((it) => this.#relay.topicsOf(offset).has(it))) {
        counts.ofClaimedTopics += 1;
      }
      assert(owed.given.has(`${epoch}:${offset}`), `${offset} of ${topics} is lost`);
    }
  }

  /** Ends with an undisturbed connection, on which everything that is due must come. */
  #finish(): void {
    this.#cut();
    this.#connect();
    this.#now += 1_000_000;
    while (this.#send() || this.#link?.take() || this.#link?.answer("take") || this.#deliver(1));
    assert(this.#session.isSettled, "a subscription waits for something");
    for (const [follower, owed] of this.#owed) {
      assert(follower.state === "live", "a subscription is not live");
      assert(owed.since?.epoch === `e${this.#relay.epoch}`, "a subscription was never live");
      this.#hasAllUpTo(follower, this.#relay.at(this.#relay.head));
    }
  }
}

function isStored(frame: Incoming): boolean {
  return frame.kind === "event" && frame.event.position !== undefined;
}

test("no subscription loses an event silently, or gets one twice or out of order", () => {
  for (let seed = 1; seed <= RUNS; seed += 1) {
    try {
      new World(seed).run(20 + (seed % 300));
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  for (const [name, count] of Object.entries(counts)) {
    expect(count, `too few ${name}: ${JSON.stringify(counts)}`).toBeGreaterThanOrEqual(10);
  }
}, 60_000);
