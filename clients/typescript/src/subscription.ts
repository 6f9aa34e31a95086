/** The handle of a subscription. */

import type { Follower } from "./core/follower.js";
import { Emitter, guard } from "./emitter.js";
import type { RelayError } from "./errors.js";
import type { EventOf, SidewireEvent } from "./event.js";
import { EventQueue } from "./event_queue.js";
import type { Logger } from "./logger.js";
import type { Position } from "./position.js";

/** What a subscription does with its events. */
export interface SubscribeOptions<Events> {
  /**
   * The position after which the events begin: the one that the application stored with its state.
   * Without it they begin when the subscription is live.
   */
  readonly since?: Position;
  /**
   * Called with every event, in order and never twice. What it throws goes to the logger.
   */
  readonly onEvent?: (event: EventOf<Events>) => unknown;
  /**
   * Called when the relay no longer has all events after `since`: load the current state from the
   * backend. No event after this call is missing.
   */
  readonly onGap: (since: Position, topics: readonly string[]) => unknown;
  /**
   * Called each time when the subscription is live: at first, and again after each reconnect.
   */
  readonly onLive?: () => unknown;
  /**
   * Called when the relay refuses the subscription, for example because the token does not grant one
   * of its topics. It is asked for again on the next connection. Without it the logger is told.
   */
  readonly onRefused?: (error: RelayError) => unknown;
  /**
   * Called when the relay ends the subscription, because the user has lost the right to these of its
   * topics. It is not asked for again; its `position` stays. Without it the logger is told.
   */
  readonly onRevoked?: (topics: readonly string[]) => unknown;
}

/**
 * `pending` until the relay has confirmed it and sent what was missed, on each connection. `ended` by
 * the application, or `revoked` by the relay, it gets nothing any more.
 */
export type SubscriptionState = "pending" | "live" | "refused" | "ended" | "revoked";

/**
 * Topics that are subscribed, over all connections.
 *
 * An event does not name the topics for which it was sent. So a subscription gets all events of its
 * topics, and may also get those of the client's other subscriptions, and always gets those for the
 * user and for the whole tenant.
 */
export class Subscription<Events> implements AsyncIterable<EventOf<Events>> {
  readonly #follower: Follower;
  readonly #options: SubscribeOptions<Events>;
  readonly #logger: Logger;
  readonly #end: () => void;
  readonly #emitter: Emitter<{ [Name in keyof Events]: unknown }>;
  readonly #queues = new Set<EventQueue<EventOf<Events>>>();
  /** Resolves when the subscription is live for the first time. */
  readonly #ready: Promise<void>;
  /** The position of the event with which callbacks are being called. */
  #delivering: Position | undefined;
  #resolveReady: () => void = () => {};
  #rejectReady: (error: Error) => void = () => {};

  /** @internal */
  constructor(
    follower: Follower,
    options: SubscribeOptions<Events>,
    logger: Logger,
    end: () => void,
  ) {
    this.#follower = follower;
    this.#options = options;
    this.#logger = logger;
    this.#end = end;
    this.#emitter = new Emitter(logger);
    this.#ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Nobody has to wait for it.
    this.#ready.catch(() => {});
  }

  /** The topics, without duplicates. */
  get topics(): readonly string[] {
    return this.#follower.topics;
  }

  /** The state on the present connection. */
  get state(): SubscriptionState {
    const { state } = this.#follower;
    const isPending = state === "waiting" || state === "requested" || state === "replaying";
    return isPending ? "pending" : state;
  }

  /**
   * The position up to which the subscription has received all events, to be passed as `since` by a
   * later client. None before it is confirmed for the first time. In a callback it is the position of
   * the event. A loop may be behind it, so there use the position of the event.
   */
  get position(): Position | undefined {
    return this.#delivering ?? this.#follower.position;
  }

  /**
   * Resolves when the subscription is live for the first time. State that is loaded after that has no
   * gap to the events. Rejects with a {@link RelayError} if the relay refuses it before that.
   */
  get ready(): Promise<void> {
    return this.#ready;
  }

  /** Calls back with the events of one payload; the function that is returned ends that. */
  on<Name extends keyof Events & string>(
    name: Name,
    callback: (event: SidewireEvent<Name, Events[Name]>) => unknown,
  ): () => void {
    return this.#emitter.on(name, (event) => callback(event as SidewireEvent<Name, Events[Name]>));
  }

  /**
   * Iterates over the events from now on. The loop ends with the subscription. If more than 10,000
   * events wait for it, it throws a {@link SlowIterationError}.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<EventOf<Events>> {
    const queue = new EventQueue<EventOf<Events>>(() => void this.#queues.delete(queue));
    if (!this.#isOpen()) queue.end();
    else this.#queues.add(queue);
    return queue;
  }

  /** Ends the subscription. No callback is called after that. */
  unsubscribe(): void {
    this.#end();
    this.#finish();
  }

  #finish(): void {
    for (const queue of [...this.#queues]) queue.end();
    this.#rejectReady(new Error("the subscription has ended"));
  }

  /** @internal */
  event(event: SidewireEvent): void {
    if (!this.#isOpen()) return;
    const known = event as unknown as EventOf<Events>;
    const { onEvent } = this.#options;
    this.#delivering = event.position;
    if (onEvent !== undefined) guard(this.#logger, () => onEvent(known));
    // `onEvent` may have ended the subscription.
    if (this.#isOpen()) this.#emitter.emit(event.name as keyof Events, event);
    for (const queue of [...this.#queues]) queue.push(known);
    this.#delivering = undefined;
  }

  #isOpen(): boolean {
    return this.state !== "ended" && this.state !== "revoked";
  }

  /** @internal */
  gap(since: Position): void {
    if (this.#isOpen()) guard(this.#logger, () => this.#options.onGap(since, this.topics));
  }

  /** @internal */
  live(): void {
    this.#resolveReady();
    const { onLive } = this.#options;
    if (onLive !== undefined) guard(this.#logger, onLive);
  }

  /** @internal */
  refused(error: RelayError): void {
    if (!this.#isOpen()) return;
    this.#rejectReady(error);
    const { onRefused } = this.#options;
    if (onRefused !== undefined) guard(this.#logger, () => onRefused(error));
    else this.#logger.error(`sidewire: ${this.topics.join(", ")} cannot be subscribed`, error);
  }

  /** @internal */
  revoked(topics: readonly string[]): void {
    this.#finish();
    const { onRevoked } = this.#options;
    if (onRevoked !== undefined) guard(this.#logger, () => onRevoked(topics));
    else this.#logger.error(`sidewire: the relay has revoked ${topics.join(", ")}`);
  }
}
