/** The state of the connection, as components see it. */

import type { ConnectionState } from "@sidewire/client";
import { useConnection } from "@sidewire/react";
import { act, cleanup } from "@testing-library/react";
import { useEffect } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { accepted, startClient } from "../../../test/support/client.js";
import { connect, page } from "../support/render.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

/** Shows the state, and keeps those with which it was rendered. */
function Connection({ states = [] }: { states?: ConnectionState[] }) {
  const state = useConnection();
  useEffect(() => void states.push(state), [states, state]);
  return <p>{state.name === "waiting" ? `waiting: ${state.reason.code}` : state.name}</p>;
}

test("a component is rendered with each state of the connection", async () => {
  const { relay, text } = await page(<Connection />);
  expect(text()).toBe("idle");
  await act(async () => relay.connect());
  expect(text()).toBe("connecting");
  const socket = await connect("idle");
  expect(text()).toBe("open");
  await act(async () => relay.subscribe(["project:1"], { onGap: () => {} }));
  expect(text()).toBe("resuming");
  await act(async () => socket.confirm(5));
  expect(text()).toBe("open");
  await act(async () => socket.end(1006));
  expect(text()).toBe("waiting: LOST");
  await act(async () => relay.connect());
  (await act(accepted)).end(4002);
  await act(async () => {});
  expect(text()).toBe("closed");
});

test("a component does not connect, and is not rendered without a new state", async () => {
  const states: ConnectionState[] = [];
  const { relay, show } = await page(<Connection states={states} />);
  states.length = 0;
  await show(<Connection states={states} />);
  expect(states).toEqual([]);
  expect(relay.state.name).toBe("idle");
});

test("a component has the state of another client if the provider has another one", async () => {
  const { relay, showWith, text } = await page(<Connection />);
  const other = startClient().relay;
  await showWith(other, <Connection />);
  await act(async () => relay.connect());
  expect(text()).toBe("idle");
  await act(async () => other.connect());
  expect(text()).toBe("connecting");
});
