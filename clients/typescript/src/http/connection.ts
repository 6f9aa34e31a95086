/** What connections over HTTP have in common: each Subscribe is a request of its own. */

import type { EnvelopeReader, Incoming, Outgoing, SubscriptionRequest } from "../codec.js";
import { ConnectionError } from "../errors.js";
import {
  type Connection,
  type ConnectionOwner,
  HANDSHAKE_MS,
  type TransportName,
} from "../transport.js";
import { PING_INTERVAL_MS } from "../web_socket.js";
import { noRoomFor } from "./refusal.js";
import { type EventsRequest, firstWithoutRoom } from "./request.js";

/** A wake-up after a longer silence than this means to ask again. */
const SUSPECT_AFTER_MS = PING_INTERVAL_MS + 5_000;

/** So soon a connection begins anew when the subscriptions have changed. */
const REOPEN_AFTER_MS = 50;
/** It does so at most this often, since each time is charged like a handshake. */
const REOPEN_INTERVAL_MS = 1_000;

/** What a connection over HTTP is made with. */
export interface HttpOptions {
  /** The address of the WebSocket. */
  readonly url: string;
  /** Returns the token of the next request. */
  readonly token: () => string | undefined;
  readonly read: EnvelopeReader;
  readonly owner: ConnectionOwner;
}

/** A Subscribe. */
export type Subscribe = Extract<SubscriptionRequest, { kind: "subscribe" }>;

/** A connection that receives, and can send nothing but its one Subscribe, which may be replaced. */
export abstract class HttpConnection implements Connection {
  abstract readonly transport: TransportName;
  owner: ConnectionOwner;
  protected readonly options: HttpOptions;
  #abort: AbortController | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #reopenTimer: ReturnType<typeof setTimeout> | undefined;
  #begunAt = 0;

  constructor(options: HttpOptions) {
    this.options = options;
    this.owner = options.owner;
  }

  send(message: Outgoing): void {
    if (message.kind !== "subscribe") return;
    this.close();
    this.#begunAt = Date.now();
    this.#abort = new AbortController();
    void this.#run(message, this.#abort.signal);
  }

  sendFrame(): boolean {
    return false;
  }

  probe(): void {
    if (this.#abort !== undefined && Date.now() - this.#heardAt > SUSPECT_AFTER_MS) {
      this.owner.reopenWanted?.();
    }
  }

  reopenSoon(): void {
    const rest = this.#begunAt + REOPEN_INTERVAL_MS - Date.now();
    this.#reopenTimer ??= setTimeout(
      () => this.owner.reopenWanted?.(),
      Math.max(rest, REOPEN_AFTER_MS),
    );
  }

  close(): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#reopenTimer);
    this.#reopenTimer = undefined;
    this.#abort?.abort();
    this.#abort = undefined;
  }

  /** Asks for a Subscribe, and passes on what comes until the signal aborts it or the relay ends it. */
  protected abstract follow(subscribe: Subscribe, signal: AbortSignal): Promise<void>;

  /** Returns the request of a Subscribe without further parameters, and without a position. */
  protected abstract request(subscribe: Subscribe): EventsRequest;

  /** Something has to come within this time. */
  protected expectWithin(ms: number): void {
    this.#heardAt = Date.now();
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => {
      this.end(new ConnectionError("DEAD", `nothing arrived for ${ms / 1000} s`));
    }, ms);
  }

  protected end(error: ConnectionError): void {
    this.close();
    this.owner.ended(error);
  }

  async #run(subscribe: Subscribe, signal: AbortSignal): Promise<void> {
    try {
      const index = firstWithoutRoom(this.request(subscribe));
      if (index !== undefined) {
        // Not at once, since the session is about to send other things.
        await Promise.resolve();
        if (!signal.aborted) this.owner.received(noRoomFor(index, subscribe.messageId));
        return;
      }
      this.expectWithin(HANDSHAKE_MS);
      await this.follow(subscribe, signal);
      if (!signal.aborted) this.end(new ConnectionError("LOST", "the relay's answer has ended"));
    } catch (cause) {
      if (signal.aborted) return;
      const text = "the connection was lost, or could not be opened";
      this.end(
        cause instanceof ConnectionError ? cause : new ConnectionError("LOST", text, { cause }),
      );
    }
  }
}

/** Returns what `read` reads; what it throws becomes the error with which the connection ends. */
export function decoded(read: () => Incoming): Incoming {
  try {
    return read();
  } catch (cause) {
    throw new ConnectionError("UNREADABLE", "a message of the relay cannot be decoded", { cause });
  }
}
