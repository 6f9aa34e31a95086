/** Clients that see each other, over the real relay. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  json,
  type Presence,
  type PresenceOptions,
  type PublishRefusal,
  Sidewire,
  type SidewireOptions,
} from "../../src/index.js";
import { protobuf } from "../../src/protobuf.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { routingTable, TestRelay } from "../support/relay.js";
import { until, untilState } from "../support/wait.js";
import { WebSocket } from "../support/web_socket.js";

const logger = { debug: () => {}, warn: console.warn, error: console.error };

type Payload = { type: string; userId: string; topics: string[] };
type Events = { message: Payload; presence: Payload & { absent: boolean } };
type Options = SidewireOptions<Events>;
type Client = Sidewire<Events>;

describe.each([
  ["JSON", () => json(routingTable())],
  ["Protocol Buffers", () => protobuf(EnvelopeSchema)],
])("with %s", (_, schemaOf) => {
  let server: TestRelay;
  let proxy: FaultyProxy;
  let schema: NonNullable<Options["schema"]>;
  const clients: Client[] = [];

  beforeAll(async () => {
    // Longer than a reconnect takes on a busy machine.
    server = await TestRelay.start({ presence: 'linger = "5s"' });
    schema = schemaOf() as typeof schema;
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    proxy = await FaultyProxy.start(server.clientPort);
    // The shortest delays.
    vi.spyOn(Math, "random").mockReturnValue(0.99);
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    for (const client of clients.splice(0)) client.close();
    await proxy.stop();
  });

  function client(user: string, port = server.clientPort, claims = {}): Client {
    const relay = new Sidewire<Events>(`ws://127.0.0.1:${port}/ws`, {
      getToken: () => server.token(user, claims),
      WebSocket,
      logger,
      schema,
    });
    clients.push(relay);
    return relay;
  }

  /** Follows topics; `got` are the messages of other clients, with who has sent them. */
  async function follow(relay: Client, topics: string[]): Promise<string[]> {
    const got: string[] = [];
    const subscription = relay.subscribe(topics, { onGap: () => {} });
    subscription.on("message", ({ payload, position }) =>
      got.push(`${payload.userId} ${payload.type}${position === undefined ? "" : " stored"}`),
    );
    await subscription.ready;
    return got;
  }

  /** Opens the presence on a topic; `told` are the changes. */
  async function open(relay: Client, topic: string, options: PresenceOptions<Events> = {}) {
    const told: string[] = [];
    const presence = relay.presence(topic, {
      onChange: ({ user, payload }) => told.push(`${user} ${payload?.type ?? "gone"}`),
      ...options,
    });
    await presence.ready;
    return { presence, told };
  }

  const show = (presence: Presence<Events>, type: string, topics = [presence.topic]) =>
    presence.set("presence", { type, topics });

  test("an event reaches the others on its topics, in order, and says who has sent it", async () => {
    const [ann, tab, bob, cat] = [client("ann"), client("ann"), client("bob"), client("cat")];
    const own = await follow(ann, ["room:1"]);
    const [others, elsewhere] = [
      [await follow(tab, ["room:1"]), await follow(bob, ["room:*"])],
      await follow(cat, ["room:2"]),
    ];
    for (const type of ["1", "2", "3"]) {
      await ann.publish("message", { type, topics: ["room:1"], userId: "bob" });
    }
    const expected = ["ann 1", "ann 2", "ann 3"];
    await until("the events", () => others.every((it) => it.length >= 3));
    expect(others).toEqual([expected, expected]);
    expect([own, elsewhere]).toEqual([[], []]);
  });

  test("an event for a topic that is not subscribed is refused, and the client goes on", async () => {
    const ann = client("ann");
    await follow(ann, ["room:1"]);
    const refusals: PublishRefusal[] = [];
    ann.on("refused", (refusal) => refusals.push(refusal));
    const messageId = await ann.publish("message", { type: "typing", topics: ["room:2"] });
    await until("the refusal", () => refusals.length > 0);
    expect(refusals).toMatchObject([{ messageId, error: { code: "AUTHORIZATION_FAILED" } }]);
    expect(ann.state.name).toBe("open");
  });

  test("users see each other come, change and go", async () => {
    const ann = await open(client("ann"), "room:3");
    const relay = client("bob");
    const bob = await open(relay, "room:3");
    show(ann.presence, "reading");
    show(bob.presence, "writing");
    await until("both", () => ann.told.length > 0 && bob.told.length > 0);
    show(ann.presence, "away");
    await until("the change", () => bob.told.length > 1);
    ann.presence.withdraw();
    await until("the withdrawal", () => bob.told.length > 2);
    expect(bob.told).toEqual(["ann reading", "ann away", "ann gone"]);
    relay.close();
    await until("the end of the linger", () => ann.told.length > 1);
    expect(ann.told).toEqual(["bob writing", "bob gone"]);
    expect(ann.presence.users("presence").size).toBe(0);
  });

  test("who comes later sees who is there, also by a wildcard or a topic of the token", async () => {
    const ann = await open(client("ann"), "room:4");
    show(ann.presence, "reading");
    const claims = { subscribe: ["room:4"] };
    const later = [
      await open(client("bob"), "room:4"),
      await open(client("cat"), "room:*"),
      await open(client("dan", server.clientPort, claims), "room:4"),
    ];
    await until("the user", () => later.every(({ told }) => told.length > 0));
    expect(later.map(({ told }) => told)).toEqual(later.map(() => ["ann reading"]));
  });

  test("a user who reconnects within the linger is not shown to leave", async () => {
    const relay = client("ann", proxy.port);
    const ann = await open(relay, "room:5");
    const bob = await open(client("bob"), "room:5");
    show(ann.presence, "reading");
    await until("ann", () => bob.told.length > 0);
    proxy.refuse();
    await untilState(relay, "waiting");
    proxy.allow();
    relay.connect();
    await until("the message after the reconnect", () => bob.told.length > 1);
    // Whoever leaves now is shown to leave after ann would be.
    const leaving = client("cat");
    show((await open(leaving, "room:5")).presence, "reading");
    await until("cat", () => bob.told.length > 2);
    leaving.close();
    await until("the end of the linger", () =>
      [ann, bob].every(({ told }) => told.includes("cat gone")),
    );
    expect(bob.told).toEqual(["ann reading", "ann reading", "cat reading", "cat gone"]);
    // Its own message, which lingered, is none of another.
    expect(ann.told).toEqual(["cat reading", "cat gone"]);
  });

  test("after a reconnect the view is what there is now, without flicker", async () => {
    const relay = client("bob", proxy.port);
    const bob = await open(relay, "room:6");
    const [ann, cat] = [await open(client("ann"), "room:6"), await open(client("cat"), "room:6")];
    show(ann.presence, "reading");
    show(cat.presence, "reading");
    await until("both", () => bob.told.length === 2);
    proxy.refuse();
    await untilState(relay, "waiting");
    cat.presence.withdraw();
    const dan = await open(client("dan"), "room:6");
    show(dan.presence, "writing");
    expect(bob.presence.users("presence").size).toBe(2);
    proxy.allow();
    relay.connect();
    await until(
      "the changes",
      () => bob.told.length >= 4,
      () => bob.told,
    );
    // In either order: the relay may learn of the one after the other has come back.
    expect(bob.told.slice(2).sort()).toEqual(["cat gone", "dan writing"]);
    expect([...bob.presence.users("presence").keys()]).toEqual(["ann", "dan"]);
  });

  // Last, since it begins another epoch.
  test("after a restart of the relay everybody is shown again", async () => {
    const ann = await open(client("ann"), "room:7");
    const bob = await open(client("bob"), "room:7");
    show(ann.presence, "reading");
    show(bob.presence, "writing");
    await until("both", () => ann.told.length > 0 && bob.told.length > 0);
    await server.restart();
    const later = await open(client("cat"), "room:7");
    const shown = () => [...later.presence.users("presence").keys()].sort().join();
    await until("both", () => shown() === "ann,bob");
    await until("each other", () =>
      [ann, bob].every(({ presence }) => presence.users("presence").size === 1),
    );
  });
});
