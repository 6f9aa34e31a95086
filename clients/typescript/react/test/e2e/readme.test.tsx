/** The README's example with the packages as they are published, over the real relay. */

import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cleanup, render } from "@testing-library/react";
import { type ComponentType, StrictMode } from "react";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { json, Sidewire } from "../../../src/index.js";
import { Publisher } from "../../../src/publisher.js";
import { routingTable, TestRelay } from "../../../test/support/relay.js";
import { until } from "../../../test/support/wait.js";
import { extractExamples } from "../support/readme.js";

let server: TestRelay;
let url: string;
let publisher: Publisher;
let examples: string;
/** What the application's backend knows of the order. */
let order = { status: "new" };

beforeAll(async () => {
  server = await TestRelay.start({ presence: 'linger = "200ms"' });
  examples = extractExamples("example");
  url = `ws://127.0.0.1:${server.clientPort}/ws`;
  const { fetch } = globalThis;
  publisher = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: server.key, fetch });
  vi.stubGlobal("WebSocket", TestSocket);
  vi.stubGlobal("fetch", answer);
});
afterEach(cleanup);
afterAll(async () => {
  vi.unstubAllGlobals();
  rmSync(examples, { recursive: true });
  await server.stop();
});

/** Stands for the example's addresses. */
class TestSocket extends WebSocket {
  constructor(address: string, protocols: string[]) {
    expect(address).toBe("wss://relay.example/ws");
    super(url, protocols);
  }
}

async function answer(path: string): Promise<Response> {
  if (path === "/relay-token") return new Response(server.token("ann"));
  if (path === "/relay-schema.json") return Response.json(routingTable());
  expect(path).toBe("/orders/7");
  return Response.json(order);
}

test("the example shows the order after each event, and who reads it", async () => {
  const { App }: { App: ComponentType } = await import(`${examples}/app.tsx`);
  const page = render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
  const shows = (text: string) =>
    until(
      text,
      () => page.container.textContent?.includes(text) ?? false,
      () => page.container.textContent,
    );
  await shows("The connection is open.");
  await shows("The order is new.");

  order = { status: "shipped" };
  const event = { event: { type: "order.shipped", data: { order: 7 } } };
  const receipt = await publisher.publish("acme", event, { topics: ["order:7"] });
  expect(receipt.matched).toBe(1);
  await shows("The order is shipped.");

  const bob = new Sidewire(url, {
    getToken: () => server.token("bob"),
    schema: json(routingTable()),
    WebSocket,
  });
  const readers = bob.presence("order:7");
  readers.set("presence", { type: "is reading too", topics: ["order:7"] });
  await until("ann", () => readers.users("presence").has("ann"));
  await shows("bob is reading too");
  page.unmount();
  await until("the end of ann", () => readers.users("presence").size === 0);
  bob.close();
});

test("the package is a client module for React Server Components", () => {
  const entry = readFileSync(join(import.meta.dirname, "../../dist/index.js"), "utf8");
  expect(entry.startsWith('"use client";')).toBe(true);
});
