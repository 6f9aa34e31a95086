/** What a subscription is told, message by message. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { RelayError } from "../../src/index.js";
import { accepted, follow, live, logger, settle, startClient } from "../support/client.js";
import { at, eventAt, FakeSocket } from "../support/fake_socket.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => vi.useRealTimers());

/** Ends the connection, and returns the next one. */
async function reconnect(socket: FakeSocket): Promise<FakeSocket> {
  socket.end(1006);
  await vi.advanceTimersByTimeAsync(30_000);
  return accepted();
}

test("events arrive with their name, payload, id, time and position", async () => {
  const { socket, subscription } = await live();
  const events: unknown[] = [];
  subscription.on("event", (event) => events.push(event));
  socket.event(6);
  expect(events).toEqual([
    {
      name: "event",
      payload: { offset: 6 },
      messageId: "m-6",
      timestamp: 1795303801,
      position: at(6),
    },
  ]);
});

test("subscriptions made together are sent in one Subscribe without a position", async () => {
  const { relay } = startClient();
  follow(relay, ["project:1", "project:1"]);
  follow(relay, ["project:2", "project:1"]);
  const socket = await accepted();
  expect(socket.confirm(5)).toEqual({ topics: ["project:1", "project:2"] });
  expect(relay.state.name).toBe("open");
});

test("a Subscribe waits until the one before it is answered", async () => {
  const { relay } = startClient();
  follow(relay, ["project:1"], { since: at(3) });
  follow(relay, ["project:2"], { since: at(2) });
  follow(relay, ["project:3"]);
  const socket = await accepted();
  // The lowest position comes first, since it resumes the implicit topics too.
  expect(socket.confirm(5, { recovered: true }).resumeFrom).toEqual(at(2));
  expect(socket.confirm(5, { recovered: true }).resumeFrom).toEqual(at(3));
  expect(socket.confirm(5).resumeFrom).toBeUndefined();
  expect(relay.state.name).toBe("open");
});

test("after a disconnect the client resumes from the last event", async () => {
  const { socket, told } = await live();
  socket.event(6);
  socket.event(8);
  const next = await reconnect(socket);
  const subscribe = next.confirm(11, { recovered: true, replayed: "2" });
  expect(subscribe).toEqual({ topics: ["project:1"], resumeFrom: at(8) });
  for (const offset of [9, 11, 12]) next.event(offset);
  expect(told).toEqual([6, 8, 9, 11, 12]);
});

test("without events the position follows the confirmation, Pongs and later confirmations", async () => {
  const { socket, subscription, relay } = await live();
  expect(subscription.position).toEqual(at(5));
  socket.deliver({ pong: { position: at(7) } });
  expect(subscription.position).toEqual(at(7));
  socket.deliver({ pong: { position: at(6) } });
  socket.deliver({ pong: {} });
  expect(subscription.position).toEqual(at(7));
  follow(relay, ["project:2"]);
  await settle();
  socket.confirm(9);
  expect(subscription.position).toEqual(at(9));
});

test("a replay that is cut off is continued after its last event", async () => {
  const { socket, told, subscription } = await live();
  let next = await reconnect(socket);
  next.confirm(20, { recovered: true, replayed: "3" });
  next.event(7);
  expect(subscription.state).toBe("pending");
  expect(subscription.position).toEqual(at(7));
  next = await reconnect(next);
  expect(next.confirm(20, { recovered: true, replayed: "2" }).resumeFrom).toEqual(at(7));
  next.event(9);
  next.event(10);
  // The rest of the way to the confirmed position has no event for it.
  expect(subscription.position).toEqual(at(20));
  expect(told).toEqual([7, 9, 10]);
});

test("a gap is reported with its position and topics before any later event", async () => {
  const { socket, told, subscription } = await live();
  const next = await reconnect(socket);
  next.confirm(90);
  next.event(91);
  expect(told).toEqual(["gap after 5 in project:1", 91]);
  expect(subscription.position).toEqual(at(91));
});

test("a new epoch is a gap, and its offsets begin anew", async () => {
  const { socket, told } = await live();
  const next = await reconnect(socket);
  const { messageId } = next.take();
  next.deliver({
    subscriptionConfirmed: { position: at(0, "e2"), requestMessageId: messageId },
  });
  next.deliver(eventAt(1, "e2"));
  expect(told).toEqual(["gap after 5 in project:1", 1]);
});

test("a subscription that begins at a position gets what the connection brought since", async () => {
  const { socket, told, relay } = await live();
  socket.event(6);
  socket.event(8);
  const late = follow(relay, ["project:2"], { since: at(6) });
  await settle();
  // The relay leaves out event 8, which it has sent on this connection.
  socket.confirm(9, { recovered: true, replayed: "2" });
  socket.event(7);
  socket.event(9);
  socket.event(10);
  expect(late.told).toEqual([7, 8, 9, 10]);
  expect(told).toEqual([6, 8, 10]);
});

test("a position before that of the connection is resumed from on a new connection", async () => {
  const { socket, told, relay, states } = await live();
  const resumed = await reconnect(socket);
  resumed.confirm(5, { recovered: true });
  const late = follow(relay, ["project:2"], { since: at(3) });
  await settle();
  // This connection has resumed the implicit topics from 5, and cannot do so again from 3.
  expect(resumed.closedWith).toBe(1000);
  const next = await accepted();
  expect(next.confirm(6, { recovered: true, replayed: "1" }).resumeFrom).toEqual(at(3));
  next.event(4);
  next.confirm(6, { recovered: true });
  expect(late.told).toEqual([4]);
  expect(told).toEqual([]);
  expect(states.slice(-5)).toEqual(["open", "waiting", "connecting", "resuming", "open"]);
});

test("events that are not stored are passed on and do not count in a replay", async () => {
  const { socket, subscription } = await live();
  const names: string[] = [];
  subscription.on("typing", (event) => names.push(event.name));
  const next = await reconnect(socket);
  next.confirm(8, { recovered: true, replayed: "1" });
  next.deliver({ messageId: "x", typing: { userId: "ann" } });
  expect(subscription.state).toBe("pending");
  next.event(7);
  expect(subscription.state).toBe("live");
  expect(names).toEqual(["typing"]);
});

test("what a newer relay adds is ignored", async () => {
  const { socket, told, subscription } = await live();
  for (const envelope of [
    {},
    { messageId: "x", timestamp: "1" },
    { entry: { key: "x" } },
    { topicState: { topic: "project:1" } },
    { authenticated: { expiresAt: "1" } },
    { subscriptionConfirmed: { topics: ["project:9"] } },
    { pong: { position: at(6), later: true } },
    { ...eventAt(7), entry: "x", later: 1 },
    // A payload that is not known has its place in the order all the same.
    { topicState: {}, position: at(8) },
  ]) {
    socket.deliver(envelope);
  }
  expect(told).toEqual([7]);
  expect(subscription.position).toEqual(at(8));
});

test("an unsubscribed topic is unsubscribed at the relay unless another subscription has it", async () => {
  const { socket, subscription, told, relay } = await live();
  const other = follow(relay, ["project:1", "project:2"]);
  await settle();
  socket.confirm(5);
  subscription.unsubscribe();
  await settle();
  socket.event(6);
  expect(told).toEqual([]);
  expect(other.told).toEqual([6]);
  expect(socket.sent).toEqual([]);
  other.subscription.unsubscribe();
  await settle();
  expect(socket.take().unsubscribe).toEqual({ topics: ["project:1", "project:2"] });
  expect(other.subscription.state).toBe("ended");
});

test("a refused subscription is reported, and does not affect the others", async () => {
  const { relay } = startClient();
  const good = follow(relay, ["project:1"]);
  const refusals: string[] = [];
  const bad = follow(relay, ["project:2"], { onRefused: (error) => refusals.push(error.code) });
  const socket = await accepted();
  const refuse = () => {
    const { messageId } = socket.take();
    socket.deliver({
      error: { errorCode: "AUTHORIZATION_FAILED", errorMessage: "no", requestMessageId: messageId },
    });
  };
  refuse();
  expect(socket.confirm(5).topics).toEqual(["project:1"]);
  refuse();
  socket.event(6);
  expect(good.told).toEqual([6]);
  expect(refusals).toEqual(["AUTHORIZATION_FAILED"]);
  expect(bad.subscription.state).toBe("refused");
  await expect(bad.subscription.ready).rejects.toMatchObject({ code: "AUTHORIZATION_FAILED" });
  // The next connection may have another token.
  const next = await reconnect(socket);
  next.confirm(6, { recovered: true });
  expect(next.take().subscribe).toEqual({ topics: ["project:2"] });
});

/** The relay refuses the request that the client has just sent, which is returned. */
function refuse(socket: FakeSocket, error: object = {}) {
  const { messageId, ...request } = socket.take();
  const errorCode = "AUTHORIZATION_FAILED";
  socket.deliver({ error: { errorCode, requestMessageId: messageId, ...error } });
  return request;
}

/** Answers an Unsubscribe, and returns its topics. */
function unsubscribed(socket: FakeSocket): string[] {
  const { messageId, unsubscribe } = socket.take();
  socket.deliver({ unsubscribeConfirmed: { ...unsubscribe, requestMessageId: messageId } });
  return unsubscribe.topics;
}

describe("of many subscriptions, one that is refused", () => {
  const topics = Array.from({ length: 16 }, (_, index) => `project:${index}`);

  /** A client whose subscription to project:5 is refused. */
  async function many() {
    const { relay } = startClient();
    const refusals: string[] = [];
    const onRefused = (error: RelayError) => refusals.push(`${error.fieldName}`);
    for (const topic of topics) follow(relay, [topic], { onRefused });
    return { relay, refusals, socket: await accepted() };
  }

  test("is sent alone if the relay names its topic", async () => {
    const { relay, refusals, socket } = await many();
    const fieldName = "subscribe.topics[5]";
    expect(refuse(socket, { fieldName }).subscribe.topics).toEqual(topics);
    expect(socket.confirm(5).topics).toEqual(topics.filter((it) => it !== "project:5"));
    expect(refuse(socket, { fieldName: "subscribe.topics[0]" }).subscribe.topics).toEqual([
      "project:5",
    ]);
    expect(refusals).toEqual(["subscribe.topics[0]"]);
    expect(relay.state.name).toBe("open");
    expect(socket.sent).toEqual([]);
  });

  test("is found by halves if the relay does not name it", async () => {
    const { relay, refusals, socket } = await many();
    let requests = 0;
    for (; socket.sent.length > 0; requests += 1) {
      const { subscribe } = socket.sent[0];
      if (subscribe.topics.includes("project:5")) refuse(socket);
      else socket.confirm(5);
    }
    expect(refusals).toEqual(["undefined"]);
    // Sixteen would be sent alone otherwise.
    expect(requests).toBe(9);
    expect(relay.state.name).toBe("open");
  });

  test("is sent alone on the next connection too, until it is confirmed", async () => {
    const { socket } = await many();
    refuse(socket, { fieldName: "subscribe.topics[5]" });
    socket.confirm(5);
    refuse(socket);
    let next = await reconnect(socket);
    expect(next.confirm(5, { recovered: true }).topics.length).toBe(15);
    expect(next.confirm(5).topics).toEqual(["project:5"]);
    next = await reconnect(next);
    expect(next.confirm(5, { recovered: true }).topics.length).toBe(16);
  });

  test("does not hold up the others if it has ended meanwhile", async () => {
    const { relay } = startClient();
    const bad = follow(relay, ["project:1"]);
    for (const topic of ["project:2", "project:3"]) follow(relay, [topic]);
    const socket = await accepted();
    bad.subscription.unsubscribe();
    refuse(socket, { fieldName: "subscribe.topics[0]" });
    expect(unsubscribed(socket)).toEqual(["project:1"]);
    expect(socket.confirm(5).topics).toEqual(["project:2", "project:3"]);
  });
});

test("a topic is unsubscribed once nobody wants it, if it was wanted by one that is refused", async () => {
  const { socket, subscription, relay } = await live();
  follow(relay, ["project:1", "project:2"], { onRefused: () => {} });
  await settle();
  subscription.unsubscribe();
  await settle();
  refuse(socket);
  expect(unsubscribed(socket)).toEqual(["project:1"]);
  expect(socket.sent).toEqual([]);
});

test("a topic is unsubscribed once nobody wants it, if it was wanted by one that never was sent", async () => {
  const { socket, subscription, relay } = await live();
  follow(relay, ["project:2"]);
  await settle();
  const waiting = follow(relay, ["project:1"]);
  subscription.unsubscribe();
  await settle();
  refuse(socket, { retryAfterMs: "1000" });
  await vi.advanceTimersByTimeAsync(999);
  waiting.subscription.unsubscribe();
  await vi.advanceTimersByTimeAsync(1);
  expect(unsubscribed(socket)).toEqual(["project:1"]);
  expect(socket.confirm(5).topics).toEqual(["project:2"]);
});

test("a topic is unsubscribed once nobody wants it, if an Unsubscribe was sent in between", async () => {
  const { relay } = startClient();
  const both = follow(relay, ["project:1", "project:2"]);
  const socket = await accepted();
  socket.confirm(5);
  follow(relay, ["project:2", "project:3"], { onRefused: () => {} });
  both.subscription.unsubscribe();
  await settle();
  expect(unsubscribed(socket)).toEqual(["project:1"]);
  refuse(socket);
  expect(unsubscribed(socket)).toEqual(["project:2"]);
});

describe("a subscription whose topic the relay revokes", () => {
  const revoke = (socket: FakeSocket, topics: string[]) =>
    socket.deliver({ messageId: "r", unsubscribeConfirmed: { topics, requestMessageId: "" } });

  test("ends, keeps its position, and is reported", async () => {
    const { relay } = startClient();
    const revoked: unknown[] = [];
    const onRevoked = (topics: readonly string[]) => revoked.push(topics);
    const lost = follow(relay, ["project:1", "project:2"], { onRevoked });
    const kept = follow(relay, ["project:2", "project:3"]);
    const socket = await accepted();
    socket.confirm(5);
    const loop = lost.subscription[Symbol.asyncIterator]();
    socket.event(6);
    revoke(socket, ["project:1", "project:9"]);
    socket.event(7);
    socket.deliver({ pong: { position: at(9) } });
    expect(revoked).toEqual([["project:1"]]);
    expect(lost.subscription.state).toBe("revoked");
    expect(lost.subscription.position).toEqual(at(6));
    expect(lost.told).toEqual([6]);
    await loop.next();
    expect(await loop.next()).toEqual({ done: true, value: undefined });
    expect(kept.told).toEqual([6, 7]);
    expect(kept.subscription.position).toEqual(at(9));
    expect(socket.sent).toEqual([]);
    kept.subscription.unsubscribe();
    await settle();
    expect(unsubscribed(socket)).toEqual(["project:2", "project:3"]);
    lost.subscription.unsubscribe();
    expect(lost.subscription.state).toBe("revoked");
  });

  test("is not asked for on the next connection, and the logger is told by default", async () => {
    const { socket, relay } = await live();
    const other = follow(relay, ["project:2"]);
    await settle();
    socket.confirm(5);
    revoke(socket, ["project:1"]);
    expect(logger.error).toHaveBeenCalledWith("sidewire: the relay has revoked project:1");
    const next = await reconnect(socket);
    expect(next.confirm(5, { recovered: true }).topics).toEqual(["project:2"]);
    expect(other.subscription.state).toBe("live");
  });

  test("has its other topics unsubscribed unless they are wanted", async () => {
    const { relay } = startClient();
    follow(relay, ["project:1", "project:2"]);
    const socket = await accepted();
    socket.confirm(5);
    revoke(socket, ["project:1"]);
    expect(unsubscribed(socket)).toEqual(["project:2"]);
  });

  test("goes on if the relay has not answered its Subscribe", async () => {
    const { socket, relay } = await live();
    const late = follow(relay, ["project:1"]);
    await settle();
    revoke(socket, ["project:1"]);
    socket.confirm(6);
    expect(late.subscription.state).toBe("live");
  });
});

test("a wildcard is subscribed like a topic", async () => {
  const { relay } = startClient();
  const { told } = follow(relay, ["project:*"]);
  const socket = await accepted();
  expect(socket.confirm(5)).toEqual({ topics: ["project:*"] });
  socket.event(6);
  expect(told).toEqual([6]);
});

test("a refusal of any code is temporary if it says how long to wait", async () => {
  const { socket, relay } = await live();
  const { subscription } = follow(relay, ["project:2"]);
  await settle();
  refuse(socket, { errorCode: "INTERNAL_ERROR", retryAfterMs: "4000" });
  expect(subscription.state).toBe("pending");
  await vi.advanceTimersByTimeAsync(3_999);
  expect(socket.sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  refuse(socket, { errorCode: "INTERNAL_ERROR", retryAfterMs: "0" });
  // A relay that says 0 is not asked in a loop.
  expect(socket.sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(100);
  expect(socket.confirm(5).topics).toEqual(["project:2"]);
});

test("a payload whose JSON is not an object is an event", async () => {
  const { socket, subscription } = await live();
  const events: unknown[] = [];
  for (const name of ["dueAt", "count", "done", "tags"]) {
    subscription.on(name, (event) => events.push([event.name, event.payload]));
  }
  const payloads = { dueAt: "2026-11-30T13:00:00Z", count: 0, done: false, tags: ["a"] };
  let offset = 5;
  for (const [name, payload] of Object.entries(payloads)) {
    offset += 1;
    socket.deliver({ messageId: "m", none: null, [name]: payload, position: at(offset) });
  }
  expect(events).toEqual(Object.entries(payloads));
  // What stands beside an object is a plain field that a newer relay or schema has added.
  socket.deliver({ later: "x", ...eventAt(10) });
  expect(subscription.position).toEqual(at(10));
  expect(events.length).toBe(4);
});

test("a request over a limit is sent again after the time that the relay asks for", async () => {
  const { socket, relay } = await live();
  follow(relay, ["project:2"]);
  await settle();
  const { messageId } = socket.take();
  socket.deliver({
    error: {
      errorCode: "RATE_LIMIT_EXCEEDED",
      requestMessageId: messageId,
      retryAfterMs: "4000",
    },
  });
  await vi.advanceTimersByTimeAsync(3_999);
  expect(socket.sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(socket.take().subscribe).toEqual({ topics: ["project:2"] });
});

test("a callback that throws or rejects is logged and stops nothing", async () => {
  const { socket, subscription, told, relay } = await live();
  subscription.on("event", () => {
    throw new Error("broken");
  });
  subscription.on("event", async () => {
    throw new Error("rejected");
  });
  const other = follow(relay, ["project:2"]);
  await settle();
  socket.confirm(5);
  socket.event(6);
  socket.event(7);
  await settle();
  expect(told).toEqual([6, 7]);
  expect(other.told).toEqual([6, 7]);
  const errors = logger.error.mock.calls.map(([, error]) => (error as Error).message);
  expect(errors).toEqual(["broken", "broken", "rejected", "rejected"]);
});

test("a callback may end its own subscription, and gets nothing after that", async () => {
  const { socket, relay } = await live();
  const offsets: unknown[] = [];
  const once = relay.subscribe([], {
    onEvent: (event) => {
      offsets.push(event.position?.offset);
      once.unsubscribe();
    },
    onGap: () => {},
  });
  once.on("event", () => offsets.push("after the end"));
  await settle();
  socket.confirm(5);
  socket.event(6);
  socket.event(7);
  expect(offsets).toEqual(["6"]);
});

test("in a callback the position is that of the event, even if more are due with it", async () => {
  const { socket, relay } = await live();
  socket.event(7);
  socket.event(8);
  const seen: unknown[] = [];
  const late = relay.subscribe(["project:2"], {
    since: at(5),
    onEvent: () => seen.push(late.position),
    onGap: () => {},
  });
  await settle();
  socket.confirm(9, { recovered: true, replayed: 1 });
  socket.event(9);
  expect(seen).toEqual([at(7), at(8), at(9)]);
});

test("a loop gets the events from its beginning on, and ends with the subscription", async () => {
  const { socket, subscription } = await live();
  socket.event(6);
  const offsets: unknown[] = [];
  const loop = (async () => {
    for await (const event of subscription) offsets.push(event.position?.offset);
  })();
  socket.event(7);
  socket.event(8);
  await settle();
  subscription.unsubscribe();
  await loop;
  expect(offsets).toEqual(["7", "8"]);
});

test("a loop that is too slow fails, and the subscription goes on", async () => {
  const { socket, subscription, told } = await live();
  const iterator = subscription[Symbol.asyncIterator]();
  for (let offset = 6; offset < 10_008; offset += 1) socket.event(offset);
  await expect(iterator.next()).rejects.toThrow("more than 10000 events");
  await expect(iterator.next()).resolves.toEqual({ done: true, value: undefined });
  expect(told.length).toBe(10_002);
});

test("`ready` resolves when the subscription is live for the first time", async () => {
  const { relay } = startClient();
  const { subscription } = follow(relay, ["project:1"]);
  let isReady = false;
  void subscription.ready.then(() => {
    isReady = true;
  });
  const socket = await accepted();
  expect(isReady).toBe(false);
  socket.confirm(5);
  await settle();
  expect(isReady).toBe(true);
});

test("a subscription is told each time when it is live, after what it has missed", async () => {
  const { relay } = startClient();
  const told: (number | string)[] = [];
  follow(relay, ["project:1"], {
    onEvent: ({ position }) => told.push(Number(position?.offset)),
    onLive: () => told.push("live"),
  });
  const socket = await accepted();
  expect(told).toEqual([]);
  socket.confirm(5);
  socket.event(6);
  const next = await reconnect(socket);
  next.confirm(7, { recovered: true, replayed: "1" });
  next.event(7);
  expect(told).toEqual(["live", 6, 7, "live"]);
});

test("what no relay accepts is refused before it is sent", () => {
  const { relay } = startClient();
  const callbacks = { onGap: () => {} };
  const many = Array.from({ length: 1001 }, (_, index) => `project:${index}`);
  const long = Array.from({ length: 300 }, (_, index) => `project:${index}${"x".repeat(200)}`);
  for (const topics of [
    ["project"],
    ["Project:1"],
    ["p:"],
    ["p:\n"],
    [`p:${"ä".repeat(129)}`],
    many,
    long,
  ]) {
    expect(() => relay.subscribe(topics, callbacks)).toThrow(TypeError);
  }
  const since = { epoch: "", offset: "1" };
  expect(() => relay.subscribe(["project:1"], { ...callbacks, since })).toThrow(TypeError);
  expect(FakeSocket.all).toEqual([]);
});
