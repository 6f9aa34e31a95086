/**
 * Posts events from a backend. Every event has its message id before the first try, so that the relay
 * stores it once, however often it has to be posted.
 *
 * @packageDocumentation
 */

import type { Receipt } from "./ingest/answer.js";
import {
  NoAnswerError,
  PublishError,
  parseProblem,
  parseReceipt,
  parseReceipts,
} from "./ingest/answer.js";
import { type Body, batchBody, type Envelope, eventBody } from "./ingest/body.js";

export type { RelayErrorCode } from "./errors.js";
export type { CurrentPosition, EventFault, Receipt } from "./ingest/answer.js";
export { NoAnswerError, PublishError, type PublishErrorDetails } from "./ingest/answer.js";
export type { Envelope } from "./ingest/body.js";
export type { Position } from "./position.js";

const FIRST_DELAY_MS = 200;
const MAX_DELAY_MS = 10_000;
/** The relay remembers message ids for 5 min, so no try may come much later than the first. */
const GIVE_UP_MAX_MS = 240_000;

/** How a publisher posts. */
export interface PublisherOptions {
  /** The ingest key, or a function that returns it before each try. */
  readonly key?: string | (() => string | Promise<string>);
  /** How long one try may take, in ms: 10,000, unless it is given. */
  readonly timeoutMs?: number;
  /**
   * How long a call may take with all its tries, in ms: 60,000, unless it is given; at most 240,000,
   * since the relay forgets a message id after 5 min.
   */
  readonly giveUpAfterMs?: number;
  /** The function to call instead of the global `fetch`. */
  readonly fetch?: typeof fetch;
}

/** A condition on the last event that a topic has in the relay's log. */
export interface Condition {
  readonly topic: string;
  /** The epoch of the position; without it the log must have no event of the topic at all. */
  readonly epoch?: string;
  /**
   * The offset of the topic's last event; without it the log must have none in this epoch. Any offset
   * but "0" needs its epoch.
   */
  readonly offset?: string;
}

/** What any call may have. */
export interface CallOptions {
  /** Further topics of every event, `kind:id` each. */
  readonly topics?: readonly string[];
  /** Ends the call; its events may have been stored or not. */
  readonly signal?: AbortSignal;
}

/** What a call with a batch may have. */
export interface BatchOptions extends CallOptions {
  /**
   * The ids of the events, one for each; a new one is made where it is undefined and the envelope has
   * none.
   */
  readonly messageIds?: readonly (string | undefined)[];
}

/** What a call with one event may have. */
export interface PublishOptions extends CallOptions {
  /**
   * The id of the event, if the envelope has none. Without either a new one is made. An application
   * that may repeat the call gives the id that it stored with the event.
   */
  readonly messageId?: string;
  /** Conditions that must all hold; otherwise the call fails with CONFLICT. */
  readonly ifLast?: readonly Condition[];
}

/** Posts events to the ingest listener of a relay. */
export class Publisher {
  readonly #url: string;
  readonly #key: PublisherOptions["key"];
  readonly #timeoutMs: number;
  readonly #giveUpAfterMs: number;
  readonly #fetch: typeof fetch;

  /**
   * @param url The address of the ingest listener, such as `http://127.0.0.1:3001`.
   *
   * Throws a `TypeError` for an invalid address, and for a key that a header cannot have.
   */
  constructor(url: string, options: PublisherOptions = {}) {
    this.#url = checkUrl(url);
    this.#key = options.key;
    if (typeof options.key === "string") authorization(options.key);
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    this.#giveUpAfterMs = Math.min(options.giveUpAfterMs ?? 60_000, GIVE_UP_MAX_MS);
    const { fetch } = options;
    // Browsers and workers refuse a `fetch` that is called as a method of another object.
    this.#fetch = (url, init) => (fetch ?? globalThis.fetch)(url, init);
  }

  /**
   * Posts one event, until it is stored.
   *
   * Rejects with a {@link PublishError} if the relay refuses it, and with a {@link NoAnswerError} if
   * the relay does not answer in time. If the `mayBeStored` of the error is true, the event may have
   * been stored or not, and may be posted again under the id in `messageIds`.
   *
   * @param event An envelope with one payload: proto3 JSON, such as `{ workItemCreated: { … } }`, or
   * its bytes.
   */
  async publish(tenant: string, event: Envelope, options: PublishOptions = {}): Promise<Receipt> {
    const body = eventBody(event, options.messageId);
    const path = `${tenantPath(tenant)}/events${query(options.topics, options.ifLast)}`;
    return parseReceipt(await this.#post(path, body, options.signal));
  }

  /**
   * Posts up to 1,000 events that are stored next to each other, all or none of them. Rejects as
   * {@link Publisher.publish} does. The receipts are in the order of the events.
   */
  async publishBatch(
    tenant: string,
    events: readonly Envelope[],
    options: BatchOptions = {},
  ): Promise<Receipt[]> {
    const body = batchBody(events, options.messageIds);
    const path = `${tenantPath(tenant)}/events:batch${query(options.topics)}`;
    return parseReceipts(await this.#post(path, body, options.signal), events.length);
  }

  async #post(path: string, body: Body, signal: AbortSignal | undefined): Promise<unknown> {
    const giveUpAt = Date.now() + this.#giveUpAfterMs;
    let mayBeStored = false;
    for (let tries = 0; ; tries += 1) {
      signal?.throwIfAborted();
      const failure = await this.#try(path, body, mayBeStored, giveUpAt, signal);
      if (!("error" in failure)) return failure.answer;
      const { error } = failure;
      mayBeStored = error.mayBeStored;
      if (!mayPassLater(error)) throw error;
      const retryAfterMs = error instanceof PublishError ? (error.retryAfterMs ?? 0) : 0;
      const backoff = Math.random() * Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** tries);
      const delay = retryAfterMs + backoff;
      if (Date.now() + delay >= giveUpAt) throw error;
      await sleep(delay, signal);
    }
  }

  async #try(
    path: string,
    { contentType, bytes, messageIds }: Body,
    mayBeStored: boolean,
    giveUpAt: number,
    signal: AbortSignal | undefined,
  ): Promise<{ answer: unknown } | { error: PublishError | NoAnswerError }> {
    const key = typeof this.#key === "function" ? await this.#key() : this.#key;
    const headers: Record<string, string> = { "Content-Type": contentType };
    if (key !== undefined) headers.Authorization = authorization(key);
    const ms = Math.max(1, Math.min(this.#timeoutMs, giveUpAt - Date.now()));
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(new Error(`no answer within ${ms} ms`)), ms);
    const events = { messageIds, mayBeStored };
    const signals = signal === undefined ? [timeout.signal] : [timeout.signal, signal];
    try {
      const response = await this.#fetch(`${this.#url}${path}`, {
        method: "POST",
        headers,
        body: bytes,
        redirect: "manual",
        signal: AbortSignal.any(signals),
      });
      const text = await response.text();
      if (response.ok) return { answer: JSON.parse(text) };
      const retryAfter = response.headers.get("retry-after");
      return { error: parseProblem(response.status, retryAfter, text, events) };
    } catch (cause) {
      // The caller ended the call itself, and gets its own reason back.
      signal?.throwIfAborted();
      return { error: new NoAnswerError(cause, events) };
    } finally {
      clearTimeout(timer);
    }
  }
}

/** With 408 the body arrived too slowly; 502 and 504 are answers of a proxy. */
function mayPassLater(error: PublishError | NoAnswerError): boolean {
  return error instanceof NoAnswerError || [408, 429, 502, 503, 504].includes(error.status);
}

/** Returns the address without a slash at its end; throws for one that `fetch` would refuse later. */
function checkUrl(text: string): string {
  const url = new URL(text);
  if (!/^https?:$/.test(url.protocol)) {
    throw new TypeError("the address of an ingest listener begins with http:// or https://");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new TypeError(
      "the address of an ingest listener has no user, password, query or fragment",
    );
  }
  return url.href.replace(/\/$/, "");
}

/** Returns the header with the key; throws if a header cannot have it. */
function authorization(key: string): string {
  const value = `Bearer ${key}`;
  try {
    new Headers({ Authorization: value });
  } catch {
    // Without the cause, which would show the key.
    throw new TypeError("the key has characters that a header cannot have");
  }
  return value;
}

function tenantPath(tenant: string): string {
  return `/v1/tenants/${encodeURIComponent(tenant)}`;
}

function query(topics: readonly string[] = [], conditions: readonly Condition[] = []): string {
  const parts = topics.map((topic) => `topic=${encodeURIComponent(topic)}`);
  for (const { topic, epoch, offset } of conditions) {
    if (epoch === undefined && offset !== undefined && offset !== "0") {
      throw new TypeError("a condition with an offset needs its epoch");
    }
    const position = epoch === undefined ? "0" : `${epoch}:${offset ?? "0"}`;
    parts.push(`if_last=${encodeURIComponent(`${topic}@${position}`)}`);
  }
  return parts.length === 0 ? "" : `?${parts.join("&")}`;
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
