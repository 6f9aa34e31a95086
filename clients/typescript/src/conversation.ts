/**
 * What is said on the connections of a client: it passes messages between the connection and the
 * subscriptions, and the presence. It neither opens nor closes a connection.
 */

import { clientEventFrame, type PublishOptions, type PublishRefusal } from "./client_event.js";
import type { Codec, Incoming } from "./codec.js";
import type { Effect } from "./core/effects.js";
import { Session } from "./core/session.js";
import { ConnectionError, type RelayError } from "./errors.js";
import type { Logger } from "./logger.js";
import { newMessageId } from "./message_id.js";
import type { Position } from "./position.js";
import type { Presence, PresenceOptions } from "./presence.js";
import { Presences } from "./presences.js";
import { type SubscribeOptions, Subscription } from "./subscription.js";
import { Subscriptions } from "./subscriptions.js";
import type { Connection } from "./transport.js";

/** What the owner of a conversation is told. */
export interface ConversationOwner {
  /** A Subscribe was confirmed. */
  confirmed(): void;
  /** Everything is sent; no subscription waits for anything but events if it `isSettled`. */
  advanced(isSettled: boolean): void;
  /** A subscription has to resume on another connection. */
  connectionWanted(): void;
  /** The relay does not answer a request. */
  unanswered(): void;
  /** The relay has refused an event; returns false if nobody wants to know. */
  refused(refusal: PublishRefusal): boolean;
}

/** The subscriptions and the presence of a client, over all its connections. */
export class Conversation<Events> {
  readonly #codec: Codec;
  readonly #logger: Logger;
  readonly #owner: ConversationOwner;
  readonly #session = new Session();
  readonly #subscriptions = new Subscriptions<Events>();
  readonly #presences: Presences<Events> | undefined;
  /** The connection, while it is open. */
  #connection: Connection | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(codec: Codec, logger: Logger, owner: ConversationOwner) {
    this.#codec = codec;
    this.#logger = logger;
    this.#owner = owner;
    if (codec.presence !== undefined) {
      this.#presences = new Presences(codec, codec.presence, logger, () => this.#soon());
    }
  }

  subscribe(
    topics: readonly string[],
    since: Position | undefined,
    options: SubscribeOptions<Events>,
  ): Subscription<Events> {
    const follower = this.#session.subscribe(topics, since);
    const subscription = new Subscription(follower, options, this.#logger, () => {
      this.#session.unsubscribe(follower);
      this.#subscriptions.remove(follower);
      this.#soon();
    });
    this.#subscriptions.add(follower, subscription);
    this.#soon();
    return subscription;
  }

  unsubscribeAll(): void {
    this.#subscriptions.unsubscribeAll();
  }

  /** Returns the presence on a topic, which `subscribe` subscribes. */
  presence(
    subscribe: (options: SubscribeOptions<Events>) => Subscription<Events>,
    options: PresenceOptions<Events>,
  ): Presence<Events> {
    if (this.#presences === undefined) {
      throw new TypeError("presence needs the option `schema`: json(table) or protobuf(Envelope)");
    }
    const { onLive, onRefused, onRevoked } = options;
    const subscription = subscribe({
      onGap: () => {},
      ...(onLive && { onLive }),
      ...(onRefused && { onRefused }),
      ...(onRevoked && { onRevoked }),
    });
    return this.#presences.open(subscription, options);
  }

  publish(name: string, payload: unknown, options: PublishOptions): Promise<string> {
    const { messageId = newMessageId() } = options;
    const frame = clientEventFrame(this.#codec, messageId, name, payload);
    const isSent = this.#session.subscribed.size > 0 && this.#connection?.sendFrame(frame);
    if (isSent) return Promise.resolve(messageId);
    const failed = Promise.reject(
      isReceiveOnly(this.#connection)
        ? new ConnectionError("CANNOT_SEND", "without a WebSocket no event can be sent")
        : new ConnectionError("NOT_CONNECTED", "no topic is subscribed, so no event can be sent"),
    );
    // Most of these events are worth nothing later, and so is the error.
    failed.catch(() => {});
    return failed;
  }

  /** A connection is open. */
  opened(connection: Connection): void {
    this.#connection = connection;
    this.#session.opened(isReceiveOnly(connection));
    this.#presences?.disconnected();
    this.#advance();
  }

  /** The connection, which has no WebSocket, begins anew. */
  reopen(): void {
    this.#session.reopened();
    this.#presences?.disconnected();
    this.#advance();
  }

  /** The connection has ended. */
  closed(): void {
    clearTimeout(this.#timer);
    this.#connection = undefined;
    this.#session.closed();
    this.#presences?.disconnected();
  }

  /** Takes a message of the relay. */
  received(message: Incoming): void {
    const connection = this.#connection;
    const now = Date.now();
    const wasSettled = this.#session.isSettled;
    if (message.kind !== "refused" || !this.#presences?.refused(message, now)) {
      for (const effect of this.#session.receive(message, now)) this.#apply(effect);
    }
    // A callback may have closed the client.
    if (connection !== this.#connection) return;
    this.#presences?.received(message, this.#session.subscribed);
    // Most messages are events, after which there is nothing to send unless they end a replay.
    if (message.kind !== "event" || !wasSettled) this.#advance();
  }

  #apply(effect: Effect): void {
    switch (effect.kind) {
      case "confirmed":
        this.#owner.confirmed();
        break;
      case "error":
        this.#reported(effect.error, effect.messageId);
        break;
      default:
        this.#subscriptions.apply(effect);
    }
  }

  #reported(error: RelayError, messageId: string): void {
    if (messageId !== "" && this.#owner.refused({ messageId, error })) return;
    const text = "sidewire: the relay reports an error";
    // The token has expired, and the relay is about to close the connection.
    if (error.code === "AUTHENTICATION_FAILED") this.#logger.debug(text, error);
    else this.#logger.warn(text, error);
  }

  /** Lets the application subscribe several times before the first request is sent. */
  #soon(): void {
    queueMicrotask(() => this.#advance());
  }

  /** Sends what is to be sent. */
  #advance(): void {
    if (this.#connection === undefined) return;
    for (;;) {
      const step = this.#session.next(Date.now());
      if (step === undefined) break;
      if (step.kind === "replace connection") {
        if (this.#connection.reopenSoon) this.#connection.reopenSoon();
        else this.#owner.connectionWanted();
        return;
      }
      if (step.kind === "give up") {
        this.#owner.unanswered();
        return;
      }
      this.#connection.send(step.message);
    }
    this.#sendPresence(this.#connection);
    this.#advanceLater();
    this.#owner.advanced(this.#session.isSettled);
  }

  #sendPresence(connection: Connection): void {
    if (connection.transport === "poll") return;
    const { subscribed, isSettled } = this.#session;
    const canSend = !isReceiveOnly(connection);
    for (;;) {
      const frame = this.#presences?.next(subscribed, isSettled, Date.now(), canSend);
      if (frame === undefined) return;
      connection.sendFrame(frame);
    }
  }

  #advanceLater(): void {
    clearTimeout(this.#timer);
    const now = Date.now();
    const times = [this.#session.wakeAt, this.#presences?.wakeAt(now)];
    const wakeAt = Math.min(...times.map((it) => (it !== undefined && it > now ? it : Infinity)));
    if (wakeAt < Infinity) this.#timer = setTimeout(() => this.#advance(), wakeAt - now);
  }
}

function isReceiveOnly(connection: Connection | undefined): boolean {
  return connection?.reopenSoon !== undefined;
}
