/**
 * The order of one subscription: which events it gets, and what it may resume from. Does no I/O and
 * knows no topics but its own.
 */

import type { SidewireEvent } from "../event.js";
import { compareOffsets, isAfter, type Position } from "../position.js";

/** An event that has a place in the order. */
export type StoredEvent = SidewireEvent & { readonly position: Position };

/**
 * What a follower waits for:
 *
 * - `waiting`: its Subscribe is not sent, or has to be sent again.
 * - `requested`: the answer to its Subscribe.
 * - `replaying`: the rest of its replay.
 * - `live`: the next event.
 * - `refused`: the next connection.
 * - `ended`: nothing any more, since the application has unsubscribed it.
 * - `revoked`: nothing any more, since the relay has ended it.
 */
export type FollowerState =
  | "waiting"
  | "requested"
  | "replaying"
  | "live"
  | "refused"
  | "ended"
  | "revoked";

/**
 * One subscription. Every event up to its position was passed on, in order; so an event at or below
 * it was passed on before, and nothing below it will be.
 */
export class Follower {
  state: FollowerState = "waiting";
  /**
   * True if it was refused, or is about to be: then it shares no Subscribe, also on later connections,
   * until it is confirmed.
   */
  sendAlone = false;
  /** Those of one group can share a Subscribe. A refused group is divided. */
  group = 0;
  /** True if the relay has taken it, on a connection that has one Subscribe for all. */
  isTaken = false;
  position: Position | undefined;
  /** Events that were received before the replay, by offset; the relay leaves them out of the replay. */
  #held: StoredEvent[] = [];

  constructor(
    readonly topics: readonly string[],
    since?: Position,
  ) {
    this.position = since;
  }

  /** True if its topics are subscribed, or are about to be. */
  get isWanted(): boolean {
    return this.state !== "refused" && this.state !== "ended" && this.state !== "revoked";
  }

  /** Forgets the connection; the position stays. */
  reset(): void {
    this.group = 0;
    this.isTaken = false;
    if (this.state === "refused") this.state = "waiting";
    this.pause();
  }

  /** Waits for another Subscribe, unless it is refused on this connection. */
  pause(): void {
    this.#held = [];
    if (this.isWanted) this.state = "waiting";
  }

  /** Begins the replay after its position; `received` are the events of the connection so far. */
  startReplay(received: readonly StoredEvent[]): void {
    this.state = "replaying";
    this.#held = received
      .filter((event) => this.#isNew(event.position))
      .sort((a, b) => compareOffsets(a.position.offset, b.position.offset));
  }

  /** Takes a replayed event, and returns the events that are due with it. */
  takeReplayed(event: StoredEvent): StoredEvent[] {
    const { offset } = event.position;
    const end = this.#held.findIndex((it) => compareOffsets(it.position.offset, offset) > 0);
    const earlier = this.#held.splice(0, end < 0 ? this.#held.length : end);
    return [...earlier, event].filter((it) => this.#pass(it));
  }

  /** Ends the replay, and returns the events that are due before `position`. */
  endReplay(position: Position): StoredEvent[] {
    const due = this.#held.splice(0).filter((it) => this.#pass(it));
    this.goLive(position);
    return due;
  }

  /** Takes an event outside of its replay; returns true if it is due. */
  takeLive(event: StoredEvent): boolean {
    return this.state === "live" && this.#pass(event);
  }

  /** From now on it gets every event after `position`. */
  goLive(position: Position): void {
    this.state = "live";
    this.position = position;
  }

  /** Every event of the connection up to `position` was received. */
  raise(position: Position): void {
    if (this.state === "live" && this.#isNew(position)) this.position = position;
  }

  #pass(event: StoredEvent): boolean {
    if (!this.#isNew(event.position)) return false;
    this.position = event.position;
    return true;
  }

  #isNew(position: Position): boolean {
    return this.position === undefined || isAfter(position, this.position);
  }
}
