/** Waiting for facts. */

import type { ConnectionState, Sidewire } from "../../src/index.js";

const PATIENCE_MS = 20_000;

/**
 * Waits until a condition holds. It is looked at after each turn of the event loop. `describe` says how
 * things are if it never does.
 */
export async function until(
  what: string,
  holds: () => boolean,
  describe: () => unknown = () => "",
): Promise<void> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  while (!holds()) {
    if (performance.now() > giveUpAt) {
      throw new Error(`in vain: ${what} ${JSON.stringify(describe())}`);
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** Waits for a state of the connection. */
export function untilState<Events>(
  relay: Sidewire<Events>,
  name: ConnectionState["name"],
): Promise<void> {
  return new Promise((resolve) => {
    if (relay.state.name === name) {
      resolve();
      return;
    }
    const stop = relay.on("state", (state) => {
      if (state.name !== name) return;
      stop();
      resolve();
    });
  });
}
