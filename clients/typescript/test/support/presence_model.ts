/**
 * A model of the relay's side of presence, by docs/protocol.md: what one connection sees of the users who
 * have shown themselves. It knows nothing of the client.
 */

import type { Incoming } from "../../src/codec.js";

/** A user's message, with the topics on which it is shown. */
export interface ShownMessage {
  readonly id: string;
  readonly topics: readonly string[];
}

/** The presence of one tenant, for one payload. */
export class ModelPresence {
  readonly messages = new Map<string, ShownMessage>();
  #ids = 0;

  set(user: string, topics: readonly string[]): void {
    this.#ids += 1;
    this.messages.set(user, { id: `m-${this.#ids}`, topics });
  }
}

/** One connection that looks on. */
export class ModelObserver {
  readonly #presence: ModelPresence;
  readonly subscribed = new Set<string>();
  /** What is on its way to the client. */
  readonly frames: Incoming[] = [];
  /** Users of whom the client is sent what it sees as soon as there is room. */
  readonly #owed = new Set<string>();
  /** The last message that was sent of each user. */
  readonly #sent = new Map<string, ShownMessage>();

  constructor(presence: ModelPresence) {
    this.#presence = presence;
  }

  subscribe(topics: readonly string[]): void {
    const added = topics.filter((it) => !this.subscribed.has(it));
    for (const topic of topics) this.subscribed.add(topic);
    this.frames.push({
      kind: "confirmed",
      requestMessageId: "r",
      topics,
      position: { epoch: "e", offset: "1" },
      recovered: false,
      replayed: 0,
    });
    for (const [user, { topics }] of this.#presence.messages) {
      if (topics.some((it) => isCovered(it, added))) this.#owed.add(user);
    }
  }

  unsubscribe(topics: readonly string[]): void {
    for (const topic of topics) this.subscribed.delete(topic);
    this.frames.push({ kind: "unsubscribed", requestMessageId: "u", topics });
  }

  pong(): void {
    this.frames.push({ kind: "pong", position: undefined });
  }

  /** A user's message has changed from `before`. */
  changed(user: string, before: ShownMessage | undefined): void {
    const sawBefore = before !== undefined && this.#isSeen(before);
    if (this.sees(user)) this.#owed.add(user);
    else if (sawBefore) {
      this.#owed.delete(user);
      this.#show(user, before, true);
    }
  }

  /** Sends what is owed of one user; returns false if nothing is owed. */
  sendOwed(): boolean {
    for (const user of this.#owed) {
      this.#owed.delete(user);
      const message = this.#presence.messages.get(user);
      const sent = this.#sent.get(user);
      if (message !== undefined && this.sees(user)) this.#show(user, message, false);
      else if (sent !== undefined) this.#show(user, sent, true);
      return true;
    }
    return false;
  }

  sees(user: string): boolean {
    const message = this.#presence.messages.get(user);
    return message !== undefined && this.#isSeen(message);
  }

  #isSeen({ topics }: ShownMessage): boolean {
    return topics.some((it) => isCovered(it, [...this.subscribed]));
  }

  #show(user: string, { id, topics }: ShownMessage, absent: boolean): void {
    if (absent) this.#sent.delete(user);
    else this.#sent.set(user, { id, topics });
    const payload = { userId: user, topics, absent };
    const event = { name: "here", payload, messageId: absent ? `${id}-gone` : id, timestamp: 1 };
    this.frames.push({ kind: "event", event });
  }
}

/** Returns true if a topic is one of these, or a wildcard among them stands for it. */
export function isCovered(topic: string, subscribed: readonly string[]): boolean {
  return subscribed.some((it) =>
    it.endsWith(":*") ? topic.startsWith(it.slice(0, -1)) : it === topic,
  );
}
