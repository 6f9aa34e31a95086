/**
 * The events that the connection brought lately. The relay leaves out of a replay what it has
 * sent on the connection before, so a subscription that joins later takes these events from here.
 */

import { compareOffsets, type Position } from "../position.js";
import type { StoredEvent } from "./follower.js";

/** How many events are kept, at least. */
export interface RecentLimits {
  /** While nobody waits for them. */
  readonly idle: number;
  /** While a subscription waits for its answer. */
  readonly waiting: number;
}

/** The second one is twice the relay's window. */
export const RECENT_LIMITS: RecentLimits = { idle: 1_000, waiting: 20_000 };

/** A bounded list of events. */
export class RecentEvents {
  #events: StoredEvent[] = [];
  /** The highest offset of an event that was dropped from the list. */
  #dropped = "0";

  get events(): readonly StoredEvent[] {
    return this.#events;
  }

  clear(): void {
    this.#events = [];
    this.#dropped = "0";
  }

  /** Adds an event, and drops the oldest ones if there are more than `max`. */
  add(event: StoredEvent, max: number): void {
    this.#events.push(event);
    // Dropped in large portions, since each one moves the rest.
    if (this.#events.length < 2 * max) return;
    for (const { position } of this.#events.splice(0, this.#events.length - max)) {
      if (compareOffsets(position.offset, this.#dropped) > 0) this.#dropped = position.offset;
    }
  }

  /** Returns true if the list has every event that the connection brought after `position`. */
  reachesBackTo(position: Position): boolean {
    return compareOffsets(this.#dropped, position.offset) <= 0;
  }
}
