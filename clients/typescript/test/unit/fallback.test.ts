/** When the client uses another transport than the WebSocket, and when it comes back. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Sidewire, type SidewireOptions, type TransportName } from "../../src/index.js";
import { protobuf } from "../../src/protobuf.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { follow, settle, startClient } from "../support/client.js";
import { FakeHttp } from "../support/fake_http.js";
import { at, eventAt, FakeSocket } from "../support/fake_socket.js";

const ALL: readonly TransportName[] = ["websocket", "sse", "poll"];
let http: FakeHttp;

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  http = FakeHttp.install();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function start(options: SidewireOptions = {}) {
  const client = startClient({ transports: ALL, ...options });
  return { ...client, ...follow(client.relay, ["order:7"]) };
}

/** Ends the attempt that is under way as if nothing answered. */
async function refuseWebSocket(): Promise<void> {
  await settle();
  FakeSocket.last.end(1006);
  await settle();
}

/** Waits for the next attempt on a WebSocket. */
async function nextWebSocket(): Promise<FakeSocket> {
  const count = FakeSocket.all.length;
  for (let left = 100; FakeSocket.all.length === count; left -= 1) {
    if (left === 0) throw new Error("no WebSocket is tried");
    await vi.advanceTimersByTimeAsync(1_000);
  }
  return FakeSocket.last;
}

async function failNextWebSocket(): Promise<void> {
  await nextWebSocket();
  await refuseWebSocket();
}

/** A client that is open over server-sent events. */
async function fallenBack(options: SidewireOptions = {}) {
  const client = start(options);
  await refuseWebSocket();
  await failNextWebSocket();
  const request = await http.request(0);
  await request.confirm(5);
  return { ...client, request };
}

/** Waits for the WebSocket that is tried beside the connection. */
async function trial(withinMs: number): Promise<FakeSocket> {
  const count = FakeSocket.all.length;
  await vi.advanceTimersByTimeAsync(withinMs);
  expect(FakeSocket.all.length).toBe(count + 1);
  return FakeSocket.last;
}

test("after two attempts without an answer the next transport is asked, and used if it answers", async () => {
  const { relay, states } = start();
  await refuseWebSocket();
  await vi.advanceTimersByTimeAsync(100);
  expect(http.requests.length).toBe(0);
  await failNextWebSocket();
  const request = await http.request(0);
  expect(relay.state.name).toBe("connecting");
  await request.confirm(5);
  expect(relay.state).toEqual({ name: "open", transport: "sse" });
  expect(states).toEqual(["connecting", "waiting", "connecting", "open"]);
});

test("in an outage no transport answers, and the client goes on with the WebSocket", async () => {
  const { relay, states } = start();
  await refuseWebSocket();
  for (let attempt = 1; attempt < 6; attempt += 1) {
    await failNextWebSocket();
    const request = await http.request(attempt - 1);
    // A page cannot tell a proxy that refuses from an outage.
    expect(request.url.pathname).toBe(attempt % 2 === 1 ? "/sse" : "/poll");
    await request.fail();
    expect(http.requests.length).toBe(attempt);
    expect(relay.state).toMatchObject({ name: "waiting", reason: { closeCode: 1006 } });
  }
  expect(states).not.toContain("open");
  (await nextWebSocket()).accept();
  await settle();
  FakeSocket.last.confirm(5);
  expect(relay.state).toEqual({ name: "open", transport: "websocket" });
});

test("a page of a proxy or a silent stream is no answer, and a poll is asked for next", async () => {
  const { relay, told } = start();
  await refuseWebSocket();
  await failNextWebSocket();
  await (await http.request(0)).open();
  await vi.advanceTimersByTimeAsync(15_000);
  const poll = await http.request(1);
  expect(poll.url.pathname).toBe("/poll");
  await poll.page(503);
  expect(relay.state).toMatchObject({ name: "waiting", reason: { closeCode: 1006 } });
  await failNextWebSocket();
  await (await http.request(2)).page();
  await (await http.request(3)).poll(5, [], false);
  expect(relay.state).toEqual({ name: "open", transport: "poll" });
  await vi.advanceTimersByTimeAsync(1_000);
  await http.last.poll(6, [eventAt(6)]);
  expect(told).toEqual([6]);
});

test("a WebSocket that the relay refuses has an answer, so the client stays with it", async () => {
  const { waiting } = start();
  await settle();
  let socket = FakeSocket.last;
  for (let attempt = 0; attempt < 4; attempt += 1) {
    socket.accept();
    socket.end(4503, "RATE_LIMIT_EXCEEDED retry_after_ms=1000");
    expect(waiting().reason.closeCode).toBe(4503);
    socket = await nextWebSocket();
  }
  expect(http.requests.length).toBe(0);
});

test("a refusal over HTTP is told, while the WebSocket is blocked", async () => {
  const { waiting } = start({ getToken: () => "jwt" });
  await refuseWebSocket();
  await failNextWebSocket();
  await (await http.request(0)).json({ code: "AUTHENTICATION_FAILED", detail: "expired" }, 401);
  expect(waiting().reason).toMatchObject({ code: "TOKEN_REFUSED", closeCode: 4401 });
});

describe("while another transport is used", () => {
  test("the WebSocket is tried after 2 s and then every minute", async () => {
    const { relay, request } = await fallenBack();
    await trial(2_000);
    FakeSocket.last.end(1006);
    await vi.advanceTimersByTimeAsync(50_000);
    await request.write(":\n\n");
    await trial(10_000);
    FakeSocket.last.end(1006);
    expect(relay.state).toEqual({ name: "open", transport: "sse" });
    expect(http.requests.length).toBe(1);
  });

  test("the client moves over when frames pass in both directions, and loses nothing", async () => {
    const { relay, request, told, states } = await fallenBack();
    const socket = await trial(2_000);
    socket.accept();
    expect(socket.take()).toEqual({ ping: {} });
    await request.send(eventAt(6));
    expect(request.isAborted).toBe(false);
    socket.deliver({ pong: { position: at(7) } });
    expect(request.isAborted).toBe(true);
    expect(relay.state).toEqual({ name: "resuming", transport: "websocket" });
    const subscribe = socket.confirm(8, { recovered: true, replayed: "1" });
    expect(subscribe.resumeFrom).toEqual(at(6));
    socket.event(7);
    socket.event(9);
    expect(told).toEqual([6, 7, 9]);
    expect(relay.state).toEqual({ name: "open", transport: "websocket" });
    expect(states).toEqual(["connecting", "waiting", "connecting", "open", "resuming", "open"]);
    socket.end(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect([FakeSocket.last === socket, http.requests.length]).toEqual([false, 1]);
  });

  test("a WebSocket that opens and passes nothing on is not used", async () => {
    const { relay, request } = await fallenBack();
    const socket = await trial(2_000);
    socket.accept();
    await vi.advanceTimersByTimeAsync(50_000);
    await request.write(":\n\n");
    await trial(10_000);
    expect(socket.closedWith).toBe(1000);
    expect(relay.state).toEqual({ name: "open", transport: "sse" });
  });

  test("what the first message of the WebSocket says counts", async () => {
    const { relay } = await fallenBack();
    const socket = await trial(2_000);
    socket.accept();
    socket.take();
    socket.deliver({ subscriptionConfirmed: { topics: ["order:9"] } });
    socket.confirm(5, { recovered: true });
    const { subscription } = follow(relay, ["order:9"]);
    await settle();
    socket.confirm(5);
    subscription.unsubscribe();
    await settle();
    // The token subscribes it, so the client leaves it alone.
    expect(socket.sent).toEqual([]);
  });

  test("its end is followed by another attempt with it", async () => {
    const { relay, request } = await fallenBack();
    await request.end();
    expect(relay.state.name).toBe("waiting");
    const sockets = FakeSocket.all.length;
    await vi.advanceTimersByTimeAsync(1_000);
    await (await http.request(1)).confirm(5, { recovered: true });
    expect(relay.state).toEqual({ name: "open", transport: "sse" });
    expect(FakeSocket.all.length).toBe(sockets);
  });

  test("an outage leads back to the WebSocket", async () => {
    const { relay, request, told } = await fallenBack();
    await request.end();
    await vi.advanceTimersByTimeAsync(1_000);
    await (await http.request(1)).fail();
    await vi.advanceTimersByTimeAsync(2_000);
    FakeSocket.last.accept();
    await settle();
    FakeSocket.last.confirm(7, { recovered: true, replayed: "1" });
    FakeSocket.last.event(6);
    expect(told).toEqual([6]);
    expect(relay.state).toEqual({ name: "open", transport: "websocket" });
  });

  test("a stream that becomes silent is followed by polls", async () => {
    const { relay } = await fallenBack();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "DEAD" } });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(http.last.url.pathname).toBe("/poll");
    expect(http.last.since).toBe("e1:5");
  });

  test("a poll that was only used because of an outage is followed by a stream", async () => {
    const { relay } = start();
    await refuseWebSocket();
    await failNextWebSocket();
    await (await http.request(0)).fail();
    await failNextWebSocket();
    await (await http.request(1)).poll(5, [], false);
    expect(relay.state).toEqual({ name: "open", transport: "poll" });
    await vi.advanceTimersByTimeAsync(1_000);
    await (await http.request(2)).fail();
    await vi.advanceTimersByTimeAsync(1_000);
    const stream = await http.request(3);
    expect([stream.url.pathname, stream.since]).toEqual(["/sse", "e1:5"]);
  });

  test("a closed client tries nothing any more", async () => {
    const { relay, request } = await fallenBack();
    const socket = await trial(2_000);
    relay.close();
    expect(request.isAborted).toBe(true);
    expect(socket.closedWith).toBeUndefined();
    const sockets = FakeSocket.all.length;
    await vi.advanceTimersByTimeAsync(300_000);
    expect([FakeSocket.all.length, http.requests.length]).toEqual([sockets, 1]);
  });

  test("a page that is left aborts the request, and resumes when it comes back", async () => {
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    const { relay, request } = await fallenBack();
    page.dispatchEvent(new Event("pagehide"));
    expect(request.isAborted).toBe(true);
    expect(relay.state).toMatchObject({ name: "waiting", reason: { code: "PAGE_HIDDEN" } });
    page.dispatchEvent(new Event("pageshow"));
    expect((await http.request(1)).since).toBe("e1:5");
  });
});

describe("the option `transports`", () => {
  test("leaves out what the application does not want", async () => {
    const { relay } = start({ transports: ["poll", "websocket"] });
    await refuseWebSocket();
    await failNextWebSocket();
    expect((await http.request(0)).url.pathname).toBe("/poll");
    await http.last.poll(5, [], false);
    expect(relay.state).toEqual({ name: "open", transport: "poll" });
  });

  test("may have only the WebSocket", async () => {
    start({ transports: ["websocket"] });
    await refuseWebSocket();
    for (let attempt = 0; attempt < 4; attempt += 1) await failNextWebSocket();
    expect(http.requests.length).toBe(0);
  });

  test("needs no WebSocket where there is none", async () => {
    vi.stubGlobal("WebSocket", undefined);
    const relay = new Sidewire("wss://relay.test/app/ws", { transports: ["sse"] });
    follow(relay, ["order:7"]);
    expect((await http.request(0)).url.href).toBe("https://relay.test/app/sse?topic=order:7");
    relay.close();
  });

  test("is an error if nothing can be used", () => {
    const transports = (wanted: string[], schema?: SidewireOptions["schema"]) => () =>
      new Sidewire("ws://relay.test/ws", {
        WebSocket: FakeSocket,
        transports: wanted as TransportName[],
        ...(schema && { schema }),
      });
    expect(transports([])).toThrow(TypeError);
    expect(transports(["sse", "carrier pigeon"])).toThrow(TypeError);
    const binary = protobuf(EnvelopeSchema) as NonNullable<SidewireOptions["schema"]>;
    expect(transports(["websocket"], binary)).not.toThrow();
    expect(transports(["sse"], binary)).toThrow(TypeError);
  });
});
