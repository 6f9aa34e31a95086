/** Who is present, as a client with fake sockets is told. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { json } from "../../src/index.js";
import type { PresenceOptions } from "../../src/presence.js";
import { accepted, follow, logger, settle, startClient } from "../support/client.js";
import { at, type FakeSocket } from "../support/fake_socket.js";
import { TABLE } from "../support/presence_table.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => vi.useRealTimers());

type Options = PresenceOptions<Record<string, unknown>>;

/** A client that is live with the presence on a topic; `told` are the changes. */
async function present(topic = "project:1", options: Options = {}) {
  const client = startClient({ schema: json(TABLE) });
  const told: string[] = [];
  const presence = client.relay.presence(topic, {
    onChange: ({ user, payload }) =>
      told.push(`${user} ${(payload as { status?: string } | undefined)?.status ?? "gone"}`),
    ...options,
  });
  const socket = await accepted();
  expect(socket.confirm(5).topics).toEqual([topic]);
  const statuses = () =>
    [...presence.users("userPresence")].map(([user, it]) => `${user} ${it.status}`);
  return { ...client, presence, told, socket, statuses };
}

let messages = 0;

/** The relay shows a user. */
function show(socket: FakeSocket, userId: string, status: string, more: object = {}) {
  messages += 1;
  const messageId = `p-${messages}`;
  const envelope = { messageId, userPresence: { userId, status, projectId: "1", ...more } };
  socket.deliver(envelope);
  return envelope;
}

async function reconnect(socket: FakeSocket, confirmed = { recovered: true }): Promise<FakeSocket> {
  socket.end(1006);
  await vi.advanceTimersByTimeAsync(30_000);
  const next = await accepted();
  next.confirm(5, confirmed);
  return next;
}

const ONLINE = { status: "ONLINE", projectId: "1" };

test("users come, change and go", async () => {
  const { socket, statuses, told } = await present();
  show(socket, "ann", "ONLINE");
  show(socket, "bob", "ONLINE");
  show(socket, "ann", "AWAY");
  expect(statuses()).toEqual(["ann AWAY", "bob ONLINE"]);
  show(socket, "bob", "OFFLINE");
  show(socket, "zoe", "OFFLINE");
  expect(statuses()).toEqual(["ann AWAY"]);
  expect(told).toEqual(["ann ONLINE", "bob ONLINE", "ann AWAY", "bob gone"]);
});

test("a topic shows the users whose last message names it", async () => {
  const { socket, relay, statuses, told } = await present();
  const item = relay.presence("item:7");
  await settle();
  socket.confirm(5);
  show(socket, "ann", "ONLINE", { viewingItemId: "7" });
  show(socket, "bob", "ONLINE", { projectId: "2", viewingItemId: "7" });
  expect(statuses()).toEqual(["ann ONLINE"]);
  expect([...item.users("userPresence").keys()]).toEqual(["ann", "bob"]);
  show(socket, "ann", "BUSY", { projectId: "2", viewingItemId: "7" });
  expect(statuses()).toEqual([]);
  expect(told).toEqual(["ann ONLINE", "ann gone"]);
});

test("a wildcard shows the users on all topics of its kind", async () => {
  const { socket, statuses } = await present("project:*");
  show(socket, "ann", "ONLINE");
  show(socket, "bob", "ONLINE", { projectId: "2" });
  show(socket, "cat", "ONLINE", { projectId: "", viewingItemId: "7" });
  expect(statuses()).toEqual(["ann ONLINE", "bob ONLINE"]);
});

test("the application is told each time when the topic is live, and knows its state", async () => {
  const onLive = vi.fn();
  const { socket, presence } = await present("project:1", { onLive });
  expect(onLive).toHaveBeenCalledTimes(1);
  expect(presence.state).toBe("live");
  socket.end(1006);
  expect(presence.state).toBe("pending");
  await vi.advanceTimersByTimeAsync(30_000);
  (await accepted()).confirm(5, { recovered: true });
  expect(onLive).toHaveBeenCalledTimes(2);
  presence.close();
  expect(presence.state).toBe("ended");
});

test("a handle that is opened later shows what the relay has shown before", async () => {
  const { socket, relay } = await present();
  show(socket, "ann", "ONLINE");
  const told: unknown[] = [];
  const later = relay.presence("project:1", { onChange: ({ user }) => told.push(user) });
  await settle();
  expect([...later.users("userPresence").keys()]).toEqual(["ann"]);
  expect(told).toEqual(["ann"]);
});

test("what a backend posts, and what names no user, is no presence", async () => {
  const { socket, statuses } = await present();
  const userPresence = { userId: "ann", ...ONLINE };
  socket.deliver({ messageId: "e", userPresence, position: at(6) });
  socket.deliver({ messageId: "e", userPresence: ONLINE });
  expect(statuses()).toEqual([]);
});

test("users on no remaining topic are forgotten with an Unsubscribe, and with a revocation", async () => {
  const { socket, relay, presence, statuses, told } = await present();
  const other = relay.presence("item:7", { onRevoked: () => {} });
  await settle();
  socket.confirm(5);
  show(socket, "ann", "ONLINE");
  show(socket, "bob", "ONLINE", { viewingItemId: "7" });
  presence.close();
  await settle();
  const { messageId, unsubscribe } = socket.take();
  expect(unsubscribe).toEqual({ topics: ["project:1"] });
  socket.deliver({ unsubscribeConfirmed: { ...unsubscribe, requestMessageId: messageId } });
  expect(statuses()).toEqual([]);
  expect(told).toEqual(["ann ONLINE", "bob ONLINE"]);
  expect([...other.users("userPresence").keys()]).toEqual(["bob"]);
  socket.deliver({ unsubscribeConfirmed: { topics: ["item:7"] } });
  expect([...other.users("userPresence").keys()]).toEqual([]);
  const again = relay.presence("project:1");
  await settle();
  expect(again.users("userPresence").size).toBe(0);
});

describe("after a reconnect", () => {
  test("users stay if the relay shows them again, and go after a Pong if it does not", async () => {
    const { socket, statuses, told } = await present();
    const ann = show(socket, "ann", "ONLINE");
    show(socket, "bob", "ONLINE");
    show(socket, "cat", "ONLINE");
    const next = await reconnect(socket);
    expect(statuses().length).toBe(3);
    expect(next.take()).toEqual({ ping: {} });
    next.deliver(ann);
    show(next, "cat", "AWAY");
    next.deliver({ pong: {} });
    // The relay has shown something since: there may be more.
    expect(statuses().length).toBe(3);
    expect(next.take()).toEqual({ ping: {} });
    next.deliver({ pong: {} });
    expect(statuses()).toEqual(["ann ONLINE", "cat AWAY"]);
    expect(told.slice(3)).toEqual(["cat AWAY", "bob gone"]);
    expect(next.sent).toEqual([]);
  });

  test("nothing is asked if there was nobody", async () => {
    const { socket } = await present();
    expect((await reconnect(socket)).sent).toEqual([]);
  });

  test("the Ping waits for the end of the replay", async () => {
    const { socket } = await present();
    show(socket, "ann", "ONLINE");
    socket.end(1006);
    await vi.advanceTimersByTimeAsync(30_000);
    const next = await accepted();
    next.confirm(6, { recovered: true, replayed: 1 });
    expect(next.sent).toEqual([]);
    next.event(6);
    expect(next.take()).toEqual({ ping: {} });
  });

  test("at most ten Pings are sent", async () => {
    const { socket, statuses } = await present();
    show(socket, "ann", "ONLINE");
    const next = await reconnect(socket);
    let pings = 0;
    for (; next.sent.length > 0; pings += 1) {
      next.take();
      show(next, `user-${pings}`, "ONLINE");
      next.deliver({ pong: {} });
    }
    expect(pings).toBe(10);
    expect(statuses().length).toBe(10);
  });

  test("the client's own message is sent again", async () => {
    const { socket, presence } = await present();
    presence.set("userPresence", ONLINE);
    await settle();
    const sent = socket.take();
    const next = await reconnect(socket);
    expect(next.take()).toEqual(sent);
  });
});

describe("the client's own message", () => {
  test("is sent when a topic that it names is subscribed, and again for each further one", async () => {
    const { relay } = startClient({ schema: json(TABLE) });
    const presence = relay.presence("project:1");
    presence.set("userPresence", { ...ONLINE, viewingItemId: "7" });
    const socket = await accepted();
    socket.confirm(5);
    const sent = socket.take();
    expect(sent.userPresence).toEqual({ ...ONLINE, viewingItemId: "7" });
    follow(relay, ["item:8"]);
    await settle();
    socket.confirm(5);
    expect(socket.sent).toEqual([]);
    follow(relay, ["item:*"]);
    await settle();
    socket.confirm(5);
    await vi.advanceTimersByTimeAsync(200);
    expect(socket.take()).toEqual(sent);
  });

  test("is sent again when a topic is subscribed again", async () => {
    const { socket, relay, presence } = await present();
    presence.set("userPresence", { status: "ONLINE", viewingItemId: "7" });
    const item = follow(relay, ["item:7"]);
    await settle();
    socket.confirm(5);
    const sent = socket.take();
    item.subscription.unsubscribe();
    await settle();
    const { messageId, unsubscribe } = socket.take();
    socket.deliver({ unsubscribeConfirmed: { ...unsubscribe, requestMessageId: messageId } });
    follow(relay, ["item:7"]);
    await settle();
    socket.confirm(5);
    await vi.advanceTimersByTimeAsync(200);
    expect(socket.take()).toEqual(sent);
  });

  test("is replaced, and withdrawn with the value for absent", async () => {
    const { socket, presence } = await present();
    presence.set("userPresence", ONLINE);
    await settle();
    socket.take();
    presence.set("userPresence", { ...ONLINE, status: "BUSY" });
    presence.set("userPresence", { ...ONLINE, status: "AWAY" });
    await vi.advanceTimersByTimeAsync(199);
    expect(socket.sent).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.take().userPresence.status).toBe("AWAY");
    presence.withdraw();
    await settle();
    expect(socket.take().userPresence).toEqual({ status: "OFFLINE" });
    const next = await reconnect(socket);
    expect(next.sent).toEqual([]);
  });

  test("is withdrawn by setting the value for absent, and by closing the handle", async () => {
    const { socket, presence } = await present();
    presence.set("userPresence", ONLINE);
    await settle();
    socket.take();
    presence.set("userPresence", { status: "OFFLINE" });
    await settle();
    expect(socket.take().userPresence).toEqual({ status: "OFFLINE" });
    presence.set("userPresence", ONLINE);
    await settle();
    socket.take();
    presence.close();
    await settle();
    expect(socket.sent.map((it) => it.userPresence ?? it.unsubscribe)).toEqual([
      { topics: ["project:1"] },
      { status: "OFFLINE" },
    ]);
    expect(() => presence.set("userPresence", ONLINE)).toThrow("closed");
  });

  test("is not sent if it is withdrawn before", async () => {
    const { socket, presence } = await present();
    presence.set("userPresence", ONLINE);
    presence.withdraw();
    await settle();
    expect(socket.sent).toEqual([]);
  });

  test("without a value for absent is only not sent again", async () => {
    const { socket, presence } = await present();
    presence.set("cursor", { projectId: "1" });
    await settle();
    socket.take();
    presence.withdraw();
    await settle();
    expect((await reconnect(socket)).sent).toEqual([]);
  });

  test("is left alone by a handle that has not set it", async () => {
    const { socket, presence, relay } = await present();
    const other = relay.presence("project:1");
    await settle();
    socket.confirm(5);
    presence.set("userPresence", ONLINE);
    await settle();
    socket.take();
    other.withdraw();
    await settle();
    expect(socket.sent).toEqual([]);
  });
});

test("what the client has shown on an earlier connection is not among the others", async () => {
  const { socket, presence, statuses, told } = await present();
  presence.set("userPresence", ONLINE);
  await settle();
  const { messageId } = socket.take();
  const next = await reconnect(socket);
  expect(next.take().messageId).toBe(messageId);
  next.deliver({ messageId, userPresence: { userId: "me", ...ONLINE } });
  expect([statuses(), told]).toEqual([[], []]);
  // Another connection of the user is.
  show(next, "me", "AWAY");
  next.deliver({ messageId, userPresence: { userId: "me", ...ONLINE } });
  expect(told).toEqual(["me AWAY", "me gone"]);
});

describe("a refused message", () => {
  const refuse = (socket: FakeSocket, more: object = {}) => {
    const { messageId } = socket.take();
    const errorCode = "RATE_LIMIT_EXCEEDED";
    socket.deliver({ error: { errorCode, requestMessageId: messageId, ...more } });
  };

  test("is sent again after the time that the relay asks for", async () => {
    const { socket, presence } = await present();
    presence.set("userPresence", ONLINE);
    await settle();
    refuse(socket, { retryAfterMs: "4000" });
    await vi.advanceTimersByTimeAsync(3_999);
    expect(socket.sent).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.take().userPresence).toEqual(ONLINE);
  });

  test("is nobody's business if it was replaced", async () => {
    const { socket, relay, presence } = await present();
    const refused = vi.fn();
    relay.on("refused", refused);
    presence.set("userPresence", ONLINE);
    await settle();
    presence.set("userPresence", { ...ONLINE, status: "AWAY" });
    refuse(socket, { retryAfterMs: "4000" });
    await vi.advanceTimersByTimeAsync(200);
    expect(socket.take().userPresence.status).toBe("AWAY");
    expect([refused.mock.calls, logger.warn.mock.calls]).toEqual([[], []]);
  });

  test("is reported, and sent again on the next connection", async () => {
    const refusals: string[] = [];
    const { socket, presence } = await present("project:1", {
      onRefused: (error) => refusals.push(error.code),
    });
    presence.set("userPresence", ONLINE);
    await settle();
    refuse(socket);
    expect(refusals).toEqual(["RATE_LIMIT_EXCEEDED"]);
    expect(logger.warn).not.toHaveBeenCalled();
    expect(socket.sent).toEqual([]);
    const next = await reconnect(socket);
    expect(next.take().userPresence).toEqual(ONLINE);
  });
});

test("without a schema, for what is no presence, and without a topic it throws", async () => {
  const { relay } = startClient();
  expect(() => relay.presence("project:1")).toThrow("needs the option `schema`");
  const { presence, socket } = await present();
  expect(() => presence.users("event")).toThrow("event is no presence");
  expect(() => presence.set("event", {})).toThrow(TypeError);
  expect(() => presence.set("userPresence", { status: "ONLINE" })).toThrow("names no topic");
  expect(socket.sent).toEqual([]);
});

test("a subscription that is refused or revoked is told to the handle", async () => {
  const told: unknown[] = [];
  const { relay, socket } = await present();
  const refused = relay.presence("project:2", { onRefused: (error) => told.push(error.code) });
  await settle();
  const { messageId } = socket.take();
  socket.deliver({ error: { errorCode: "AUTHORIZATION_FAILED", requestMessageId: messageId } });
  await expect(refused.ready).rejects.toMatchObject({ code: "AUTHORIZATION_FAILED" });
  const revoked = relay.presence("project:3", { onRevoked: (topics) => told.push(topics) });
  await settle();
  socket.confirm(5);
  await revoked.ready;
  socket.deliver({ unsubscribeConfirmed: { topics: ["project:3"] } });
  expect(told).toEqual(["AUTHORIZATION_FAILED", ["project:3"]]);
});
