/** Which topics the relay has subscribed on a connection, and which of them nobody needs. */

import { splitTopics } from "./grouping.js";

/** The topics of one connection. */
export class ConnectionTopics {
  readonly #subscribed = new Set<string>();
  /** The topics of the token, which are subscribed with the connection and stay so. */
  readonly #claimed = new Set<string>();
  /** What the relay may have subscribed and a subscription that has ended no longer needs. */
  readonly #unwanted = new Set<string>();

  /** What is subscribed, the topics of the token included. */
  get subscribed(): ReadonlySet<string> {
    return this.#subscribed;
  }

  /** The connection has ended. */
  clear(): void {
    this.#subscribed.clear();
    this.#claimed.clear();
    this.#unwanted.clear();
  }

  /** The relay has subscribed these topics, because the token says so. */
  addClaimed(topics: readonly string[]): void {
    for (const topic of topics) this.#claimed.add(topic);
    this.addSubscribed(topics);
  }

  /** The relay has confirmed a Subscribe. */
  addSubscribed(topics: readonly string[]): void {
    for (const topic of topics) this.#subscribed.add(topic);
  }

  /** The relay has confirmed an Unsubscribe. */
  removeSubscribed(topics: readonly string[]): void {
    for (const topic of topics) this.#subscribed.delete(topic);
  }

  /** The relay has ended these subscriptions by itself. */
  removeRevoked(topics: readonly string[]): void {
    for (const topic of topics) this.#claimed.delete(topic);
    this.removeSubscribed(topics);
  }

  /** A subscription that has ended had these topics. */
  addUnwanted(topics: readonly string[]): void {
    for (const topic of topics) this.#unwanted.add(topic);
  }

  /**
   * Takes what is to be unsubscribed, as much as one request may name. What another subscription wants
   * stays here: that one may be refused, or end before it is sent.
   */
  takeUnwanted(wanted: () => ReadonlySet<string>): string[] | undefined {
    const [topics] = splitTopics(this.#needless(wanted));
    for (const topic of topics ?? []) this.#unwanted.delete(topic);
    return topics;
  }

  /** Returns true if something is to be unsubscribed. */
  hasUnwanted(wanted: () => ReadonlySet<string>): boolean {
    return this.#needless(wanted).length > 0;
  }

  #needless(wanted: () => ReadonlySet<string>): string[] {
    // Nearly always there are none, and this is asked with each event.
    if (this.#unwanted.size === 0) return [];
    const all = wanted();
    return [...this.#unwanted].filter((it) => !all.has(it) && !this.#claimed.has(it));
  }
}
