/**
 * The presence messages of this client: one for each presence payload, which is sent on each
 * connection once a topic that it names is subscribed. Does no I/O.
 */

import { RETRY_AFTER_MAX_MS, RETRY_AFTER_MIN_MS } from "../backoff.js";
import type { Frame, Refused } from "../codec.js";
import { RelayError } from "../errors.js";
import { coversTopic } from "./topic_cover.js";

/** So many of the ids that were sent last are remembered. */
const IDS_MAX = 32;

/** The relay takes ten events a second of a user; a payload is sent less often, and the last one counts. */
const INTERVAL_MS = 200;

/** A message as the application has set it. */
export interface OwnMessage {
  readonly messageId: string;
  readonly frame: Frame;
  /** What the relay is sent when it is withdrawn; nothing if the payload has no value for absent. */
  readonly withdrawal: Frame | undefined;
  readonly topics: readonly string[];
  /** Who has set it. */
  readonly owner: object;
  /** Called when the relay has refused it for this connection. */
  readonly onRefused: (error: RelayError) => void;
}

interface Sending {
  readonly message: OwnMessage;
  /** The topics on which the relay shows the message. */
  shownOn: Set<string>;
  isRefused: boolean;
  /** The time before which it is not sent, because of the interval or at the wish of the relay. */
  notBefore: number;
}

/** The client's own messages by the name of their payload. */
export class OwnPresence {
  readonly #messages = new Map<string, Sending>();
  /** Payloads of which the relay may have a message of this connection. */
  readonly #held = new Set<string>();
  /** What is to be sent, by payload, so that others no longer see a message. */
  readonly #withdrawals = new Map<string, Frame>();
  /** The ids of the messages that were sent last, also on earlier connections. */
  readonly #sentIds: string[] = [];

  /** Replaces the message of a payload. */
  set(name: string, message: OwnMessage): void {
    this.#withdrawals.delete(name);
    const notBefore = this.#messages.get(name)?.notBefore ?? 0;
    const shownOn = new Set<string>();
    this.#messages.set(name, { message, shownOn, isRefused: false, notBefore });
  }

  /** Withdraws the message of a payload. */
  withdraw(name: string): void {
    const sending = this.#messages.get(name);
    this.#messages.delete(name);
    const frame = sending?.message.withdrawal;
    if (frame !== undefined && this.#held.delete(name)) this.#withdrawals.set(name, frame);
  }

  /** Withdraws all messages of an owner. */
  withdrawAllOf(owner: object): void {
    for (const [name, { message }] of this.#messages) {
      if (message.owner === owner) this.withdraw(name);
    }
  }

  /** The connection has ended, and what it has sent. */
  disconnected(): void {
    this.#held.clear();
    this.#withdrawals.clear();
    for (const sending of this.#messages.values()) {
      sending.shownOn.clear();
      sending.isRefused = false;
      sending.notBefore = 0;
    }
  }

  /** The relay shows messages no longer on topics that are no longer subscribed. */
  unsubscribed(subscribed: ReadonlySet<string>): void {
    for (const { shownOn } of this.#messages.values()) {
      for (const topic of shownOn) {
        if (!coversTopic(subscribed, topic)) shownOn.delete(topic);
      }
    }
  }

  /** Returns the next message to send; call it until it returns nothing. */
  next(subscribed: ReadonlySet<string>, now: number): Frame | undefined {
    for (const [name, frame] of this.#withdrawals) {
      this.#withdrawals.delete(name);
      return frame;
    }
    for (const [name, sending] of this.#messages) {
      if (sending.isRefused || now < sending.notBefore) continue;
      const { topics, frame, messageId } = sending.message;
      const shownOn = topics.filter((it) => coversTopic(subscribed, it));
      if (shownOn.every((it) => sending.shownOn.has(it))) continue;
      sending.shownOn = new Set(shownOn);
      sending.notBefore = now + INTERVAL_MS;
      this.#held.add(name);
      if (this.#sentIds.push(messageId) > IDS_MAX) this.#sentIds.shift();
      return frame;
    }
    return undefined;
  }

  /** Returns the time at which `next` may return more than at `now`. */
  wakeAt(now: number): number | undefined {
    const times = [...this.#messages.values()].map((it) => it.notBefore).filter((it) => it > now);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Returns true if a message was sent by this client, on this connection or an earlier one. */
  hasSent(messageId: string): boolean {
    return this.#sentIds.includes(messageId);
  }

  /** Takes a refusal; returns false if it is none of this client's presence. */
  refused(refusal: Refused, now: number): boolean {
    const all = [...this.#messages.values()];
    const sending = all.find((it) => it.message.messageId === refusal.requestMessageId);
    // One that was replaced no longer matters.
    if (sending === undefined) return this.hasSent(refusal.requestMessageId);
    const { errorCode, errorMessage, fieldName, retryAfterMs } = refusal;
    if (retryAfterMs === undefined) {
      sending.isRefused = true;
      sending.message.onRefused(new RelayError(errorCode, errorMessage, fieldName));
    } else {
      sending.shownOn.clear();
      const ms = Math.min(Math.max(retryAfterMs, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS);
      sending.notBefore = now + ms;
    }
    return true;
  }
}
