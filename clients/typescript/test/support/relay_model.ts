/**
 * A model of the relay's side of order and resume, by docs/protocol.md: the log is a list of sets of
 * topics, and a connection has a mark (an offset) for each of its topics. It knows nothing of the client.
 */

import type { Confirmed, Incoming, SubscriptionRequest } from "../../src/codec.js";
import type { Position } from "../../src/position.js";

/** Stands for the implicit topics. */
export const IMPLICIT = "user:me";

/** One tenant's log. */
export class ModelRelay {
  epoch = 1;
  /** The topics of each event; the first one has the offset 1. */
  #log: ReadonlySet<string>[] = [];
  evicted = 0;

  get head(): number {
    return this.#log.length;
  }

  publish(topics: Iterable<string>): void {
    this.#log.push(new Set(topics));
  }

  evict(): void {
    this.evicted = Math.min(this.head, this.evicted + 3);
  }

  restart(): void {
    this.epoch += 1;
    this.#log = [];
    this.evicted = 0;
  }

  at(offset: number): Position {
    return { epoch: `e${this.epoch}`, offset: String(offset) };
  }

  topicsOf(offset: number): ReadonlySet<string> {
    return this.#log[offset - 1] ?? new Set();
  }

  /** Returns the offsets above `from` and up to `to` that relate to one of the topics. */
  offsetsOf(topics: readonly string[], from: number, to: number): number[] {
    const offsets: number[] = [];
    for (let offset = from + 1; offset <= to; offset += 1) {
      const about = this.topicsOf(offset);
      if (topics.some((topic) => about.has(topic))) offsets.push(offset);
    }
    return offsets;
  }

  event(offset: number): Incoming {
    const position = this.at(offset);
    const event = { name: "event", payload: offset, messageId: "", timestamp: 0, position };
    return { kind: "event", event };
  }
}

export type Verdict = "take" | "refuse" | "refuse first topic" | "defer" | "fail for now";

interface Request {
  /** The head when it arrived. */
  readonly head: number;
  readonly message: SubscriptionRequest;
}

/** One connection. */
export class ModelConnection {
  readonly #relay: ModelRelay;
  /** The last offset that was offered to the connection. */
  #taken: number;
  readonly #marks = new Map<string, number>();
  #hasResumed = false;
  readonly #requests: Request[] = [];
  /** What is on its way to the client. */
  readonly frames: Incoming[] = [];

  /** The topics that every connection has without asking: those of the token, and the implicit ones. */
  readonly #given: readonly string[];

  /** `claimed` are the topics that the token subscribes. */
  constructor(relay: ModelRelay, claimed: readonly string[] = []) {
    this.#relay = relay;
    this.#taken = relay.head;
    this.#given = [IMPLICIT, ...claimed];
    for (const topic of this.#given) this.#marks.set(topic, relay.head);
    if (claimed.length > 0) this.frames.push(confirmation("", claimed));
  }

  request(message: SubscriptionRequest): void {
    this.#requests.push({ head: this.#relay.head, message });
  }

  ping(): void {
    const position = this.#requests.length === 0 ? this.#relay.at(this.#taken) : undefined;
    this.frames.push({ kind: "pong", position });
  }

  /** Offers the next event to the connection; returns false if there is none. */
  take(): boolean {
    if (this.#taken === this.#relay.head) return false;
    this.#taken += 1;
    const topics = [...this.#relay.topicsOf(this.#taken)];
    if (topics.some((it) => this.#marks.has(it))) this.frames.push(this.#relay.event(this.#taken));
    return true;
  }

  /** Answers the next request if it is due; returns false if it is not. */
  answer(verdict: Verdict): boolean {
    const request = this.#requests[0];
    if (request === undefined || request.head > this.#taken) return false;
    this.#requests.shift();
    const { message } = request;
    const { messageId, topics } = message;
    if (verdict === "defer") {
      this.#refuse(messageId, "RATE_LIMIT_EXCEEDED", 1000);
    } else if (verdict === "fail for now") {
      this.#refuse(messageId, "INTERNAL_ERROR", 2000);
    } else if (message.kind === "unsubscribe") {
      for (const topic of topics) this.#marks.delete(topic);
      this.frames.push({ kind: "unsubscribed", requestMessageId: messageId, topics });
    } else if (verdict !== "take" && topics.length > 0) {
      const fieldName = verdict === "refuse" ? undefined : "subscribe.topics[0]";
      this.#refuse(messageId, "AUTHORIZATION_FAILED", undefined, fieldName);
    } else {
      this.#subscribe(messageId, topics, message.resumeFrom);
    }
    return true;
  }

  /** Another client sends an event, which has no place in the order. */
  relayClientEvent(): void {
    const event = { name: "typing", payload: {}, messageId: "", timestamp: 0 };
    this.frames.push({ kind: "event", event });
  }

  /** The relay ends the subscription to a topic by itself. */
  revoke(topic: string): void {
    if (!this.#marks.delete(topic)) return;
    this.frames.push({ kind: "unsubscribed", requestMessageId: "", topics: [topic] });
  }

  #refuse(
    requestMessageId: string,
    errorCode: string,
    retryAfterMs: number | undefined,
    fieldName?: string,
  ): void {
    const errorMessage = "no";
    this.frames.push({
      kind: "refused",
      requestMessageId,
      errorCode,
      errorMessage,
      fieldName,
      retryAfterMs,
    });
  }

  #subscribe(requestMessageId: string, named: readonly string[], resumeFrom?: Position): void {
    const topics = new Set(named);
    if (resumeFrom !== undefined && !this.#hasResumed) {
      this.#hasResumed = true;
      for (const topic of this.#given) topics.add(topic);
    }
    const from = this.#resumableFrom(resumeFrom);
    const replayed = from === undefined ? [] : this.#replay(topics, from);
    for (const topic of topics) {
      const mark = this.#marks.get(topic) ?? this.#taken;
      this.#marks.set(topic, from === undefined ? mark : Math.min(from, mark));
    }
    this.frames.push({
      ...confirmation(requestMessageId, named),
      position: this.#relay.at(this.#taken),
      recovered: from !== undefined,
      replayed: replayed.length,
    });
    this.frames.push(...replayed.map((offset) => this.#relay.event(offset)));
  }

  #resumableFrom(position: Position | undefined): number | undefined {
    if (position === undefined || position.epoch !== `e${this.#relay.epoch}`) return undefined;
    const offset = Number(position.offset);
    return offset <= this.#taken && offset >= this.#relay.evicted ? offset : undefined;
  }

  /** Returns the events after `from`, less those that a standing subscription has brought. */
  #replay(topics: ReadonlySet<string>, from: number): number[] {
    const wasBrought = (offset: number) =>
      [...this.#relay.topicsOf(offset)].some((it) => (this.#marks.get(it) ?? Infinity) < offset);
    return this.#relay
      .offsetsOf([...topics], from, this.#taken)
      .filter((offset) => !wasBrought(offset));
  }
}

function confirmation(requestMessageId: string, topics: readonly string[]): Confirmed {
  const nothing = { position: undefined, recovered: false, replayed: 0 };
  return { kind: "confirmed", requestMessageId, topics, ...nothing };
}
