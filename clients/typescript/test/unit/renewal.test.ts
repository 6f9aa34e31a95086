/** The token of an open connection is renewed before it expires. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { accepted, follow, logger, settle, startClient } from "../support/client.js";
import { FakeSocket } from "../support/fake_socket.js";

/** The relay's time at the start, in Unix seconds; that of this machine is another one. */
const START = 5_000;

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
  // No jitter.
  vi.spyOn(Math, "random").mockReturnValue(0);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Returns a token with these claims. */
function tokenWith(claims: unknown): string {
  const encoded = Buffer.from(JSON.stringify(claims)).toString("base64url");
  return `header.${encoded}.signature`;
}

function until(exp: number): string {
  return tokenWith({ exp });
}

/** Starts a client that gets these tokens one after another, and then the last one again. */
async function start(...tokens: (string | Error)[]) {
  let count = 0;
  const getToken = vi.fn(async () => {
    const token = tokens[Math.min(count, tokens.length - 1)] ?? "";
    count += 1;
    if (typeof token !== "string") throw token;
    return token;
  });
  const client = startClient({ getToken });
  const revoked: string[] = [];
  const onRevoked = (topics: readonly string[]) => revoked.push(...topics);
  const followed = follow(client.relay, ["project:1"], { onRevoked });
  const socket = await accepted();
  socket.confirm(5);
  return { ...client, ...followed, getToken, socket, revoked };
}

/** The relay's time is known from the next message of its own. */
function tellTime(socket: FakeSocket, seconds = START): void {
  socket.deliver({ timestamp: String(seconds), pong: {} });
}

/** Lets this time pass, and answers every Ping. */
async function pass(socket: FakeSocket, seconds: number): Promise<void> {
  for (let left = seconds; left > 0; left -= 10) {
    await vi.advanceTimersByTimeAsync(Math.min(left, 10) * 1_000);
    const others = socket.sent.filter((it) => it.ping === undefined);
    if (others.length < socket.sent.length) socket.deliver({ pong: {} });
    socket.sent = others;
  }
}

test("a token is renewed when a fifth of its time is left", async () => {
  const { socket, getToken } = await start(until(START + 1_000), until(START + 2_000));
  tellTime(socket);
  await pass(socket, 799);
  expect(getToken).toHaveBeenCalledTimes(1);
  await pass(socket, 1);
  const { messageId, authenticate } = socket.take();
  expect(authenticate).toEqual({ token: until(START + 2_000) });
  expect(messageId).not.toBe("");
});

test("a token is not renewed earlier than 5 minutes before its end", async () => {
  const { socket } = await start(until(START + 3_600), until(START + 7_200));
  tellTime(socket);
  await pass(socket, 3_298);
  expect(socket.sent).toEqual([]);
  await pass(socket, 1);
  expect(socket.take().authenticate).toBeDefined();
});

test("it is renewed again and again, by what the relay answers", async () => {
  const { socket, relay } = await start(
    until(START + 1_000),
    until(START + 2_000),
    until(START + 3_000),
    until(START + 4_000),
  );
  tellTime(socket);
  for (let renewal = 1; renewal <= 3; renewal += 1) {
    await pass(socket, 800);
    const requestMessageId = socket.take().messageId;
    const timestamp = String(START + 800 * renewal);
    const expiresAt = String(START + 800 * renewal + 1_000);
    socket.deliver({ timestamp, authenticated: { requestMessageId, expiresAt } });
  }
  expect(relay.state.name).toBe("open");
  expect(FakeSocket.all.length).toBe(1);
});

test("nothing is sent for a token that never expires, or whose end is not known", async () => {
  for (const token of ["opaque", tokenWith({}), tokenWith({ exp: "soon" }), tokenWith(null)]) {
    const { socket, getToken, relay } = await start(token);
    tellTime(socket);
    await pass(socket, 10_000);
    expect(getToken).toHaveBeenCalledTimes(1);
    relay.close();
  }
});

test("without an end, the new token is the last one", async () => {
  const { socket } = await start(until(START + 1_000), "endless");
  tellTime(socket);
  await pass(socket, 800);
  const requestMessageId = socket.take().messageId;
  socket.deliver({ timestamp: String(START + 800), authenticated: { requestMessageId } });
  await pass(socket, 10_000);
  expect(socket.sent).toEqual([]);
});

test("a token that was kept is asked for again, with growing delays, until there is another", async () => {
  const { socket, getToken } = await start(
    until(START + 1_000),
    until(START + 1_000),
    until(START + 900),
    until(START + 2_000),
  );
  tellTime(socket);
  await pass(socket, 800);
  expect(getToken).toHaveBeenCalledTimes(2);
  await pass(socket, 1);
  expect(getToken).toHaveBeenCalledTimes(3);
  await pass(socket, 2);
  expect(socket.take().authenticate.token).toBe(until(START + 2_000));
  expect(logger.warn).not.toHaveBeenCalled();
});

test("a clock that is wrong makes no loop", async () => {
  // By the relay's clock, every token has already expired.
  const tokens = Array.from({ length: 1_000 }, (_, index) => until(START - 1_000 + index));
  const { socket, getToken } = await start(...tokens);
  tellTime(socket);
  for (let renewals = 0; renewals < 10; renewals += 1) {
    await pass(socket, 5);
    const { messageId, authenticate } = socket.take();
    expect(authenticate).toBeDefined();
    const answer = { requestMessageId: messageId, expiresAt: String(START - 2_000 + renewals) };
    socket.deliver({ timestamp: String(START), authenticated: answer });
  }
  expect(getToken).toHaveBeenCalledTimes(11);
});

test("a token that cannot be had is asked for again after a delay", async () => {
  const { socket, relay } = await start(
    until(START + 1_000),
    new Error("login is down"),
    until(START + 2_000),
  );
  tellTime(socket);
  await pass(socket, 800);
  expect(logger.warn).toHaveBeenCalledWith(
    "sidewire: there is no new token",
    new Error("login is down"),
  );
  expect(relay.state.name).toBe("open");
  await pass(socket, 1);
  expect(socket.take().authenticate.token).toBe(until(START + 2_000));
});

test("a refused token is replaced, and one that the relay cannot take now is sent again", async () => {
  const { socket, relay, getToken } = await start(
    until(START + 1_000),
    until(START + 2_000),
    until(START + 3_000),
    until(START + 4_000),
  );
  const refused = vi.fn();
  relay.on("refused", refused);
  tellTime(socket);
  await pass(socket, 800);
  let requestMessageId = socket.take().messageId;
  socket.deliver({ error: { errorCode: "AUTHENTICATION_FAILED", requestMessageId } });
  await pass(socket, 1);
  const second = socket.take();
  expect(second.authenticate.token).toBe(until(START + 3_000));
  requestMessageId = second.messageId;
  const retryAfterMs = "7000";
  socket.deliver({ error: { errorCode: "RATE_LIMIT_EXCEEDED", requestMessageId, retryAfterMs } });
  await pass(socket, 8);
  expect(socket.sent).toEqual([]);
  await pass(socket, 1);
  expect(socket.take().authenticate.token).toBe(until(START + 3_000));
  expect(getToken).toHaveBeenCalledTimes(3);
  expect(refused).not.toHaveBeenCalled();
});

test("a schema without Authenticate leads to a reconnect when the token expires", async () => {
  const { socket, getToken } = await start(until(START + 1_000), until(START + 2_000));
  tellTime(socket);
  await pass(socket, 800);
  const requestMessageId = socket.take().messageId;
  socket.deliver({ error: { errorCode: "VALIDATION_ERROR", requestMessageId } });
  await pass(socket, 200);
  expect(getToken).toHaveBeenCalledTimes(2);
  socket.end(4001, "token expired");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(FakeSocket.last.protocols[1]).toBe(`bearer.${until(START + 2_000)}`);
  expect(logger.warn).not.toHaveBeenCalled();
});

test("topics that the new token does not cover are told", async () => {
  const { socket, relay, subscription, revoked } = await start(
    until(START + 1_000),
    until(START + 2_000),
  );
  const other = follow(relay, ["project:2"]);
  await settle();
  socket.confirm(5);
  tellTime(socket);
  await pass(socket, 800);
  const requestMessageId = socket.take().messageId;
  const expiresAt = String(START + 2_000);
  const revokedTopics = ["project:1"];
  socket.deliver({ authenticated: { requestMessageId, expiresAt, revokedTopics } });
  expect(revoked).toEqual(["project:1"]);
  expect(subscription.state).toBe("revoked");
  expect(other.subscription.state).toBe("live");
  // They are not asked for on the next connection.
  socket.end(1006);
  await vi.advanceTimersByTimeAsync(1_000);
  const next = await accepted();
  expect(next.take().subscribe.topics).toEqual(["project:2"]);
});

test("an answer to another request, and a token after the end of the connection, change nothing", async () => {
  const { socket, getToken } = await start(until(START + 1_000), until(START + 2_000));
  tellTime(socket);
  let resolve: (token: string) => void = () => {};
  getToken.mockReturnValueOnce(new Promise((it) => (resolve = it)));
  await pass(socket, 800);
  expect(getToken).toHaveBeenCalledTimes(2);
  socket.deliver({ authenticated: { requestMessageId: "other", expiresAt: "1" } });
  socket.end(1006);
  resolve(until(START + 3_000));
  await settle();
  expect(socket.sent).toEqual([]);
});

test("without getToken nothing is renewed", async () => {
  const { relay } = startClient();
  follow(relay, ["project:1"]);
  const socket = await accepted();
  socket.confirm(5);
  tellTime(socket);
  await pass(socket, 10_000);
  expect(socket.sent).toEqual([]);
});
