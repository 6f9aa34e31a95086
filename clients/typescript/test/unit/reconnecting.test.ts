/** When the client connects, and when it does not. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Sidewire } from "../../src/index.js";
import { accepted, follow, live, logger, settle, startClient } from "../support/client.js";
import { at, FakeSocket } from "../support/fake_socket.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
  // No jitter.
  vi.spyOn(Math, "random").mockReturnValue(0);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Returns after how many ms the next attempt is made. */
async function nextAttempt(): Promise<number> {
  const began = Date.now();
  const before = FakeSocket.all.length;
  while (FakeSocket.all.length === before) {
    if (Date.now() - began > 4_000_000) throw new Error("no attempt is made");
    await vi.advanceTimersToNextTimerAsync();
  }
  return Date.now() - began;
}

test("the first subscription connects, with a token as a subprotocol", async () => {
  const { relay, states } = startClient({ getToken: async () => "jwt" });
  expect(relay.state.name).toBe("idle");
  follow(relay, ["project:1"]);
  const socket = await accepted();
  expect(socket.url).toBe("ws://relay.test/ws");
  expect(socket.protocols).toEqual(["sidewire.v1.json", "bearer.jwt"]);
  socket.confirm(0);
  expect(states).toEqual(["connecting", "resuming", "open"]);
});

test("delays grow to 30 s, and start again once a Subscribe was confirmed", async () => {
  const { relay, waiting } = startClient();
  follow(relay, ["project:1"]);
  await settle();
  for (const seconds of [1, 2, 4, 8, 16, 30, 30]) {
    FakeSocket.last.end(1006);
    expect(waiting().retryAt).toBe(Date.now() + seconds * 1000);
    expect(await nextAttempt()).toBe(seconds * 1000);
  }
  const socket = await accepted();
  socket.confirm(0);
  socket.end(1006);
  expect(await nextAttempt()).toBe(1000);
});

test("a connection without a confirmation does not shorten the delays", async () => {
  const { relay, waiting } = startClient();
  follow(relay, ["project:1"]);
  for (const seconds of [1, 2, 4]) {
    const socket = await accepted();
    socket.end(1006);
    expect(waiting().failures).toBe(Math.log2(seconds) + 1);
    expect(await nextAttempt()).toBe(seconds * 1000);
  }
});

test("delays are reduced by a random part of up to one half", async () => {
  const { socket } = await live();
  vi.mocked(Math.random).mockReturnValue(0.9999);
  socket.end(1006);
  expect(await nextAttempt()).toBe(500);
});

test("a token is asked for before each attempt", async () => {
  let count = 0;
  const { relay } = startClient({ getToken: () => `jwt-${++count}` });
  follow(relay, ["project:1"]);
  const socket = await accepted();
  socket.confirm(0);
  socket.end(4001, "token expired");
  await nextAttempt();
  expect(FakeSocket.last.protocols[1]).toBe("bearer.jwt-2");
});

test("a token that cannot be had is asked for again after a delay", async () => {
  const getToken = vi.fn(async () => "jwt");
  getToken.mockRejectedValueOnce(new Error("login is down"));
  const { relay, waiting } = startClient({ getToken });
  follow(relay, ["project:1"]);
  await settle();
  expect(waiting().reason).toMatchObject({ code: "NO_TOKEN", cause: new Error("login is down") });
  expect(await nextAttempt()).toBe(1000);
});

test("a token that never comes is given up after 30 s, and ignored if it comes later", async () => {
  const tokens: ((token: string) => void)[] = [];
  const getToken = () => new Promise<string>((resolve) => tokens.push(resolve));
  const { relay, waiting } = startClient({ getToken });
  follow(relay, ["project:1"]);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(waiting().reason.code).toBe("DEAD");
  tokens[0]?.("late");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(FakeSocket.all).toEqual([]);
  tokens[1]?.("jwt");
  await settle();
  expect(FakeSocket.last.protocols[1]).toBe("bearer.jwt");
});

test("a handshake that is never answered is given up after 15 s", async () => {
  const { relay } = startClient();
  follow(relay, ["project:1"]);
  await settle();
  const first = FakeSocket.last;
  await vi.advanceTimersByTimeAsync(16_000);
  expect(FakeSocket.all.length).toBe(2);
  expect(first.closedWith).toBeUndefined();
});

describe("close codes", () => {
  test.each([1002, 1003, 1007, 1009])("%i is a fault of this client, and final", async (code) => {
    const { socket, relay } = await live();
    socket.end(code);
    expect(relay.state).toMatchObject({
      name: "closed",
      reason: { code: "CLIENT_FAULT", closeCode: code },
    });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
  });

  test("4002 is final, until the application connects again and resumes", async () => {
    const { socket, relay, told } = await live();
    socket.event(6);
    socket.end(4002, "bye");
    expect(relay.state).toMatchObject({
      name: "closed",
      reason: { code: "DISCONNECTED", closeReason: "bye" },
    });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    relay.connect();
    const next = await accepted();
    next.confirm(7, { recovered: true, replayed: "1" });
    next.event(7);
    expect(told).toEqual([6, 7]);
  });

  test.each([1000, 1005, 1006, 1011, 1012, 4001, 4003, 4004, 4999])(
    "after %i the client reconnects and resumes",
    async (code) => {
      const { socket } = await live();
      socket.end(code);
      expect(await nextAttempt()).toBe(1000);
      const next = await accepted();
      expect(next.take().subscribe.resumeFrom.offset).toBe("5");
    },
  );

  test("4403 is final, until the application connects again", async () => {
    const { relay } = startClient();
    follow(relay, ["project:1"]);
    (await accepted()).end(4403, "AUTHORIZATION_FAILED");
    expect(relay.state).toMatchObject({ name: "closed", reason: { code: "ORIGIN_REFUSED" } });
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(FakeSocket.all.length).toBe(1);
    relay.connect();
    await settle();
    expect(FakeSocket.all.length).toBe(2);
  });

  test("after 4401 the client says so, and tries another token after growing delays", async () => {
    let count = 0;
    const { relay, waiting } = startClient({ getToken: () => `jwt-${++count}` });
    follow(relay, ["project:1"]);
    for (const seconds of [1, 2, 4]) {
      (await accepted()).end(4401, "AUTHENTICATION_FAILED");
      expect(waiting().reason.code).toBe("TOKEN_REFUSED");
      expect(waiting().failures).toBe(count);
      expect(logger.warn).toHaveBeenCalledTimes(count);
      expect(await nextAttempt()).toBe(seconds * 1000);
    }
    expect(FakeSocket.last.protocols[1]).toBe("bearer.jwt-4");
  });

  test.each([4429, 4503])(
    "after %i the backoff begins when the relay's delay is over",
    async (code) => {
      const { relay, waiting } = startClient();
      follow(relay, ["project:1"]);
      for (const seconds of [1, 2, 4]) {
        (await accepted()).end(code, "RATE_LIMIT_EXCEEDED retry_after_ms=7000");
        expect(waiting().reason.code).toBe("LOST");
        expect(await nextAttempt()).toBe(7000 + seconds * 1000);
      }
      (await accepted()).end(code);
      expect(await nextAttempt()).toBe(8000);
    },
  );

  test("after 4006 the client reconnects at once and resumes, unless it got nowhere", async () => {
    let { socket } = await live();
    socket.end(4006);
    expect(await nextAttempt()).toBe(0);
    socket = await accepted();
    expect(socket.take().subscribe.resumeFrom.offset).toBe("5");
    socket.end(4006);
    expect(await nextAttempt()).toBe(1000);
  });

  test.each([1000, 1001, 1012, 4003, 4005, 4006, 4999])(
    "after %i the client waits as long as the relay asks",
    async (code) => {
      const { socket } = await live();
      socket.end(code, "shutting down retry_after_ms=7341");
      expect(await nextAttempt()).toBe(7341);
    },
  );

  test("a relay cannot make the client wait for more than an hour", async () => {
    const { socket } = await live();
    socket.end(1001, "retry_after_ms=99999999999");
    expect(await nextAttempt()).toBe(3_600_000);
  });

  test("after 4005 the client waits for a minute", async () => {
    const { socket } = await live();
    socket.end(4005);
    expect(await nextAttempt()).toBe(61_000);
  });
});

describe("the heartbeat", () => {
  test("a Ping is sent every 30 s", async () => {
    const { socket } = await live();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(socket.take()).toEqual({ ping: {} });
    socket.deliver({ pong: {} });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(socket.take()).toEqual({ ping: {} });
  });

  test("60 s without a frame of any kind mean that the connection is dead", async () => {
    const { socket, waiting } = await live();
    await vi.advanceTimersByTimeAsync(50_000);
    socket.event(6);
    await vi.advanceTimersByTimeAsync(59_999);
    expect(socket.closedWith).toBe("open");
    await vi.advanceTimersByTimeAsync(1);
    // The socket may never say that it is closed, so the client does not wait for that.
    expect(socket.closedWith).toBe(1000);
    expect(waiting().reason.code).toBe("DEAD");
    expect(await nextAttempt()).toBe(1000);
  });

  test("what a connection brings after it was given up is ignored", async () => {
    const { socket, told } = await live();
    const late = socket.onmessage;
    await vi.advanceTimersByTimeAsync(60_000);
    late?.({ data: '{"event":{},"position":{"epoch":"e1","offset":"6"}}' });
    socket.end(1006);
    expect(told).toEqual([]);
  });
});

test("a message that cannot be decoded ends the connection and is logged", async () => {
  for (const data of ["not JSON", "[]", "7", "null"]) {
    const { socket, waiting } = await live();
    socket.deliver(data);
    expect(socket.closedWith).toBe(1000);
    expect(waiting().reason.code).toBe("UNREADABLE");
    expect(logger.error).toHaveBeenCalled();
    vi.clearAllMocks();
    vi.clearAllTimers();
  }
});

test("messages that cannot be decoded do not shorten the delays, even after a confirmation", async () => {
  const { relay } = startClient();
  follow(relay, ["project:1"]);
  for (const seconds of [1, 2, 4]) {
    const socket = await accepted();
    socket.confirm(5);
    socket.deliver("not JSON");
    expect(await nextAttempt()).toBe(seconds * 1000);
  }
  const socket = await accepted();
  socket.confirm(5);
  socket.end(1006);
  expect(await nextAttempt()).toBe(1000);
});

test("a WebSocket that cannot be made is an error of its own, and tried again", async () => {
  let failure: Error | undefined = new SyntaxError("invalid subprotocol");
  class PickySocket extends FakeSocket {
    constructor(url: string, protocols: string[]) {
      if (failure !== undefined) throw failure;
      super(url, protocols);
    }
  }
  const { relay, waiting } = startClient({ WebSocket: PickySocket });
  follow(relay, ["project:1"]);
  await settle();
  expect(waiting().reason).toMatchObject({ code: "WEBSOCKET_FAILED", cause: failure });
  // The text of the cause may have the token, as that of browsers does.
  expect(logger.error.mock.calls).toEqual([["sidewire: the WebSocket cannot be made"]]);
  failure = undefined;
  expect(await nextAttempt()).toBe(1000);
});

describe("a request that the relay does not answer", () => {
  test("ends the connection after 60 s, although Pings are answered", async () => {
    const { socket, relay, waiting } = await live();
    follow(relay, ["project:2"]);
    await settle();
    for (let seconds = 0; seconds < 59; seconds += 1) {
      await vi.advanceTimersByTimeAsync(1_000);
      socket.deliver({ pong: {} });
    }
    expect(socket.closedWith).toBe("open");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(socket.closedWith).toBe(1000);
    expect(waiting().reason.code).toBe("NO_ANSWER");
    expect(await nextAttempt()).toBe(1000);
  });

  test("may wait for as long as a replay goes on", async () => {
    const { relay } = startClient();
    const { told } = follow(relay, ["project:1"], { since: at(1) });
    const late = follow(relay, ["project:2"], { since: at(2) });
    const socket = await accepted();
    socket.confirm(9, { recovered: true, replayed: "3" });
    for (const offset of [3, 4, 5]) {
      await vi.advanceTimersByTimeAsync(50_000);
      socket.event(offset);
    }
    await vi.advanceTimersByTimeAsync(50_000);
    socket.sent = socket.sent.filter((it) => it.ping === undefined);
    socket.confirm(9, { recovered: true });
    expect(told).toEqual([3, 4, 5]);
    expect(late.subscription.state).toBe("live");
  });
});

test("a closed client ends its subscriptions and makes no attempt", async () => {
  const { relay, socket, subscription } = await live();
  const loop = subscription[Symbol.asyncIterator]().next();
  relay.close();
  expect(await loop).toEqual({ done: true, value: undefined });
  expect(socket.closedWith).toBe(1000);
  expect(subscription.state).toBe("ended");
  expect(relay.state).toMatchObject({ name: "closed", reason: { code: "CLOSED" } });
  expect(vi.getTimerCount()).toBe(0);
  expect(() => relay.connect()).toThrow("closed");
  expect(() => follow(relay, ["project:1"])).toThrow("closed");
});

test("a client that the relay has closed can be closed for good, once", async () => {
  const { relay, socket, states } = await live();
  socket.end(4002);
  relay.close();
  relay.close();
  expect(states.slice(-2)).toEqual(["closed", "closed"]);
  expect(relay.state).toMatchObject({ reason: { code: "CLOSED" } });
  expect(() => relay.connect()).toThrow("closed");
});

test("a client that is closed in a callback leaves nothing behind", async () => {
  const { relay, socket, subscription } = await live();
  subscription.on("event", () => relay.close());
  socket.event(6);
  expect(relay.state.name).toBe("closed");
  expect(vi.getTimerCount()).toBe(0);
});

test("an invalid address, and a missing WebSocket, are errors at once", () => {
  expect(() => new Sidewire("relay.test")).toThrow(TypeError);
  expect(() => new Sidewire("https://relay.test/ws")).toThrow("ws://");
  vi.stubGlobal("WebSocket", undefined);
  expect(() => new Sidewire("ws://relay.test/ws")).toThrow("`ws`");
});

describe("in a browser", () => {
  let page: EventTarget;
  let document: EventTarget & { visibilityState: string };
  let navigator: { onLine: boolean };

  beforeEach(() => {
    page = new EventTarget();
    document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    navigator = { onLine: true };
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    vi.stubGlobal("document", document);
    vi.stubGlobal("navigator", navigator);
  });

  const happens = async (name: string, target: EventTarget = page) => {
    target.dispatchEvent(new Event(name));
    await settle();
  };

  test("no attempt is made while it is offline, and one at once when it is online", async () => {
    const { socket, waiting } = await live();
    navigator.onLine = false;
    await happens("offline");
    expect(socket.closedWith).toBe("open");
    socket.end(1006);
    expect(waiting().retryAt).toBeUndefined();
    await vi.advanceTimersByTimeAsync(600_000);
    expect(FakeSocket.all.length).toBe(1);
    navigator.onLine = true;
    await happens("online");
    expect(FakeSocket.all.length).toBe(2);
  });

  test("a wait ends when it goes offline", async () => {
    const { socket, waiting } = await live();
    socket.end(1006);
    navigator.onLine = false;
    await happens("offline");
    expect(waiting()).toMatchObject({ retryAt: undefined, reason: { code: "OFFLINE" } });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(FakeSocket.all.length).toBe(1);
  });

  test("an attempt is made at once when the page becomes visible", async () => {
    const { socket } = await live();
    socket.end(1006);
    document.visibilityState = "hidden";
    await happens("visibilitychange", document);
    expect(FakeSocket.all.length).toBe(1);
    document.visibilityState = "visible";
    await happens("visibilitychange", document);
    expect(FakeSocket.all.length).toBe(2);
  });

  test("nothing shortens a wait that the relay asked for", async () => {
    const { socket, waiting } = await live();
    socket.end(1001, "retry_after_ms=60000");
    const { retryAt } = waiting();
    navigator.onLine = false;
    await happens("offline");
    await happens("visibilitychange", document);
    navigator.onLine = true;
    await happens("online");
    expect(waiting().retryAt).toBe(retryAt);
    await happens("pagehide");
    await happens("pageshow");
    await vi.advanceTimersByTimeAsync(59_999);
    expect(FakeSocket.all.length).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.all.length).toBe(2);
  });

  test("an open connection is probed when it is online again, and dead after 10 s", async () => {
    const { socket, waiting } = await live();
    await happens("online");
    expect(socket.take()).toEqual({ ping: {} });
    socket.deliver({ pong: {} });
    await vi.advanceTimersByTimeAsync(20_000);
    expect(socket.closedWith).toBe("open");
    await happens("online");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(waiting().reason.code).toBe("DEAD");
  });

  test("the connection is probed after the machine has slept", async () => {
    const { socket } = await live();
    // The clock moves on while no timer runs.
    vi.setSystemTime(Date.now() + 600_000);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(socket.take()).toEqual({ ping: {} });
  });

  test("an attempt is made at once after the machine has slept", async () => {
    const { socket } = await live();
    for (let attempt = 0; attempt < 6; attempt += 1) {
      FakeSocket.last.end(1006);
      await nextAttempt();
    }
    FakeSocket.last.end(1006);
    const before = FakeSocket.all.length;
    vi.setSystemTime(Date.now() + 600_000);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(FakeSocket.all.length).toBe(before + 1);
    expect(socket.closedWith).toBe("open");
  });

  test("a page that is hidden closes its connection, and resumes when it comes back", async () => {
    const { socket, told, waiting } = await live();
    await happens("pagehide");
    expect(socket.closedWith).toBe(1000);
    expect(waiting()).toMatchObject({ retryAt: undefined, reason: { code: "PAGE_HIDDEN" } });
    await happens("visibilitychange", document);
    await vi.advanceTimersByTimeAsync(600_000);
    expect(FakeSocket.all.length).toBe(1);
    await happens("pageshow");
    const next = await accepted();
    next.confirm(6, { recovered: true, replayed: "1" });
    next.event(6);
    expect(told).toEqual([6]);
  });

  test("a closed client no longer listens", async () => {
    const { relay } = await live();
    relay.close();
    await happens("online");
    await happens("pageshow");
    expect(FakeSocket.all.length).toBe(1);
  });
});
