/** The events of one `for await`, between their arrival and their turn. */

/** The most events that wait for one loop. */
export const QUEUE_MAX = 10_000;

/** A loop over events is too slow for them. */
export class SlowIterationError extends Error {
  override readonly name = "SlowIterationError";

  constructor() {
    super(`more than ${QUEUE_MAX} events wait for a loop over a subscription`);
  }
}

interface Waiting<T> {
  readonly resolve: (result: IteratorResult<T, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

/** A bounded queue that can be iterated. */
export class EventQueue<T> implements AsyncIterableIterator<T, undefined> {
  #events: T[] = [];
  #waiting: Waiting<T>[] = [];
  #error: unknown;
  #hasEnded = false;
  readonly #onReturn: () => void;

  constructor(onReturn: () => void) {
    this.#onReturn = onReturn;
  }

  /** Adds an event. If there are too many, the loop fails as soon as it asks for the next one. */
  push(event: T): void {
    if (this.#hasEnded) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve({ done: false, value: event });
    } else if (this.#events.length < QUEUE_MAX) {
      this.#events.push(event);
    } else {
      this.#events = [];
      this.end(new SlowIterationError());
    }
  }

  /** Ends the loop after the events that wait. */
  end(error?: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#error = error;
    this.#onReturn();
    for (const waiting of this.#waiting.splice(0)) {
      if (error === undefined) waiting.resolve({ done: true, value: undefined });
      else waiting.reject(error);
    }
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (!this.#hasEnded) {
      return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) return Promise.reject(error);
    return Promise.resolve({ done: true, value: undefined });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#events = [];
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
