/**
 * What a client sees of the presence of others: for each presence payload and user the last message
 * that the relay has sent. Does no I/O.
 */

import type { PresencePayload } from "../codec.js";
import type { SidewireEvent } from "../event.js";
import { coversTopic } from "./topic_cover.js";

/** A presence message, with the topics that it names. */
export interface PresenceMessage {
  readonly event: SidewireEvent;
  readonly topics: readonly string[];
}

/** The view of a user has changed. */
export interface ViewChange {
  /** The name of the payload. */
  readonly name: string;
  readonly user: string;
  /** What is seen now; nothing if the user is gone. */
  readonly now: PresenceMessage | undefined;
}

interface Seen extends PresenceMessage {
  /** True if it came on the present connection. */
  isConfirmed: boolean;
}

/** The presence of all users that the relay has shown. */
export class PresenceView {
  readonly #payloads: ReadonlyMap<string, PresencePayload>;
  readonly #seen = new Map<string, Map<string, Seen>>();
  #hasStale = false;

  constructor(payloads: ReadonlyMap<string, PresencePayload>) {
    this.#payloads = payloads;
  }

  /** True if some of it was seen on an earlier connection only. */
  get hasStale(): boolean {
    return this.#hasStale;
  }

  /** Yields what is seen now. */
  *all(): Generator<ViewChange> {
    for (const [name, users] of this.#seen) {
      for (const [user, now] of users) yield { name, user, now };
    }
  }

  /** Returns true if an event is the presence of another client. */
  isPresence(event: SidewireEvent): boolean {
    // What a backend posts has a position, and changes no presence.
    return event.position === undefined && this.#payloads.has(event.name);
  }

  /**
   * Takes a message of the relay, and returns the change that it makes. If it `isOwn`, the relay shows
   * what this client has sent on an earlier connection: then it sees nobody else of its user.
   */
  receive(event: SidewireEvent, isOwn: boolean): ViewChange | undefined {
    const { name } = event;
    const payload = this.#payloads.get(name);
    const user = payload?.userOf(event.payload) ?? "";
    if (payload === undefined || user === "") return undefined;
    const users = this.#seen.get(name) ?? new Map<string, Seen>();
    this.#seen.set(name, users);
    const before = users.get(user);
    if (isOwn || payload.isAbsent(event.payload)) {
      return users.delete(user) ? { name, user, now: undefined } : undefined;
    }
    const now = { event, topics: payload.topicsOf(event.payload), isConfirmed: true };
    users.set(user, now);
    // After a reconnect the relay sends again what it has sent before.
    const isSame = before?.isConfirmed === false && isSameMessage(before.event, event);
    return isSame ? undefined : { name, user, now };
  }

  /** Forgets the users whose messages name none of the topics that are still subscribed. */
  forget(subscribed: ReadonlySet<string>): ViewChange[] {
    const isSubscribed = (topic: string) => coversTopic(subscribed, topic);
    return this.#remove((seen) => seen.isConfirmed && !seen.topics.some(isSubscribed));
  }

  /** The connection has ended. What was seen stays until the next one has shown what there is. */
  disconnected(): void {
    for (const users of this.#seen.values()) {
      for (const seen of users.values()) {
        seen.isConfirmed = false;
        this.#hasStale = true;
      }
    }
  }

  /** The present connection has shown what there is: forgets the rest. */
  removeStale(): ViewChange[] {
    this.#hasStale = false;
    return this.#remove((seen) => !seen.isConfirmed);
  }

  #remove(isGone: (seen: Seen) => boolean): ViewChange[] {
    const changes: ViewChange[] = [];
    for (const [name, users] of this.#seen) {
      for (const [user, seen] of users) {
        if (!isGone(seen)) continue;
        users.delete(user);
        changes.push({ name, user, now: undefined });
      }
    }
    return changes;
  }
}

function isSameMessage(a: SidewireEvent, b: SidewireEvent): boolean {
  return a.messageId === b.messageId && a.timestamp === b.timestamp;
}
