/** Server-sent events: the parser, and what a client does with a stream. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { EventStreamParser, type ServerSentEvent } from "../../src/http/event_stream_parser.js";
import { json, type RelayError, type SidewireOptions } from "../../src/index.js";
import { follow, logger, settle, startClient } from "../support/client.js";
import { FakeHttp } from "../support/fake_http.js";
import { at, eventAt } from "../support/fake_socket.js";
import { Random } from "../support/random.js";

describe("the parser", () => {
  const TEXT =
    ': comment\nid: e:1\n\ndata: {"a":1}\nid: e:2\n\nevent: close\ndata:x\ndata:  y\n\nretry: 5\ndata\n\n';
  const EVENTS: ServerSentEvent[] = [
    { name: "message", data: undefined, id: "e:1" },
    { name: "message", data: '{"a":1}', id: "e:2" },
    { name: "close", data: "x\n y", id: undefined },
    { name: "message", data: "", id: undefined },
  ];

  test.each([
    ["LF", "\n"],
    ["CR", "\r"],
    ["CR LF", "\r\n"],
  ])("takes lines that end with %s, in pieces of any size", (_, end) => {
    const text = TEXT.replaceAll("\n", end);
    const random = new Random(1);
    for (let run = 0; run < 500; run += 1) {
      const parser = new EventStreamParser();
      const events: ServerSentEvent[] = [];
      for (let rest = text; rest !== ""; ) {
        const size = 1 + random.below(run === 0 ? 1 : 12);
        events.push(...parser.push(rest.slice(0, size)));
        rest = rest.slice(size);
      }
      // A single CR at the end may be the first half of CR LF.
      expect(events).toEqual(EVENTS);
    }
  });

  test("keeps what is not complete", () => {
    const parser = new EventStreamParser();
    expect(parser.push("data: a\n")).toEqual([]);
    expect(parser.push("\ndata: b")).toEqual([{ name: "message", data: "a", id: undefined }]);
    expect(parser.push("")).toEqual([]);
    expect(parser.push("\n\n")).toEqual([{ name: "message", data: "b", id: undefined }]);
  });
});

let http: FakeHttp;

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
  vi.spyOn(Math, "random").mockReturnValue(0);
  http = FakeHttp.install();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function start(options: SidewireOptions = {}) {
  return startClient({ transports: ["sse"], ...options });
}

/** A client that follows order:7 up to offset 5, and is live. */
async function live(options: SidewireOptions = {}) {
  const client = start(options);
  const followed = follow(client.relay, ["order:7"]);
  const request = await http.request(0);
  await request.confirm(5);
  return { ...client, ...followed, request };
}

/** Lets the client ask again after its subscriptions have changed. */
async function reopened(count = http.requests.length) {
  await vi.advanceTimersByTimeAsync(1_000);
  return http.request(count);
}

test("the token stands in a header, and the address beside that of the WebSocket", async () => {
  const { relay, states, request, subscription } = await live({ getToken: () => "jwt" });
  expect(request.url.href).toBe("http://relay.test/sse?topic=order:7");
  expect(request.headers).toEqual({ Accept: "text/event-stream", Authorization: "Bearer jwt" });
  expect(request.init).toMatchObject({ credentials: "omit", redirect: "error" });
  expect(relay.state).toEqual({ name: "open", transport: "sse" });
  expect(states).toEqual(["connecting", "open"]);
  expect(subscription.state).toBe("live");
});

test("topics are encoded, and parameters of the address stay", async () => {
  const { relay } = start();
  follow(relay, ["order:a&b=c ü", "order:*"]);
  const request = await http.request(0);
  expect(request.topics).toEqual(["order:a&b=c ü", "order:*"]);
  expect(request.url.search).toBe("?topic=order:a%26b%3Dc%20%C3%BC&topic=order:*");
});

test("events arrive, also if a letter is divided between two pieces", async () => {
  const { request, told, subscription } = await live();
  const texts: unknown[] = [];
  subscription.on("event", ({ payload }) => texts.push(payload));
  const event = { event: { text: "größer" }, position: at(6) };
  const bytes = new TextEncoder().encode(`data: ${JSON.stringify(event)}\n\n`);
  for (const byte of bytes) await request.write(new Uint8Array([byte]));
  await request.send(eventAt(8), eventAt(9));
  expect(told).toEqual([6, 8, 9]);
  expect(texts[0]).toEqual({ text: "größer" });
});

test("a comment raises the position, from which the client resumes", async () => {
  const { request, subscription, relay } = await live();
  await request.write(":\nid: e1:9\n\n:\n\n");
  expect(subscription.position).toEqual(at(9));
  await request.end();
  expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "LOST" } });
  await vi.advanceTimersByTimeAsync(1_000);
  expect((await http.request(1)).since).toBe("e1:9");
});

test("after an end the client resumes from the last event, and drops what it had", async () => {
  const { request, told } = await live();
  await request.send(eventAt(6));
  await request.write('retry: 0\nevent: close\ndata: {"code":4003,"reason":"too slow"}\n\n');
  await vi.advanceTimersByTimeAsync(1_000);
  const next = await http.request(1);
  expect(next.since).toBe("e1:6");
  await next.confirm(9, { recovered: true, replayed: "3" });
  await next.send(eventAt(6), eventAt(8), eventAt(9), eventAt(11));
  expect(told).toEqual([6, 8, 9, 11]);
});

test("60 s without anything mean that the stream is dead, and comments keep it alive", async () => {
  const { request, relay } = await live();
  await vi.advanceTimersByTimeAsync(59_000);
  await request.write(":\n\n");
  await vi.advanceTimersByTimeAsync(59_000);
  expect(relay.state.name).toBe("open");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "DEAD" } });
  expect(request.isAborted).toBe(true);
});

test("a stream that brings nothing at all is given up after 15 s", async () => {
  const { relay, states } = start();
  follow(relay, ["order:7"]);
  const request = await http.request(0);
  await request.open();
  await vi.advanceTimersByTimeAsync(15_000);
  expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "DEAD" } });
  // Nothing was ever open.
  expect(states).toEqual(["connecting", "waiting"]);
});

describe("subscriptions", () => {
  test("that change together begin one new stream, from the lowest position", async () => {
    const { relay, request, told } = await live();
    await request.send(eventAt(20));
    const earlier = follow(relay, ["order:8"], { since: at(10) });
    const later = follow(relay, ["order:9"]);
    const next = await reopened();
    expect(request.isAborted).toBe(true);
    expect(next.topics).toEqual(["order:8", "order:7", "order:9"]);
    expect(next.since).toBe("e1:10");
    expect(relay.state.name).toBe("resuming");
    await next.confirm(22, { recovered: true, replayed: "3" });
    await next.send(eventAt(12), eventAt(20), eventAt(21), eventAt(23));
    expect(told).toEqual([20, 21, 23]);
    expect(earlier.told).toEqual([12, 20, 21, 23]);
    expect(later.told).toEqual([23]);
    expect(relay.state.name).toBe("open");
    expect(http.requests.length).toBe(2);
  });

  test("that end are left out of the next stream", async () => {
    const { relay, subscription } = await live();
    const other = follow(relay, ["order:8"]);
    const both = await reopened();
    await both.confirm(5, { recovered: true });
    subscription.unsubscribe();
    const next = await reopened();
    expect(next.topics).toEqual(["order:8"]);
    await next.confirm(6, { recovered: true });
    await next.send(eventAt(7));
    expect(other.told).toEqual([7]);
  });

  test("change the stream at most once a second", async () => {
    const { relay } = await live();
    follow(relay, ["order:8"]);
    await vi.advanceTimersByTimeAsync(50);
    await (await http.request(1)).confirm(5, { recovered: true });
    follow(relay, ["order:9"]);
    await vi.advanceTimersByTimeAsync(900);
    expect(http.requests.length).toBe(2);
    follow(relay, ["order:10"]);
    await vi.advanceTimersByTimeAsync(100);
    expect((await http.request(2)).topics.length).toBe(4);
  });

  test("only those whose events are gone are told of a gap", async () => {
    const { relay } = start();
    const old = follow(relay, ["order:7"], { since: at(1) });
    const other = follow(relay, ["order:8"], { since: at(7, "e0") });
    const recent = follow(relay, ["order:9"], { since: at(20) });
    const first = await http.request(0);
    // Nothing is known of the epochs yet.
    expect(first.since).toBe("e0:7");
    await first.confirm(30);
    const second = await reopened();
    expect(second.since).toBe("e1:1");
    await second.confirm(30);
    const third = await reopened();
    expect(third.since).toBe("e1:20");
    await third.confirm(30, { recovered: true, replayed: "1" });
    await third.send(eventAt(25), eventAt(31));
    expect(old.told).toEqual(["gap after 1 in order:7", 31]);
    expect(other.told).toEqual(["gap after 7 in order:8", 31]);
    expect(recent.told).toEqual([25, 31]);
  });

  test("of which the relay names a topic are refused alone", async () => {
    const { relay } = start();
    const errors: RelayError[] = [];
    const good = follow(relay, ["order:7"]);
    const bad = follow(relay, ["team:1", "team:2"], { onRefused: (it) => errors.push(it) });
    const problem = { code: "AUTHORIZATION_FAILED", detail: "topic 3 of the query is not granted" };
    await (await http.request(0)).json({ ...problem, field: "topic" }, 403);
    const next = await http.request(1);
    expect(next.topics).toEqual(["order:7"]);
    await next.confirm(5);
    expect(errors).toMatchObject([
      { code: "AUTHORIZATION_FAILED", fieldName: "subscribe.topics[2]" },
    ]);
    expect([good, bad].map((it) => it.subscription.state)).toEqual(["live", "refused"]);
    // It is not asked for again on this connection.
    follow(relay, ["order:8"]);
    expect((await reopened()).topics.sort()).toEqual(["order:7", "order:8"]);
  });

  test("are divided until those are found that a backend refuses", async () => {
    const { relay } = start();
    const names = ["a:1", "a:2", "a:3", "a:4", "a:5", "a:6", "a:7"];
    const refused = new Set(["a:3", "a:6"]);
    const followed = names.map((it) => follow(relay, [it], { onRefused: () => {} }));
    for (let count = 0; ; count += 1) {
      expect(count).toBeLessThan(20);
      await vi.advanceTimersByTimeAsync(1_000);
      if (http.requests.length === count) break;
      const request = await http.request(count);
      const isRefused = request.topics.some((it) => refused.has(it));
      const problem = { code: "AUTHORIZATION_FAILED", detail: "the backend does not allow it" };
      if (isRefused) await request.json(problem, 403);
      else await request.confirm(5, { recovered: true });
    }
    const states = followed.map((it) => it.subscription.state);
    expect(states).toEqual(names.map((it) => (refused.has(it) ? "refused" : "live")));
    expect(http.last.topics).toEqual(names.filter((it) => !refused.has(it)));
  });

  test("for which a request has no room are refused, and the others are not", async () => {
    const { relay } = start();
    const many = Array.from({ length: 300 }, (_, index) => `order:${"x".repeat(20)}${index}`);
    const good = follow(relay, ["order:7"]);
    const bad = follow(relay, many, { onRefused: () => {} });
    const small = follow(relay, ["order:8"]);
    const request = await http.request(0);
    expect(request.topics).toEqual(["order:7", "order:8"]);
    await request.confirm(5);
    const states = [good, bad, small].map((it) => it.subscription.state);
    expect(states).toEqual(["live", "refused", "live"]);
    await expect(bad.subscription.ready).rejects.toMatchObject({ code: "VALIDATION_ERROR" });
  });

  test("are ended by the relay with the topics that the user has lost", async () => {
    const { request, relay } = await live();
    const revoked: unknown[] = [];
    follow(relay, ["order:8"], { onRevoked: (it) => revoked.push(it) });
    const next = await reopened();
    expect(request.isAborted).toBe(true);
    await next.confirm(5, { recovered: true });
    await next.send({ unsubscribeConfirmed: { topics: ["order:8"] } });
    expect(revoked).toEqual([["order:8"]]);
  });
});

describe("a refused request", () => {
  async function refusedWith(status: number, code: string, headers = {}) {
    const client = start({ getToken: () => "jwt" });
    follow(client.relay, ["order:7"]);
    await (await http.request(0)).json({ code, detail: "no" }, status, headers);
    return client;
  }

  test("says that the token was refused", async () => {
    const { waiting } = await refusedWith(401, "AUTHENTICATION_FAILED");
    expect(waiting().reason).toMatchObject({ code: "TOKEN_REFUSED", closeCode: 4401 });
  });

  test.each([429, 503])("with %i is sent again after the time in Retry-After", async (status) => {
    const retry = { "Retry-After": "7" };
    const { waiting } = await refusedWith(status, "RATE_LIMIT_EXCEEDED", retry);
    expect(waiting().reason.closeCode).toBe(4000 + status);
    expect(waiting().retryAt).toBe(Date.now() + 8_000);
  });

  test("by the relay's schema of addresses means that it does not offer the transport", async () => {
    const { waiting } = await refusedWith(404, "NOT_FOUND");
    expect(waiting().reason.code).toBe("NOT_OFFERED");
  });

  test("that is a page of a proxy is no answer of the relay", async () => {
    const { relay, waiting } = start();
    follow(relay, ["order:7"]);
    await (await http.request(0)).page(200);
    expect(waiting().reason.code).toBe("NOT_OFFERED");
  });
});

test("an event for others is not sent, and says why", async () => {
  const { relay } = await live();
  await expect(relay.publish("message", { topics: ["order:7"] })).rejects.toMatchObject({
    name: "ConnectionError",
    code: "CANNOT_SEND",
  });
});

test("the presence of others is seen, and who is gone after a new stream is removed", async () => {
  const topics = [{ path: "topics[]", json_path: "topics[]", kind: null }];
  const absent = { field: "absent", value: "true" };
  const presence = { json_name: "presence", presence: true, sender: ["user_id"], absent, topics };
  const { relay } = start({ schema: json({ events: [presence] }) });
  const told: unknown[] = [];
  const room = relay.presence("room:1", {
    onChange: ({ user, payload }) =>
      told.push(`${user} ${payload === undefined ? "gone" : "here"}`),
  });
  room.set("presence", { topics: ["room:1"] });
  const shown = (userId: string) => ({
    messageId: userId,
    presence: { userId, topics: ["room:1"] },
  });
  const first = await http.request(0);
  await first.confirm(5);
  await first.send(shown("ann"), shown("bob"));
  await first.end();
  await vi.advanceTimersByTimeAsync(1_000);
  const second = await http.request(1);
  await second.confirm(5, { recovered: true });
  await second.send(shown("bob"));
  await second.write(":\nid: e1:5\n\n");
  // Something came before the first comment, and nothing before the second one.
  await second.write(":\nid: e1:5\n\n");
  expect(told).toEqual(["ann here", "bob here", "ann gone"]);
});

test("a token that expires ends the stream, and the client resumes with a fresh one", async () => {
  const tokens = ["old", "new"];
  const { request, waiting } = await live({ getToken: () => tokens.shift() ?? "" });
  await request.write('event: close\ndata: {"code":4001,"reason":"token expired"}\n\n');
  expect(waiting().reason).toMatchObject({ code: "LOST", closeCode: 4001 });
  await vi.advanceTimersByTimeAsync(1_000);
  const next = await http.request(1);
  expect(next.headers.Authorization).toBe("Bearer new");
  expect(next.since).toBe("e1:5");
});

test("a message that cannot be decoded ends the stream and is logged", async () => {
  const { request, waiting } = await live();
  await request.write("data: {\n\n");
  expect(waiting().reason.code).toBe("UNREADABLE");
  expect(logger.error).toHaveBeenCalled();
});

test("closing the client aborts the request", async () => {
  const { request, relay } = await live();
  relay.close();
  await settle();
  expect(request.isAborted).toBe(true);
  expect(http.requests.length).toBe(1);
});

test("a stream that was silent when the machine slept is begun anew", async () => {
  const { request } = await live();
  vi.setSystemTime(Date.now() + 120_000);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(request.isAborted).toBe(true);
  expect((await http.request(1)).since).toBe("e1:5");
});
