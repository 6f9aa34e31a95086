/** What the end of a connection means for the next one. */

import { retryAfterMs, withJitter } from "./backoff.js";
import { ConnectionError } from "./errors.js";

const NORMAL = 1000;
const GOING_AWAY = 1001;
const DISCONNECTED_BY_BACKEND = 4002;
const KEPT_BEING_REFUSED = 4005;
const KEPT_BEING_REFUSED_MS = 60_000;
/** Protocol error, wrong kind of frame, invalid UTF-8, message too big. */
const CLIENT_FAULTS: readonly number[] = [1002, 1003, 1007, 1009];

/** When to connect again: never, after a delay that the relay asks for, or after the next backoff. */
export type Next =
  | { readonly kind: "never" }
  | { readonly kind: "after"; readonly ms: number }
  | { readonly kind: "backoff" };

/**
 * Returns what a close code means. Codes that it does not name, such as 4001, 4003 and 4004, mean
 * to connect again: each attempt asks for a new token, and resumes.
 */
export function nextAfterClose(code: number, reason: string): Next {
  if (code === DISCONNECTED_BY_BACKEND || CLIENT_FAULTS.includes(code)) return { kind: "never" };
  if (code === KEPT_BEING_REFUSED) {
    return { kind: "after", ms: KEPT_BEING_REFUSED_MS + withJitter(1_000) };
  }
  // The relay has spread these delays, so they get no jitter.
  const asked = code === NORMAL || code === GOING_AWAY ? retryAfterMs(reason) : undefined;
  return asked === undefined ? { kind: "backoff" } : { kind: "after", ms: asked };
}

/** Returns the error for a closed WebSocket. */
export function closeError(closeCode: number, closeReason: string): ConnectionError {
  const shown = closeReason === "" ? `${closeCode}` : `${closeCode} (${closeReason})`;
  const end = { closeCode, closeReason };
  if (closeCode === DISCONNECTED_BY_BACKEND) {
    return new ConnectionError("DISCONNECTED", `a backend disconnected the user: ${shown}`, end);
  }
  if (CLIENT_FAULTS.includes(closeCode)) {
    return new ConnectionError("CLIENT_FAULT", `this client violated the protocol: ${shown}`, end);
  }
  return new ConnectionError("LOST", `the connection was closed with ${shown}`, end);
}
