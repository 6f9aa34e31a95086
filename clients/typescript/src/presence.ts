/** The handle of the presence on one topic. */

import type { Sendable } from "./client_event.js";
import type { PresenceMessage, ViewChange } from "./core/presence_view.js";
import { coversTopic } from "./core/topic_cover.js";
import { guard } from "./emitter.js";
import type { RelayError } from "./errors.js";
import type { Logger } from "./logger.js";
import type { Subscription, SubscriptionState } from "./subscription.js";

/** What has changed on a topic. */
export type PresenceChange<Events> = {
  [Name in keyof Events & string]: {
    /** The name of the payload. */
    readonly name: Name;
    readonly user: string;
    /** What the user now shows; `undefined` if the user has gone. */
    readonly payload: Events[Name] | undefined;
  };
}[keyof Events & string];

/** What the application is told of the presence on a topic. */
export interface PresenceOptions<Events> {
  /** Called when a user comes, changes, or goes. What it throws goes to the logger. */
  readonly onChange?: (change: PresenceChange<Events>) => unknown;
  /** Called each time when the topic is subscribed: at first, and again after each reconnect. */
  readonly onLive?: () => unknown;
  /**
   * Called when the relay refuses the subscription to the topic, or the client's own message. Both are
   * tried again on the next connection. Without it the logger is told.
   */
  readonly onRefused?: (error: RelayError) => unknown;
  /** Called when the user has lost the right to the topic. Without it the logger is told. */
  readonly onRevoked?: (topics: readonly string[]) => unknown;
}

/** What a handle needs of the client. */
export interface PresenceOwner {
  /** Throws a `TypeError` if the payload is no presence. */
  checkName(name: string): void;
  set(handle: object, name: string, payload: unknown, onRefused: (error: RelayError) => void): void;
  withdraw(handle: object): void;
  /** The handle needs nothing any more. */
  closed(handle: object): void;
}

/**
 * The users who are present on a topic, and the presence of this client. While there is no connection
 * it shows what was seen last.
 */
export class Presence<Events> {
  readonly #owner: PresenceOwner;
  readonly #subscription: Subscription<Events>;
  readonly #options: PresenceOptions<Events>;
  readonly #logger: Logger;
  readonly #users = new Map<string, Map<string, unknown>>();
  readonly #topic: ReadonlySet<string>;

  /** @internal */
  constructor(
    owner: PresenceOwner,
    subscription: Subscription<Events>,
    options: PresenceOptions<Events>,
    logger: Logger,
  ) {
    this.#owner = owner;
    this.#subscription = subscription;
    this.#options = options;
    this.#logger = logger;
    this.#topic = new Set(subscription.topics);
  }

  /** The topic, or the wildcard. */
  get topic(): string {
    return this.#subscription.topics.join();
  }

  /** The state of the subscription to the topic, on the present connection. */
  get state(): SubscriptionState {
    return this.#subscription.state;
  }

  /**
   * Resolves when the topic is subscribed for the first time; the users on it follow. Rejects with a
   * {@link RelayError} if the relay refuses it before that.
   */
  get ready(): Promise<void> {
    return this.#subscription.ready;
  }

  /**
   * The users who show a payload on this topic, and what they show. The map changes as they do. It is
   * without the messages of this connection, but has those of the user's other connections.
   *
   * Throws a `TypeError` if the payload is no presence.
   */
  users<Name extends keyof Events & string>(name: Name): ReadonlyMap<string, Events[Name]> {
    this.#owner.checkName(name);
    return this.#usersOf(name) as Map<string, Events[Name]>;
  }

  /**
   * Shows a payload to the others on the topics that it names, from when one of them is subscribed,
   * and again after each reconnect. It replaces what this client has shown of the payload before, also
   * on another topic: a client has one message for each payload.
   *
   * Throws a `TypeError` if the payload is no presence, or names no topic.
   */
  set<Name extends keyof Events & string>(name: Name, payload: Sendable<Events[Name]>): void {
    if (!this.#isOpen) throw new Error("the presence is closed");
    this.#owner.set(this, name, payload, (error) => this.#refused(error));
  }

  /**
   * Withdraws what was set with this handle. Others see a payload without a value for absent until the
   * connection ends.
   */
  withdraw(): void {
    this.#owner.withdraw(this);
  }

  /** Withdraws what was set, and ends the subscription. */
  close(): void {
    this.#owner.withdraw(this);
    this.#subscription.unsubscribe();
    this.#owner.closed(this);
    this.#users.clear();
  }

  get #isOpen(): boolean {
    const { state } = this;
    return state !== "ended" && state !== "revoked";
  }

  #usersOf(name: string): Map<string, unknown> {
    const users = this.#users.get(name) ?? new Map<string, unknown>();
    this.#users.set(name, users);
    return users;
  }

  #refused(error: RelayError): void {
    const { onRefused } = this.#options;
    if (onRefused !== undefined) guard(this.#logger, () => onRefused(error));
    else this.#logger.error("sidewire: a presence message is refused", error);
  }

  /** @internal */
  apply({ name, user, now }: ViewChange): void {
    const users = this.#usersOf(name);
    const payload = this.#isHere(now) ? now?.event.payload : undefined;
    if (payload === undefined) {
      if (!users.delete(user)) return;
    } else {
      users.set(user, payload);
    }
    const { onChange } = this.#options;
    if (onChange === undefined) return;
    const change = { name, user, payload } as unknown as PresenceChange<Events>;
    guard(this.#logger, () => onChange(change));
  }

  #isHere(message: PresenceMessage | undefined): boolean {
    return message?.topics.some((it) => coversTopic(this.#topic, it)) ?? false;
  }
}
