/** Long polls: what is asked for, and what the answers mean. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { SidewireOptions } from "../../src/index.js";
import { follow, startClient } from "../support/client.js";
import { FakeHttp } from "../support/fake_http.js";
import { at, eventAt } from "../support/fake_socket.js";

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
  return startClient({ transports: ["poll"], getToken: () => "jwt", ...options });
}

/** A client that follows order:7 up to offset 5, and whose second poll waits. */
async function live(options: SidewireOptions = {}) {
  const client = start(options);
  const followed = follow(client.relay, ["order:7"]);
  await (await http.request(0)).poll(5, [], false);
  return { ...client, ...followed, request: await nextPoll() };
}

/** Returns the next poll, which comes after a second. */
async function nextPoll() {
  const count = http.requests.length;
  await vi.advanceTimersByTimeAsync(1_000);
  return http.request(count);
}

test("the first poll asks for the position of now, and the next ones wait for events", async () => {
  const { relay, request, subscription } = await live();
  const [first] = http.requests;
  expect(first?.url.href).toBe("http://relay.test/poll?topic=order:7&wait=0&max=1000");
  expect(first?.headers.Authorization).toBe("Bearer jwt");
  expect(relay.state).toEqual({ name: "open", transport: "poll" });
  expect(subscription.position).toEqual(at(5));
  expect(request.since).toBe("e1:5");
  expect(request.url.searchParams.get("wait")).toBe("25s");
});

test("events arrive in order, and each poll goes on where the last one ended", async () => {
  const { request, told, subscription } = await live();
  await request.poll(9, [eventAt(6), eventAt(8)]);
  expect(told).toEqual([6, 8]);
  // Up to here the log was searched.
  expect(subscription.position).toEqual(at(9));
  const next = await nextPoll();
  expect(next.since).toBe("e1:9");
  await next.poll(10, [eventAt(10)]);
  expect(told).toEqual([6, 8, 10]);
});

test("a client resumes, and an answer that was cut is continued", async () => {
  const { relay } = start();
  const { told } = follow(relay, ["order:7"], { since: at(2) });
  const first = await http.request(0);
  expect(first.since).toBe("e1:2");
  await first.poll(4, [eventAt(3), eventAt(4)]);
  expect((await nextPoll()).since).toBe("e1:4");
  await http.last.poll(5, [eventAt(5)]);
  expect(told).toEqual([3, 4, 5]);
});

test("a position that the relay does not know is told as a gap", async () => {
  const { relay } = start();
  const { told } = follow(relay, ["order:7"], { since: at(2) });
  await (await http.request(0)).poll(90, [], false);
  await (await nextPoll()).poll(91, [eventAt(91)]);
  expect(told).toEqual(["gap after 2 in order:7", 91]);
});

test("if the log no longer reaches back to the last poll, it is told as a gap", async () => {
  const { request, told } = await live();
  await request.poll(90, [], false);
  const again = http.last;
  expect([again.since, again.url.searchParams.get("wait")]).toEqual(["e1:5", "0"]);
  await again.poll(90, [], false);
  expect(told).toEqual(["gap after 5 in order:7"]);
});

test("a poll that is not answered is given up, and the client resumes", async () => {
  const { request, relay } = await live();
  await vi.advanceTimersByTimeAsync(40_000);
  expect(request.isAborted).toBe(true);
  expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "DEAD" } });
});

test("a poll that comes too early for the relay is sent again later", async () => {
  const { request, relay, told } = await live();
  const problem = { code: "RATE_LIMIT_EXCEEDED", detail: "too many" };
  await request.json(problem, 429, { "Retry-After": "20" });
  await vi.advanceTimersByTimeAsync(19_000);
  expect(http.requests.length).toBe(2);
  await (await nextPoll()).poll(6, [eventAt(6)]);
  expect(told).toEqual([6]);
  expect(relay.state.name).toBe("open");
});

test("polls leave no listeners behind", async () => {
  let { request } = await live();
  const { signal } = request.init as { signal: AbortSignal };
  const added = vi.spyOn(signal, "addEventListener");
  const removed = vi.spyOn(signal, "removeEventListener");
  for (let offset = 6; offset < 56; offset++) {
    await request.poll(offset);
    request = await nextPoll();
  }
  expect(request.init.signal).toBe(signal);
  expect(added.mock.calls.length).toBeGreaterThanOrEqual(50);
  expect(added.mock.calls.length - removed.mock.calls.length).toBeLessThanOrEqual(1);
});

test("a token that expires is no refused one, and a fresh one resumes", async () => {
  let token = "old";
  const { request, waiting } = await live({ getToken: () => token });
  token = "new";
  await request.json({ code: "AUTHENTICATION_FAILED", detail: "expired" }, 401);
  expect(waiting().reason).toMatchObject({ code: "LOST", closeCode: 4001 });
  const next = await nextPoll();
  expect(next.headers.Authorization).toBe("Bearer new");
  expect(next.since).toBe("e1:5");
});

test("a page in place of the first answer does not come from the relay", async () => {
  const { relay, waiting } = start();
  follow(relay, ["order:7"]);
  await (await http.request(0)).page();
  expect(waiting().reason.code).toBe("NOT_OFFERED");
});

test("a page in place of a later answer ends the connection, and the client resumes", async () => {
  const { request, waiting, told } = await live();
  await request.page();
  expect(waiting().reason.code).toBe("NOT_OFFERED");
  const next = await nextPoll();
  expect(next.since).toBe("e1:5");
  await next.poll(6, [eventAt(6)]);
  expect(told).toEqual([6]);
});

test("a topic that is no longer allowed is refused, and the others go on", async () => {
  const client = start();
  const [good, bad] = ["order:7", "order:8"].map((it) =>
    follow(client.relay, [it], { onRefused: () => {} }),
  );
  await (await http.request(0)).poll(5, [], false);
  const problem = { code: "AUTHORIZATION_FAILED", detail: "topic 2 of the query is not granted" };
  await (await nextPoll()).json({ ...problem, field: "topic" }, 403);
  await http.last.json({ ...problem, field: "topic" }, 403);
  await http.last.poll(5);
  expect([good, bad].map((it) => it?.subscription.state)).toEqual(["live", "refused"]);
});

test("a change of the subscriptions interrupts the poll", async () => {
  const { relay, request } = await live();
  const { told } = follow(relay, ["order:8"]);
  await vi.advanceTimersByTimeAsync(50);
  expect(request.isAborted).toBe(true);
  const { last } = http;
  expect([last.topics, last.since]).toEqual([["order:7", "order:8"], "e1:5"]);
  await last.poll(6);
  await (await nextPoll()).poll(7, [eventAt(7)]);
  expect(told).toEqual([7]);
});

test("what a poll brings of a later version is ignored", async () => {
  const { request, told } = await live();
  const unknown = { messageId: "1", topicState: {}, position: at(6) };
  await request.json({
    position: { ...at(7), more: 1 },
    recovered: true,
    events: [unknown, { ...eventAt(7), extra: {} }],
    more: true,
  });
  expect(told).toEqual([7]);
});
