/** The client against the real relay, through a proxy that fails. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Sidewire, type SidewireOptions } from "../../src/index.js";
import { protobuf } from "../../src/protobuf.js";
import { Publisher } from "../../src/publisher.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { TestRelay } from "../support/relay.js";
import { TIMERS, until, untilState } from "../support/wait.js";
import { WebSocket } from "../support/web_socket.js";

const logger = { debug: () => {}, warn: console.warn, error: console.error };

describe.each([
  ["JSON", undefined],
  ["Protocol Buffers", protobuf(EnvelopeSchema)],
])("with %s", (_, schema) => {
  let server: TestRelay;
  let proxy: FaultyProxy;
  let publisher: Publisher;
  const clients: Sidewire[] = [];

  beforeAll(async () => {
    server = await TestRelay.start({ limits: 'outbox_bytes = "128KiB"' });
    publisher = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: server.key });
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    proxy = await FaultyProxy.start(server.clientPort);
    // The shortest delays.
    vi.spyOn(Math, "random").mockReturnValue(0.99);
  });
  afterEach(async () => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    for (const client of clients.splice(0)) client.close();
    await proxy.stop();
  });

  function client(options: Partial<SidewireOptions> = {}): Sidewire {
    const relay = new Sidewire(`ws://127.0.0.1:${proxy.port}/ws`, {
      getToken: () => server.token("ann"),
      WebSocket,
      logger,
      ...(schema === undefined ? {} : { schema: schema as NonNullable<SidewireOptions["schema"]> }),
      ...options,
    });
    clients.push(relay);
    return relay;
  }

  /** Follows a topic; `got` are the types of its events, and its gaps. */
  function follow(relay: Sidewire, topics: string[], options = {}) {
    const got: string[] = [];
    const subscription = relay.subscribe(topics, {
      onEvent: (event) => got.push((event.payload as { type: string }).type),
      onGap: () => got.push("gap"),
      ...options,
    });
    return { got, subscription };
  }

  const post = (topic: string, type: string) =>
    publisher.publish("acme", { event: { type } }, { topics: [topic] });

  test("events of its topics and for its user arrive, and no others", async () => {
    const { got, subscription } = follow(client(), ["order:7"]);
    await subscription.ready;
    await post("order:8", "not for ann");
    await post("order:7", "shipped");
    await post("user:bob", "not for ann");
    await post("user:ann", "hello");
    await until("two events", () => got.length >= 2);
    expect(got).toEqual(["shipped", "hello"]);
    expect(subscription.position?.offset).toMatch(/^[0-9]+$/);
  });

  test("after its connection was cut it gets what it missed, in order", async () => {
    const relay = client();
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await post("order:7", "1");
    await until("the first event", () => got.length === 1);
    proxy.refuse();
    await untilState(relay, "waiting");
    for (const type of ["2", "3", "4"]) await post("order:7", type);
    proxy.allow();
    await untilState(relay, "open");
    await post("order:7", "5");
    await until("five events", () => got.length >= 5);
    expect(got).toEqual(["1", "2", "3", "4", "5"]);
  });

  test("a later client goes on where an earlier one stopped", async () => {
    const first = client();
    const { subscription } = follow(first, ["order:7"]);
    await subscription.ready;
    const since = JSON.parse(JSON.stringify(subscription.position));
    first.close();
    await post("order:7", "missed");
    const { got } = follow(client(), ["order:7"], { since });
    await until("the event", () => got.length > 0);
    expect(got).toEqual(["missed"]);
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

  test("a connection that is only half open is noticed after 60 s", async () => {
    const relay = client();
    vi.useFakeTimers({ toFake: [...TIMERS] });
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    proxy.swallow();
    await post("order:7", "swallowed");
    vi.advanceTimersByTime(60_000);
    expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "DEAD" } });
    proxy.stopSwallowing();
    vi.advanceTimersByTime(1_000);
    await until("the event", () => got.length > 0);
    expect(got).toEqual(["swallowed"]);
  });

  test("a client that is too slow is closed with 4003, and then gets everything once", async () => {
    const relay = client();
    const codes: unknown[] = [];
    relay.on("state", (it) => it.name === "waiting" && codes.push(it.reason.closeCode));
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    proxy.hold();
    const events = Array.from({ length: 300 }, (_, index) => `${index}:${"x".repeat(30_000)}`);
    for (let at = 0; at < events.length; at += 100) {
      const batch = events.slice(at, at + 100).map((type) => ({ event: { type } }));
      await publisher.publishBatch("acme", batch, { topics: ["order:7"] });
    }
    proxy.release();
    await until("all events", () => got.length >= events.length);
    expect(got.map((type) => type.split(":")[0])).toEqual(events.map((_, index) => `${index}`));
    expect(codes).toContain(4003);
  });

  test("a token is renewed on the open connection, and topics that it does not cover end", async () => {
    vi.useFakeTimers({ toFake: [...TIMERS] });
    const topics = ["order:7", "order:8"];
    const exp = Math.floor(Date.now() / 1000) + 8;
    const tokens = [
      server.token("ann", { exp, topics }),
      server.token("ann", { topics: ["order:7"] }),
    ];
    let asked = 0;
    const relay = client({ getToken: () => tokens[Math.min(asked++, 1)] ?? "" });
    const states: string[] = [];
    relay.on("state", (it) => states.push(it.name));
    const { got, subscription } = follow(relay, ["order:7"]);
    const revoked: string[] = [];
    const onRevoked = (lost: readonly string[]) => revoked.push(...lost);
    const lost = follow(relay, ["order:8"], { onRevoked });
    await Promise.all([subscription.ready, lost.subscription.ready]);
    // The client asks for the new token at once, so that the old one lives long enough.
    vi.advanceTimersByTime(8_000);
    await until("the renewal", () => revoked.length > 0);
    await until("the end of the old token", () => Date.now() / 1000 > exp + 1);
    await post("order:8", "not for ann");
    await post("order:7", "shipped");
    await until("the event", () => got.length > 0);
    expect(got).toEqual(["shipped"]);
    expect(revoked).toEqual(["order:8"]);
    expect(asked).toBe(2);
    expect(states).not.toContain("waiting");
  });

  test("a token that expires is replaced, and nothing is missed", async () => {
    const shortLived = () => server.token("ann", { exp: Math.floor(Date.now() / 1000) + 3 });
    let token = shortLived();
    let wasLive = false;
    const codes: unknown[] = [];
    // The application keeps its token until it has expired.
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
    await untilState(relay, "waiting");
    await post("order:7", "missed");
    await until("the event", () => got.length > 0);
    expect(codes).toEqual([4001]);
  });

  test("a user whom the backend disconnects stays away until the application connects", async () => {
    const relay = client();
    const { got, subscription } = follow(relay, ["order:7"]);
    await subscription.ready;
    await server.disconnect("ann");
    await untilState(relay, "closed");
    expect(relay.state).toMatchObject({ reason: { code: "DISCONNECTED", closeCode: 4002 } });
    await post("order:7", "missed");
    relay.connect();
    await until("the event", () => got.length > 0);
    expect(got).toEqual(["missed"]);
  });

  test("a topic outside of the token's grant is refused, and the others are not", async () => {
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

  test("an ended subscription leaves the others as they are", async () => {
    const relay = client();
    const { got, subscription } = follow(relay, ["order:7"]);
    const other = follow(relay, ["order:8"]);
    await Promise.all([subscription.ready, other.subscription.ready]);
    subscription.unsubscribe();
    await post("order:8", "for the other");
    await until("the event", () => other.got.length > 0);
    const { matched } = await post("order:7", "for nobody");
    expect(matched).toBe(0);
    expect(got).toEqual([]);
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
