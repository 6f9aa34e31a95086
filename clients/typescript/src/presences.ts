/** All presence of a client: that of others as the relay shows it, and its own. */

import { clientEventFrame } from "./client_event.js";
import type { Codec, Frame, Incoming, PresencePayload, Refused } from "./codec.js";
import { OwnPresence } from "./core/own_presence.js";
import { PresenceView, type ViewChange } from "./core/presence_view.js";
import type { RelayError } from "./errors.js";
import type { SidewireEvent } from "./event.js";
import type { Logger } from "./logger.js";
import { newMessageId } from "./message_id.js";
import { Presence, type PresenceOptions, type PresenceOwner } from "./presence.js";
import type { Subscription } from "./subscription.js";

/** So many Pings at most are sent after a reconnect, to find the end of what the relay shows. */
const PINGS_MAX = 10;

/** The presence of a client. */
export class Presences<Events> implements PresenceOwner {
  readonly #codec: Codec;
  readonly #payloads: ReadonlyMap<string, PresencePayload>;
  readonly #logger: Logger;
  readonly #soon: () => void;
  readonly #view: PresenceView;
  readonly #own = new OwnPresence();
  readonly #handles = new Set<Presence<Events>>();
  #pings = 0;
  #isPingOpen = false;
  /** True if the relay has shown something since the last Ping. */
  #hasSeenMore = false;

  /** `soon` is called when there may be something to send. */
  constructor(
    codec: Codec,
    payloads: ReadonlyMap<string, PresencePayload>,
    logger: Logger,
    soon: () => void,
  ) {
    this.#codec = codec;
    this.#payloads = payloads;
    this.#logger = logger;
    this.#soon = soon;
    this.#view = new PresenceView(payloads);
  }

  /** Returns the handle for the topic of a subscription. */
  open(subscription: Subscription<Events>, options: PresenceOptions<Events>): Presence<Events> {
    const presence = new Presence(this, subscription, options, this.#logger);
    this.#handles.add(presence);
    // Callbacks may use the handle, which the application does not have yet.
    queueMicrotask(() => this.#showAllTo(presence));
    return presence;
  }

  checkName(name: string): void {
    if (!this.#payloads.has(name)) throw new TypeError(`${name} is no presence in the schema`);
  }

  set(owner: object, name: string, payload: unknown, onRefused: (error: RelayError) => void): void {
    this.checkName(name);
    const type = this.#payloads.get(name);
    if (type === undefined) return;
    if (type.isAbsent(payload)) this.#own.withdraw(name);
    else {
      const topics = type.topicsOf(payload);
      if (topics.length === 0)
        throw new TypeError(`${name} names no topic, so nobody would see it`);
      const messageId = newMessageId();
      const frame = clientEventFrame(this.#codec, messageId, name, payload);
      const withdrawal = this.#withdrawal(name, type);
      this.#own.set(name, { messageId, frame, withdrawal, topics, owner, onRefused });
    }
    this.#soon();
  }

  withdraw(owner: object): void {
    this.#own.withdrawAllOf(owner);
    this.#soon();
  }

  closed(handle: object): void {
    this.#handles.delete(handle as Presence<Events>);
  }

  /** The connection has ended. */
  disconnected(): void {
    this.#view.disconnected();
    this.#own.disconnected();
    this.#pings = 0;
    this.#isPingOpen = false;
  }

  /** Takes a message of the relay, with which these topics are now subscribed. */
  received(message: Incoming, subscribed: ReadonlySet<string>): void {
    switch (message.kind) {
      case "event":
        this.#event(message.event);
        break;
      case "unsubscribed":
      case "authenticated":
        this.#own.unsubscribed(subscribed);
        this.#apply(this.#view.forget(subscribed));
        break;
      case "pong":
        this.#pong();
        break;
    }
  }

  /** Takes a refusal; returns false if it is none of this client's presence. */
  refused(message: Refused, now: number): boolean {
    return this.#own.refused(message, now);
  }

  /**
   * Returns the next message to send; call it until it returns nothing. Where nothing can be sent, the
   * relay sends by itself what stands for a Pong.
   */
  next(
    subscribed: ReadonlySet<string>,
    isSettled: boolean,
    now: number,
    canSend: boolean,
  ): Frame | undefined {
    const own = canSend ? this.#own.next(subscribed, now) : undefined;
    return own ?? (isSettled ? this.#nextPing() : undefined);
  }

  /** Returns the time at which `next` may return more than at `now`. */
  wakeAt(now: number): number | undefined {
    return this.#own.wakeAt(now);
  }

  /** What the relay has shown it does not show again while the topic is subscribed. */
  #showAllTo(handle: Presence<Events>): void {
    if (!this.#handles.has(handle)) return;
    for (const seen of this.#view.all()) handle.apply(seen);
  }

  #event(event: SidewireEvent): void {
    if (!this.#view.isPresence(event)) return;
    this.#hasSeenMore = true;
    const change = this.#view.receive(event, this.#own.hasSent(event.messageId));
    if (change !== undefined) this.#apply([change]);
  }

  /**
   * The relay does not say when it has shown everything. It queues what it shows behind the confirmation
   * and the replay, so a Pong before which nothing more came is taken for the end.
   */
  #nextPing(): Frame | undefined {
    if (!this.#view.hasStale || this.#isPingOpen) return undefined;
    this.#pings += 1;
    this.#isPingOpen = true;
    this.#hasSeenMore = false;
    return this.#codec.encode({ kind: "ping" });
  }

  #pong(): void {
    if (!this.#isPingOpen) return;
    this.#isPingOpen = false;
    if (!this.#hasSeenMore || this.#pings >= PINGS_MAX) this.#apply(this.#view.removeStale());
  }

  #withdrawal(name: string, { withdrawal }: PresencePayload): Frame | undefined {
    if (withdrawal === undefined) return undefined;
    return clientEventFrame(this.#codec, newMessageId(), name, withdrawal);
  }

  #apply(changes: readonly ViewChange[]): void {
    for (const change of changes) {
      for (const handle of [...this.#handles]) handle.apply(change);
    }
  }
}
