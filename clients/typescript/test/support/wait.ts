/** Waiting for facts. */

import type { ConnectionState, Sidewire } from "../../src/index.js";

/** Only a failure takes this long: tests also pass on a machine that stalls. */
const PATIENCE_MS = 60_000;
const LOOK_EVERY_MS = 2;
/** What tests move that move the client's timers: also the clock by which it looks at them. */
export const TIMERS = [
  "setTimeout",
  "clearTimeout",
  "setInterval",
  "clearInterval",
  "performance",
] as const;
/** That of the machine, also in tests that move the client's timers. */
const { setTimeout } = globalThis;

/**
 * Waits until a condition holds. It is looked at every 2 ms, since the relay needs the processor too.
 * `describe` says how things are if it never does.
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
    await new Promise<void>((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
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
