/** What the end of a connection means for the next one. */

import { retryAfterMs, withJitter } from "./backoff.js";
import { ConnectionError, type ConnectionErrorCode } from "./errors.js";

const DISCONNECTED_BY_BACKEND = 4002;
const KEPT_BEING_REFUSED = 4005;
const KEPT_BEING_REFUSED_MS = 60_000;
const FRESH_TOKEN_WANTED = 4006;
// A refused handshake: 4000 and the status that it would have over HTTP.
const TOKEN_REFUSED = 4401;
const ORIGIN_REFUSED = 4403;
const TOO_MANY = 4429;
const UNAVAILABLE = 4503;
/** Protocol error, wrong kind of frame, invalid UTF-8, message too big. */
const CLIENT_FAULTS: readonly number[] = [1002, 1003, 1007, 1009];
const FINAL: readonly number[] = [DISCONNECTED_BY_BACKEND, ORIGIN_REFUSED, ...CLIENT_FAULTS];

/**
 * When to connect again: never, at once, after a delay that the relay asks for, or after the next
 * backoff, which begins when the delay that the relay asks for is over.
 */
export type Next =
  | { readonly kind: "never" }
  | { readonly kind: "at once" }
  | { readonly kind: "after"; readonly ms: number }
  | { readonly kind: "backoff"; readonly afterMs: number };

/**
 * Returns what a close code means. Codes that it does not name, such as 4001, 4003 and 4004, mean
 * to connect again: each attempt asks for a new token, and resumes.
 */
export function nextAfterClose(code: number, reason: string): Next {
  if (FINAL.includes(code)) return { kind: "never" };
  const relayDelayMs = retryAfterMs(reason);
  // Clients that were refused at the same time must not return together, nor sooner each time.
  if (code === TOO_MANY || code === UNAVAILABLE) {
    return { kind: "backoff", afterMs: relayDelayMs ?? 0 };
  }
  // The relay has spread these delays, so they get no jitter.
  if (relayDelayMs !== undefined) return { kind: "after", ms: relayDelayMs };
  if (code === KEPT_BEING_REFUSED) {
    return { kind: "after", ms: KEPT_BEING_REFUSED_MS + withJitter(1_000) };
  }
  return code === FRESH_TOKEN_WANTED ? { kind: "at once" } : { kind: "backoff", afterMs: 0 };
}

/** Returns the error for a connection that was closed. */
export function closeError(closeCode: number, closeReason: string): ConnectionError {
  const shown = closeReason === "" ? `${closeCode}` : `${closeCode} (${closeReason})`;
  const [code, text] = meaningOf(closeCode);
  return new ConnectionError(code, `${text}: ${shown}`, { closeCode, closeReason });
}

function meaningOf(closeCode: number): [ConnectionErrorCode, string] {
  if (CLIENT_FAULTS.includes(closeCode)) {
    return ["CLIENT_FAULT", "this client violated the protocol"];
  }
  switch (closeCode) {
    case DISCONNECTED_BY_BACKEND:
      return ["DISCONNECTED", "a backend disconnected the user"];
    case TOKEN_REFUSED:
      return ["TOKEN_REFUSED", "the relay refused the token"];
    case ORIGIN_REFUSED:
      return ["ORIGIN_REFUSED", "the relay refused the origin"];
    default:
      return ["LOST", "the connection was closed"];
  }
}
