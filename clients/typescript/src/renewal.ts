/** Renews the token of an open connection before it expires. */

import { Backoff, RETRY_AFTER_MAX_MS, withJitter } from "./backoff.js";
import type { Incoming, Outgoing, Refused } from "./codec.js";
import { RelayError } from "./errors.js";
import type { Logger } from "./logger.js";
import { newMessageId } from "./message_id.js";

/** A token is renewed in the last fifth of its time, but not earlier than this before its end. */
const LEAD_MAX_MS = 300_000;
/** Tokens that are nearly expired when they are issued must not become a flood of requests. */
const INTERVAL_MIN_MS = 5_000;
/** Timers cannot be much longer. */
const REMAINING_MAX_MS = 20 * 24 * 3_600_000;

/** The token of one connection, and the next one. */
export class Renewal {
  readonly #getToken: () => Promise<string>;
  readonly #send: (message: Outgoing) => void;
  readonly #logger: Logger;
  readonly #backoff = new Backoff();
  /** The token in use, and when it expires, in Unix seconds by the relay's clock. */
  #token: string;
  #expiresAt: number | undefined;
  /** The message id and the token of the Authenticate that has no answer yet. */
  #sent: { readonly messageId: string; readonly token: string } | undefined;
  /** A new token that the relay did not take for a reason that is not in the token. */
  #unused: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  constructor(
    token: string,
    getToken: () => Promise<string>,
    send: (message: Outgoing) => void,
    logger: Logger,
  ) {
    this.#token = token;
    this.#expiresAt = expiryOf(token);
    this.#getToken = getToken;
    this.#send = send;
    this.#logger = logger;
  }

  /** Takes a message of the relay; returns true if it concerns nobody else. */
  received(message: Incoming): boolean {
    if (message.kind === "refused") return this.#refused(message);
    if (message.kind === "authenticated") {
      const sent = this.#takeSent(message.requestMessageId);
      if (sent === undefined) return false;
      this.#token = sent.token;
      this.#expiresAt = message.expiresAt || undefined;
      this.#backoff.reset();
      this.#schedule(message.sentAt, INTERVAL_MIN_MS);
    } else if (message.kind === "confirmed" || message.kind === "pong") {
      // The clock of this machine may differ from the relay's.
      if (this.#timer === undefined) this.#schedule(message.sentAt, 0);
    }
    return false;
  }

  /** The connection has ended. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #schedule(sentAt: number | undefined, atLeastMs: number): void {
    if (this.#expiresAt === undefined || sentAt === undefined) return;
    // The relay's time is given in whole seconds.
    const ms = (this.#expiresAt - sentAt - 1) * 1_000;
    const remaining = Math.min(Math.max(ms, 0), REMAINING_MAX_MS);
    const lead = withJitter(Math.min(remaining / 5, LEAD_MAX_MS));
    this.#after(Math.max(remaining - lead, atLeastMs));
  }

  #after(ms: number): void {
    this.#timer = setTimeout(() => void this.#renew(), ms);
  }

  async #renew(): Promise<void> {
    // Without a new one: the application may keep its token until it is older.
    let token = this.#unused ?? this.#token;
    if (this.#unused === undefined) {
      try {
        token = await this.#getToken();
      } catch (cause) {
        if (!this.#isStopped) this.#logger.warn("sidewire: there is no new token", cause);
      }
    }
    this.#unused = undefined;
    if (this.#isStopped) return;
    const isLater = (expiryOf(token) ?? Infinity) > (this.#expiresAt ?? 0);
    if (!isLater || token === this.#token) {
      this.#after(this.#backoff.next());
      return;
    }
    const messageId = newMessageId();
    this.#sent = { messageId, token };
    this.#send({ kind: "authenticate", messageId, token });
  }

  #refused(message: Refused): boolean {
    const sent = this.#takeSent(message.requestMessageId);
    if (sent === undefined) return false;
    const { errorCode, errorMessage, retryAfterMs } = message;
    const error = new RelayError(errorCode, errorMessage);
    if (errorCode === "VALIDATION_ERROR") {
      // The schema has no Authenticate. The connection ends when the token expires.
      this.#logger.debug("sidewire: tokens cannot be renewed on a connection", error);
      return true;
    }
    this.#logger.warn("sidewire: the relay refuses a new token", error);
    const isInTheToken =
      errorCode === "AUTHENTICATION_FAILED" || errorCode === "AUTHORIZATION_FAILED";
    if (!isInTheToken) this.#unused = sent.token;
    this.#after(Math.min(retryAfterMs ?? 0, RETRY_AFTER_MAX_MS) + this.#backoff.next());
    return true;
  }

  #takeSent(messageId: string): { readonly token: string } | undefined {
    const sent = this.#sent;
    if (sent?.messageId !== messageId) return undefined;
    this.#sent = undefined;
    return sent;
  }
}

/** Returns when a token expires, in Unix seconds; undefined if it never does or is no JSON Web Token. */
function expiryOf(token: string): number | undefined {
  try {
    const claims = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(claims)) as { exp?: unknown };
    return typeof exp === "number" ? Math.floor(exp) : undefined;
  } catch {
    return undefined;
  }
}
