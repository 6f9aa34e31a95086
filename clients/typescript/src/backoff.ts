/** The delays between attempts to connect. Knows no connection. */

const FIRST_MS = 1_000;
const MAX_MS = 30_000;
/** The longest delay that the client accepts from a relay: an hour. */
export const RETRY_AFTER_MAX_MS = 3_600_000;
/** The shortest delay before a request is sent again, whatever the relay says. */
export const RETRY_AFTER_MIN_MS = 100;

/** Delays of 1, 2, 4, 8, 16, 30, 30 … s, each reduced by a random part of up to one half. */
export class Backoff {
  /** The number of failures since the last success. */
  failures = 0;
  #failuresBefore = 0;

  /** Returns the next delay in ms. */
  next(): number {
    const whole = Math.min(MAX_MS, FIRST_MS * 2 ** this.failures);
    this.failures += 1;
    return withJitter(whole);
  }

  /** Starts again at the first delay. */
  reset(): void {
    this.#failuresBefore = this.failures;
    this.failures = 0;
  }

  /** Continues as if the last `reset` had not been called. */
  undoReset(): void {
    this.failures = Math.max(this.failures, this.#failuresBefore);
  }
}

/** Reduces a delay by a random part of up to one half, so that clients do not return together. */
export function withJitter(ms: number): number {
  return Math.round(ms * (1 - Math.random() / 2));
}

/** Returns the delay in a close reason: `retry_after_ms=…`, anywhere in it. */
export function retryAfterMs(reason: string): number | undefined {
  const digits = /retry_after_ms=([0-9]+)/.exec(reason)?.[1];
  return digits === undefined ? undefined : Math.min(RETRY_AFTER_MAX_MS, Number(digits));
}
