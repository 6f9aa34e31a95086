/** A client over fake sockets, and what it tells its application. */

import { vi } from "vitest";
import {
  type ConnectionState,
  type Position,
  Sidewire,
  type SidewireOptions,
} from "../../src/index.js";
import type { SubscribeOptions, Subscription } from "../../src/subscription.js";
import { FakeSocket } from "./fake_socket.js";

export const logger = { debug: vi.fn(), warn: vi.fn(), error: vi.fn() };

export interface TestClient {
  readonly relay: Sidewire;
  /** The names of the states that it has been in. */
  readonly states: string[];
  /** Returns the state, which has to be `waiting`. */
  waiting(): Extract<ConnectionState, { name: "waiting" }>;
}

/** Starts a client whose clock the test moves. */
export function startClient(options: SidewireOptions = {}): TestClient {
  FakeSocket.reset();
  const relay = new Sidewire("ws://relay.test/ws", {
    WebSocket: FakeSocket,
    transports: ["websocket"],
    logger,
    ...options,
  });
  const states: string[] = [];
  relay.on("state", (state) => states.push(state.name));
  const waiting = () => {
    if (relay.state.name !== "waiting") throw new Error(`the state is ${relay.state.name}`);
    return relay.state;
  };
  return { relay, states, waiting };
}

/** A subscription, with what it was told. */
export interface Followed {
  readonly subscription: Subscription<Record<string, unknown>>;
  /** The offsets of its events, and its gaps, in their order. */
  readonly told: (number | string)[];
}

export function follow(
  relay: Sidewire,
  topics: string[],
  options: Partial<SubscribeOptions<Record<string, unknown>>> = {},
): Followed {
  const told: (number | string)[] = [];
  const subscription = relay.subscribe(topics, {
    onEvent: (event) => told.push(Number(event.position?.offset)),
    onGap: (since: Position, of) => told.push(`gap after ${since.offset} in ${of}`),
    ...options,
  }) as Subscription<Record<string, unknown>>;
  return { subscription, told };
}

/** Lets promises that are settled be followed up; no time passes. */
export async function settle(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0);
}

/** Returns the socket of the next connection, which the relay accepts. */
export async function accepted(): Promise<FakeSocket> {
  await settle();
  const socket = FakeSocket.last;
  socket.accept();
  await settle();
  return socket;
}

/** A client that follows project:1 up to offset 5, and is live. */
export async function live(): Promise<TestClient & Followed & { readonly socket: FakeSocket }> {
  const client = startClient();
  const followed = follow(client.relay, ["project:1"]);
  const socket = await accepted();
  socket.confirm(5);
  return { ...client, ...followed, socket };
}
