/** The client against the real relay where WebSockets do not pass. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  json,
  Sidewire,
  type SidewireEvent,
  type SidewireOptions,
  type TransportName,
} from "../../src/index.js";
import { protobuf } from "../../src/protobuf.js";
import { Publisher } from "../../src/publisher.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { routingTable, TestRelay } from "../support/relay.js";
import { TIMERS, until, untilState } from "../support/wait.js";
import { WebSocket } from "../support/web_socket.js";

const logger = { debug: () => {}, warn: console.warn, error: console.error };
type Schema = NonNullable<SidewireOptions["schema"]>;
const binary = protobuf(EnvelopeSchema, () => import("../../src/protobuf_json.js")) as Schema;

describe.each<[TransportName, string, () => Schema]>([
  ["sse", "JSON", () => json(routingTable())],
  ["sse", "Protocol Buffers", () => binary],
  ["poll", "JSON", () => json(routingTable())],
  ["poll", "Protocol Buffers", () => binary],
])("over %s with %s", (transport, _, schemaOf) => {
  let server: TestRelay;
  let proxy: FaultyProxy;
  let publisher: Publisher;
  let schema: Schema;
  const clients: Sidewire[] = [];

  beforeAll(async () => {
    server = await TestRelay.start({ presence: 'linger = "1s"' });
    schema = schemaOf();
    publisher = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: server.key });
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    proxy = await FaultyProxy.start(server.clientPort);
    block();
    // The shortest delays.
    vi.spyOn(Math, "random").mockReturnValue(0.99);
  });
  afterEach(async () => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    for (const client of clients.splice(0)) client.close();
    await proxy.stop();
  });

  /** Lets nothing pass but the transport under test. */
  function block(): void {
    proxy.block(transport === "sse" ? /^upgrade: websocket/im : /^upgrade: websocket|^GET \/sse/im);
  }

  function client(options: Partial<SidewireOptions> = {}): Sidewire {
    const relay = new Sidewire(`ws://127.0.0.1:${proxy.port}/ws`, {
      getToken: () => server.token("ann"),
      WebSocket,
      logger,
      schema,
      ...options,
    });
    clients.push(relay);
    return relay;
  }

  /** Follows a topic; `got` are the types of its events, and its gaps. */
  function follow(relay: Sidewire, topics: string[], options = {}) {
    const got: string[] = [];
    const events: SidewireEvent[] = [];
    const subscription = relay.subscribe(topics, {
      onEvent: (event) => {
        events.push(event);
        got.push((event.payload as { type: string }).type);
      },
      onGap: () => got.push("gap"),
      ...options,
    });
    return { got, events, subscription };
  }

  const post = (topic: string, type: string) =>
    publisher.publish("acme", { event: { type, data: { n: 1 } } }, { topics: [topic] });

  test("events of its topics and for its user arrive in order, and no others", async () => {
    const relay = client();
    const { got, events, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await untilState(relay, "open");
    expect(relay.state).toEqual({ name: "open", transport });
    await post("order:8", "not for ann");
    await post("order:7", "shipped");
    await post("user:bob", "not for ann");
    await post("user:ann", "hello");
    await until("two events", () => got.length >= 2);
    expect(got).toEqual(["shipped", "hello"]);
    // As they are on a WebSocket.
    const direct = follow(client({ transports: ["websocket"] }), ["order:7"], {
      since: { ...events[0]?.position, offset: "0" },
    });
    proxy.block(undefined);
    await until("the same events", () => direct.got.length >= 2);
    expect(direct.events).toEqual(events);
  });

  test("after a cut it gets what it missed, and moves to a WebSocket as soon as one passes", async () => {
    const relay = client();
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await post("order:7", "1");
    await until("the first event", () => got.length === 1);
    proxy.refuse();
    await untilState(relay, "waiting");
    for (const type of ["2", "3", "4"]) await post("order:7", type);
    proxy.allow();
    await until("four events", () => got.length >= 4);
    await untilState(relay, "open");
    expect(relay.state).toEqual({ name: "open", transport });
    proxy.block(undefined);
    await until("the WebSocket", () => transportOf(relay) === "websocket");
    await post("order:7", "5");
    await until("five events", () => got.length >= 5);
    block();
    proxy.cut();
    await until("the fallback", () => transportOf(relay) === transport);
    await post("order:7", "6");
    await until("six events", () => got.length >= 6);
    expect(got).toEqual(["1", "2", "3", "4", "5", "6"]);
  });

  test("a subscription that begins earlier than the others gets everything, and they nothing twice", async () => {
    const relay = client();
    const { position: since } = await post("order:8", "stored with the state");
    await post("order:8", "missed");
    const other = follow(relay, ["order:7"]);
    await other.subscription.ready;
    await post("order:7", "live");
    await until("an event", () => other.got.length === 1);
    const late = follow(relay, ["order:8"], { since });
    await late.subscription.ready;
    await post("order:7", "later");
    await until("the last event", () => late.got.includes("later") && other.got.length > 1);
    expect(other.got).toEqual(["live", "later"]);
    expect(late.got).toEqual(["missed", "live", "later"]);
  });

  test("topics outside of the token's grant are refused, and the others are not", async () => {
    const relay = client({ getToken: () => server.token("ann", { topics: ["order:*"] }) });
    const { got, subscription } = follow(relay, ["order:7"]);
    const refused = follow(relay, ["team:red"], { onRefused: () => {} });
    await expect(refused.subscription.ready).rejects.toMatchObject({
      name: "RelayError",
      code: "AUTHORIZATION_FAILED",
    });
    await subscription.ready;
    await post("order:7", "shipped");
    await until("the event", () => got.length > 0);
    expect(refused.got).toEqual([]);
  });

  test("a token that expires is replaced, and nothing is missed", async () => {
    const shortLived = () => server.token("ann", { exp: Math.floor(Date.now() / 1000) + 4 });
    let token = shortLived();
    let wasLive = false;
    const codes: unknown[] = [];
    const relay = client({ getToken: () => token });
    relay.on("state", (it) => {
      if (it.name !== "waiting") return;
      // On a busy machine a token may expire before it was used.
      token = wasLive ? server.token("ann") : shortLived();
      if (wasLive) codes.push(it.reason.closeCode);
    });
    const onLive = () => {
      wasLive = true;
    };
    const { got, subscription } = follow(relay, ["order:7"], { onLive });
    await subscription.ready;
    await until("the end", () => codes.length > 0);
    await post("order:7", "missed");
    await until("the event", () => got.length > 0);
    expect(codes).toEqual([4001]);
    expect(got).toEqual(["missed"]);
  });

  test("a token that is refused is told, with the reason", async () => {
    // The refusal is also logged.
    const relay = client({ getToken: () => "none", logger: { ...logger, warn: () => {} } });
    follow(relay, ["order:7"]);
    await until("the refusal", () => {
      const { state } = relay;
      return state.name === "waiting" && state.reason.code === "TOKEN_REFUSED";
    });
  });

  test("a connection that is only half open is given up, and nothing is missed", async () => {
    vi.useFakeTimers({ toFake: [...TIMERS] });
    const reasons: string[] = [];
    const relay = client({ transports: [transport] });
    relay.on("state", (it) => it.name === "waiting" && reasons.push(it.reason.code));
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    proxy.swallow();
    await post("order:7", "swallowed");
    vi.advanceTimersByTime(60_000);
    expect(new Set(reasons)).toEqual(new Set(["DEAD"]));
    proxy.stopSwallowing();
    vi.useRealTimers();
    relay.close();
    const later = follow(client(), ["order:7"], { since: subscription.position });
    await until("the event", () => later.got.length > 0);
    expect([...got, ...later.got]).toEqual(["swallowed"]);
  });

  // A poll that ends early has no close code.
  test.skipIf(transport === "poll")("a user whom the backend disconnects stays away", async () => {
    const relay = client();
    const { subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await server.disconnect("ann");
    await untilState(relay, "closed");
    expect(relay.state).toMatchObject({ reason: { code: "DISCONNECTED", closeCode: 4002 } });
  });

  test("nothing can be sent, and presence is shown where the transport has it", async () => {
    const relay = client();
    const room = relay.presence("room:1");
    await room.ready;
    await expect(relay.publish("message", { topics: ["room:1"] })).rejects.toMatchObject({
      code: "CANNOT_SEND",
    });
    const bob = client({
      getToken: () => server.token("bob"),
      transports: ["websocket"],
    });
    proxy.block(undefined);
    const his = bob.presence("room:1");
    his.set("presence", { type: "here", topics: ["room:1"] });
    await his.ready;
    if (transport === "sse") await until("bob", () => room.users("presence").has("bob"));
    else expect(room.users("presence").size).toBe(0);
  });

  // Last, since it begins another epoch.
  test("a restart of the relay is told as a gap, and events go on after it", async () => {
    const relay = client();
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await post("order:7", "before");
    await until("the first event", () => got.length === 1);
    await server.restart();
    await until("the gap", () => got.length === 2);
    await post("order:7", "after");
    await until("the last event", () => got.length >= 3);
    expect(got).toEqual(["before", "gap", "after"]);
  });
});

test("an outage moves no client to another transport", async () => {
  const server = await TestRelay.start();
  const clients = Array.from({ length: 20 }, (_, index) => {
    const relay = new Sidewire(`ws://127.0.0.1:${server.clientPort}/ws`, {
      getToken: () => server.token(`user-${index}`),
      WebSocket,
      logger,
    });
    relay.subscribe(["order:7"], { onGap: () => {} });
    return relay;
  });
  const used = new Set<string | undefined>();
  const failures: number[] = [];
  for (const [index, relay] of clients.entries()) {
    relay.on("state", (state) => {
      if (state.name === "waiting") failures[index] = state.failures;
      if (state.name === "open") used.add(state.transport);
    });
  }
  const areOpen = () => clients.every((it) => it.state.name === "open");
  await until("all are open", areOpen);
  await server.kill();
  await until("four failures", () => clients.every((_, index) => (failures[index] ?? 0) >= 4));
  await server.restart();
  await until("all are open again", areOpen);
  expect([...used]).toEqual(["websocket"]);
  for (const relay of clients) relay.close();
  await server.stop();
});

function transportOf({ state }: Sidewire): TransportName | undefined {
  return state.name === "open" ? state.transport : undefined;
}
