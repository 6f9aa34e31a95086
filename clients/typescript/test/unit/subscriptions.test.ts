/** What a subscription is told, message by message. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { accepted, follow, logger, settle, startClient } from "../support/client.js";
import { at, eventAt, FakeSocket } from "../support/fake_socket.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => vi.useRealTimers());

/** A client that follows project:1 up to offset 5, and is live. */
async function live() {
  const client = startClient();
  const followed = follow(client.relay, ["project:1"]);
  const socket = await accepted();
  socket.confirm(5);
  return { ...client, ...followed, socket };
}

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

test("a gap is told with its position and topics before any later event", async () => {
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

test("a refused subscription is told, and does not affect the others", async () => {
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
