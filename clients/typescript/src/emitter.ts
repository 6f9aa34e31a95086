/** A list of callbacks, of which none can stop the others. */

import type { Logger } from "./logger.js";

/** Callbacks by name. */
export class Emitter<Callbacks> {
  readonly #callbacks = new Map<keyof Callbacks, Set<(value: never) => void>>();
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Adds a callback; the function that is returned removes it. */
  on<Name extends keyof Callbacks>(
    name: Name,
    callback: (value: Callbacks[Name]) => void,
  ): () => void {
    const callbacks = this.#callbacks.get(name) ?? new Set();
    this.#callbacks.set(name, callbacks);
    // One function may be added twice, and removed once.
    const own = (value: Callbacks[Name]) => callback(value);
    callbacks.add(own);
    return () => void callbacks.delete(own);
  }

  /** Calls the callbacks of a name; returns false if there are none. */
  emit<Name extends keyof Callbacks>(name: Name, value: Callbacks[Name]): boolean {
    const callbacks = [...(this.#callbacks.get(name) ?? [])];
    for (const callback of callbacks) guard(this.#logger, () => callback(value as never));
    return callbacks.length > 0;
  }
}

/** Calls a function of the application; what it throws, or rejects with, goes to the logger. */
export function guard(logger: Logger, call: () => unknown): void {
  const failed = (error: unknown) => logger.error("sidewire: a callback failed", error);
  try {
    const result = call();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}
