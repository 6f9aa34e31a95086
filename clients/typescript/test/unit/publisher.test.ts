/** What a publisher sends, and what it makes of the answers. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  NoAnswerError,
  PublishError,
  Publisher,
  type PublisherOptions,
} from "../../src/publisher.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const EPOCH = "7c3e09d5635dcea77ac98e629dfe922e";
const RECEIPT = {
  message_id: "m-1",
  position: { epoch: EPOCH, offset: "7" },
  topics: ["order:7"],
  matched: 2,
  duplicate: false,
};

interface Call {
  readonly url: string;
  readonly headers: Record<string, string>;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into it.
  readonly body: any;
  readonly bytes: Uint8Array;
}

type Answer = Response | Error | "never";

/** A publisher whose calls get these answers, one after the other. */
function publisherWith(answers: Answer[], options: PublisherOptions = {}) {
  const calls: Call[] = [];
  const fake = (url: string, init: RequestInit & { body: string | Uint8Array }) => {
    const body = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    const bytes = typeof init.body === "string" ? new Uint8Array() : init.body;
    calls.push({ url, headers: init.headers as Record<string, string>, body, bytes });
    const answer = answers.shift();
    if (answer === undefined) throw new Error("unexpected call");
    if (answer instanceof Response) return Promise.resolve(answer);
    if (answer instanceof Error) return Promise.reject(answer);
    return new Promise((_, reject) => {
      init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
    });
  };
  const fetch = fake as unknown as typeof globalThis.fetch;
  const publisher = new Publisher("http://relay.test:3001/", { key: "secret", fetch, ...options });
  return { publisher, calls };
}

const ok = (body: unknown = RECEIPT, status = 200) => Response.json(body, { status });

function problem(status: number, code: string, more: object = {}, retryAfter?: string): Response {
  const headers: HeadersInit = retryAfter === undefined ? {} : { "retry-after": retryAfter };
  return Response.json({ status, code, detail: "why not", ...more }, { status, headers });
}

/** Waits for a promise while time passes. */
async function outcome<T>(promise: Promise<T>): Promise<T | Error> {
  let result: { value: T | Error } | undefined;
  promise.then(
    (value) => {
      result = { value };
    },
    (error: Error) => {
      result = { value: error };
    },
  );
  await vi.advanceTimersByTimeAsync(0);
  while (result === undefined) await vi.advanceTimersToNextTimerAsync();
  return result.value;
}

test("an event is posted with its id, its topics and its conditions", async () => {
  const { publisher, calls } = publisherWith([ok()]);
  const receipt = await publisher.publish(
    "acme & co",
    { event: { type: "shipped" } },
    {
      messageId: "m-1",
      topics: ["order:7", "team:a/b"],
      ifLast: [
        { topic: "a:1", epoch: EPOCH, offset: "6" },
        { topic: "b:2", epoch: EPOCH },
        { topic: "c:3" },
      ],
    },
  );
  expect(receipt).toEqual({
    messageId: "m-1",
    position: { epoch: EPOCH, offset: "7" },
    topics: ["order:7"],
    matched: 2,
    duplicate: false,
  });
  const [call] = calls;
  const url = new URL(call?.url ?? "");
  expect(url.pathname).toBe("/v1/tenants/acme%20%26%20co/events");
  expect(url.searchParams.getAll("topic")).toEqual(["order:7", "team:a/b"]);
  expect(url.searchParams.getAll("if_last")).toEqual([`a:1@${EPOCH}:6`, `b:2@${EPOCH}:0`, "c:3@0"]);
  expect(call?.headers).toEqual({
    Authorization: "Bearer secret",
    "Content-Type": "application/json",
  });
  expect(call?.body).toEqual({ messageId: "m-1", event: { type: "shipped" } });
});

test("every try of a call has the same id, which is made once", async () => {
  const { publisher, calls } = publisherWith([
    new TypeError("fetch failed"),
    problem(503, "INTERNAL_ERROR"),
    new Response("<html>", { status: 502 }),
    ok(),
  ]);
  expect(await outcome(publisher.publish("acme", { event: {} }))).toMatchObject({ matched: 2 });
  const ids = calls.map((call) => call.body.messageId);
  expect(ids.length).toBe(4);
  expect(new Set(ids).size).toBe(1);
  expect(ids[0]).toMatch(/^[0-9a-f-]{36}$/);
});

test("a body that arrived too slowly is posted again", async () => {
  const { publisher, calls } = publisherWith([problem(408, "VALIDATION_ERROR"), ok()]);
  expect(await outcome(publisher.publish("acme", { event: {} }))).toMatchObject({ matched: 2 });
  expect(calls.length).toBe(2);
});

describe("an error has the ids of the call's events, and says whether they may be stored", () => {
  /** Posts an event that fails with the last of these answers. */
  async function failure(answers: Answer[], options: PublisherOptions = {}) {
    const { publisher, calls } = publisherWith(answers, { giveUpAfterMs: 1_000, ...options });
    const error = await outcome(publisher.publish("acme", { event: {} }));
    expect(error).toMatchObject({ messageIds: [calls[0]?.body.messageId] });
    return error as PublishError | NoAnswerError;
  }

  const refused = Object.assign(new TypeError("fetch failed"), { cause: { code: "ECONNREFUSED" } });

  test.each([
    [[problem(403, "AUTHORIZATION_FAILED")], false],
    [[problem(500, "INTERNAL_ERROR")], false],
    [[new Response("<html>", { status: 500 })], true],
    [[new Response("<html>", { status: 404 })], false],
    [[new Response(null, { status: 303 })], true],
    [[new Response("<html>", { status: 502 }), problem(401, "AUTHENTICATION_FAILED")], true],
    [[new TypeError("fetch failed"), problem(409, "CONFLICT")], true],
    [[problem(503, "INTERNAL_ERROR"), problem(409, "CONFLICT")], false],
    [[refused, problem(401, "AUTHENTICATION_FAILED")], false],
    [[new Response("cut off"), problem(401, "AUTHENTICATION_FAILED")], true],
  ] as [Answer[], boolean][])(
    "a refusal says so after the tries of row %#",
    async (answers, mayBeStored) => {
      const error = await failure(answers);
      expect(error).toBeInstanceOf(PublishError);
      expect(error.mayBeStored).toBe(mayBeStored);
    },
  );

  test("no answer says so, unless no try was sent", async () => {
    const without = await failure(Array.from({ length: 99 }, () => refused));
    expect(without).toBeInstanceOf(NoAnswerError);
    expect(without.mayBeStored).toBe(false);
    const then = [new Response("<html>", { status: 504 })];
    expect(await failure([...then, ...Array.from({ length: 99 }, () => refused)])).toMatchObject({
      name: "NoAnswerError",
      mayBeStored: true,
    });
    expect((await failure(["never"], { timeoutMs: 1_000 })).mayBeStored).toBe(true);
  });

  test("a refused batch has the id of each event", async () => {
    const { publisher } = publisherWith([problem(403, "AUTHORIZATION_FAILED")]);
    const events = [{ messageId: "own", event: {} }, { event: {} }];
    const error = await outcome(
      publisher.publishBatch("acme", events, { messageIds: [undefined, "b"] }),
    );
    expect(error).toMatchObject({ messageIds: ["own", "b"], mayBeStored: false });
  });
});

test("a batch may be given the ids of its events, one for each", async () => {
  const { publisher, calls } = publisherWith([
    ok({ results: [RECEIPT, RECEIPT] }),
    ok({ results: [RECEIPT, RECEIPT] }),
  ]);
  const messageIds = ["a", "b"];
  await publisher.publishBatch("acme", [{ event: {} }, { event: {} }], { messageIds });
  expect(calls[0]?.body.messages.map((it: { messageId: string }) => it.messageId)).toEqual(
    messageIds,
  );
  await publisher.publishBatch("acme", [new Uint8Array(), new Uint8Array()], { messageIds });
  expect([...(calls[1]?.bytes ?? [])]).toEqual([10, 3, 10, 1, 0x61, 10, 3, 10, 1, 0x62]);
  const short = publisher.publishBatch("acme", [{ event: {} }], { messageIds });
  await expect(short).rejects.toThrow("as many message ids");
  const empty = publisher.publish("acme", { event: {} }, { messageId: "" });
  await expect(empty).rejects.toThrow("not empty");
});

test("an invalid address and a key that no header can have are errors at once", async () => {
  for (const url of [
    "relay.test",
    "ftp://relay.test",
    "http://ann:pw@relay.test",
    "http://a/?b=c",
  ]) {
    expect(() => new Publisher(url)).toThrow(TypeError);
  }
  const construct = () => new Publisher("http://relay.test", { key: "sec\nret" });
  expect(construct).toThrow(TypeError);
  expect(construct).toThrow(/^the key has characters that a header cannot have$/);
  const { publisher, calls } = publisherWith([], { key: () => "schlüssel–" });
  await expect(publisher.publish("acme", { event: {} })).rejects.toThrow("characters");
  expect(calls).toEqual([]);
});

test("`fetch` is not called as a method of the publisher", async () => {
  const receivers: unknown[] = [];
  const fetch = async function (this: unknown) {
    receivers.push(this);
    return ok();
  } as typeof globalThis.fetch;
  await publisherWith([], { fetch }).publisher.publish("acme", { event: {} });
  vi.stubGlobal("fetch", fetch);
  await new Publisher("http://relay.test").publish("acme", { event: {} });
  vi.unstubAllGlobals();
  expect(receivers).toEqual([undefined, undefined]);
});

test("a condition with an offset needs its epoch", async () => {
  const { publisher, calls } = publisherWith([ok()]);
  const post = (offset: string) =>
    publisher.publish("acme", { event: {} }, { ifLast: [{ topic: "a:1", offset }] });
  await expect(post("7")).rejects.toThrow("needs its epoch");
  await post("0");
  expect(new URL(calls[0]?.url ?? "").searchParams.get("if_last")).toBe("a:1@0");
});

test("an id in the envelope is kept, in either style, and no other may be given", async () => {
  const { publisher, calls } = publisherWith([ok(), ok(), ok()]);
  await publisher.publish("acme", { messageId: "mine", event: {} });
  await publisher.publish("acme", { message_id: "mine", event: {} }, { messageId: "mine" });
  await publisher.publish("acme", { messageId: "", event: {} }, { messageId: "other" });
  expect(calls.map((call) => call.body)).toEqual([
    { messageId: "mine", event: {} },
    { message_id: "mine", event: {} },
    { messageId: "other", event: {} },
  ]);
  const both = publisher.publish("acme", { messageId: "mine", event: {} }, { messageId: "other" });
  await expect(both).rejects.toThrow("another message id");
});

describe("bytes", () => {
  const event = [0x82, 0x02, 0x02, 0x0a, 0x00];

  test("get an id where they have none", async () => {
    const { publisher, calls } = publisherWith([ok(), ok()]);
    await publisher.publish("acme", new Uint8Array(event), { messageId: "ab" });
    await publisher.publish("acme", new Uint8Array([0x0a, 0x00, ...event]), { messageId: "ab" });
    for (const { bytes, headers } of calls) {
      expect([...bytes]).toEqual([0x0a, 0x02, 0x61, 0x62, ...event]);
      expect(headers["Content-Type"]).toBe("application/x-protobuf");
    }
  });

  test("keep the id that they have, wherever it is", async () => {
    const { publisher, calls } = publisherWith([ok()]);
    const fields = [0x40, 0x80, 0x01, ...event, 0x0a, 0x01, 0x78, 0x15, 1, 2, 3, 4];
    await publisher.publish("acme", new Uint8Array(fields));
    expect([...(calls[0]?.bytes ?? [])]).toEqual(fields);
  });

  test("make a batch, with lengths of any size", async () => {
    const { publisher, calls } = publisherWith([ok({ results: [RECEIPT, RECEIPT] })]);
    const long = new Uint8Array([0x82, 0x02, 0xc8, 0x01, ...new Array(200).fill(1)]);
    await publisher.publishBatch("acme", [new Uint8Array([0x0a, 0x01, 0x78, ...event]), long]);
    const bytes = [...(calls[0]?.bytes ?? [])];
    expect(bytes.slice(0, 10)).toEqual([0x0a, 0x08, 0x0a, 0x01, 0x78, ...event]);
    // 38 bytes for an id of 36, and the event.
    expect(bytes.slice(10, 13)).toEqual([0x0a, ((38 + 204) % 128) | 0x80, 1]);
    expect(bytes.length).toBe(10 + 3 + 38 + 204);
  });

  test.each([[[0x0a]], [[0x0a, 0x05, 0x61]], [[0x0b]], [[0x80]], [[0x09, 0x01]]])(
    "that are not an envelope are an error: %j",
    async (bytes) => {
      const { publisher } = publisherWith([]);
      const published = publisher.publish("acme", new Uint8Array(bytes));
      await expect(published).rejects.toThrow("not an envelope");
    },
  );
});

test("a batch gives every event an id, and returns a receipt for each", async () => {
  const second = { ...RECEIPT, message_id: "m-2", duplicate: true };
  const { publisher, calls } = publisherWith([ok({ results: [RECEIPT, second] })]);
  const events = [{ messageId: "m-1", event: {} }, { event: { type: "x" } }];
  const receipts = await publisher.publishBatch("acme", events, { topics: ["order:7"] });
  expect(receipts.map((it) => [it.messageId, it.duplicate])).toEqual([
    ["m-1", false],
    ["m-2", true],
  ]);
  expect(calls[0]?.url).toContain("/events:batch?topic=order%3A7");
  const { messages } = calls[0]?.body ?? {};
  expect(messages[0]).toEqual(events[0]);
  expect(messages[1].messageId).toMatch(/^[0-9a-f-]{36}$/);
});

test("a batch is either JSON or bytes", async () => {
  const { publisher } = publisherWith([]);
  const mixed = publisher.publishBatch("acme", [{ event: {} }, new Uint8Array()]);
  await expect(mixed).rejects.toThrow("either JSON or bytes");
});

test("202 is a success without a number of connections, and is not repeated", async () => {
  const { matched: _, ...unconfirmed } = RECEIPT;
  const { publisher, calls } = publisherWith([ok(unconfirmed, 202)]);
  const receipt = await publisher.publish("acme", { event: {} });
  expect(receipt.matched).toBeUndefined();
  expect(calls.length).toBe(1);
});

test("members that a newer relay adds are ignored", async () => {
  const { publisher } = publisherWith([ok({ ...RECEIPT, later: { x: 1 } })]);
  expect(await publisher.publish("acme", { event: {} })).not.toHaveProperty("later");
});

test.each([400, 401, 403, 404, 405, 409, 413, 415, 500, 301])(
  "a refusal with %i is not repeated",
  async (status) => {
    const { publisher, calls } = publisherWith([problem(status, "VALIDATION_ERROR")]);
    const error = await outcome(publisher.publish("acme", { event: {} }));
    expect(error).toBeInstanceOf(PublishError);
    expect(error).toMatchObject({ status, code: "VALIDATION_ERROR" });
    expect(calls.length).toBe(1);
  },
);

test("a conflict has the positions where the topics stand", async () => {
  const current = [
    { topic: "a:1", epoch: EPOCH, position: { epoch: EPOCH, offset: "7" } },
    { topic: "b:2", epoch: EPOCH, position: null },
    { topic: "c:3", epoch: null, position: null },
  ];
  const { publisher } = publisherWith([problem(409, "CONFLICT", { current, field: "if_last" })]);
  expect(await outcome(publisher.publish("acme", { event: {} }))).toMatchObject({
    code: "CONFLICT",
    field: "if_last",
    current: [
      { topic: "a:1", epoch: EPOCH, position: { epoch: EPOCH, offset: "7" } },
      { topic: "b:2", epoch: EPOCH, position: undefined },
      { topic: "c:3", epoch: undefined, position: undefined },
    ],
  });
});

test("a refused batch has the fault of each invalid event", async () => {
  const errors = [{ index: 1, field: null, message: "no topic" }];
  const { publisher } = publisherWith([problem(400, "VALIDATION_ERROR", { errors })]);
  const published = publisher.publishBatch("acme", [{ event: {} }, { event: {} }]);
  expect(await outcome(published)).toMatchObject({
    errors: [{ index: 1, field: undefined, message: "no topic" }],
  });
});

test("an answer of a proxy is an error without a code", async () => {
  const { publisher } = publisherWith([new Response("<html>no</html>", { status: 403 })]);
  const error = await outcome(publisher.publish("acme", { event: {} }));
  expect(error).toMatchObject({ status: 403, code: undefined });
});

test("Retry-After is honoured, with a random part on top", async () => {
  const { publisher, calls } = publisherWith([problem(429, "RATE_LIMIT_EXCEEDED", {}, "3"), ok()]);
  const published = publisher.publish("acme", { event: {} });
  await vi.advanceTimersByTimeAsync(3_099);
  expect(calls.length).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(calls.length).toBe(2);
  await published;
});

test("a call ends with its last error when there is no time for another try", async () => {
  const refusals = Array.from({ length: 9 }, () => problem(503, "INTERNAL_ERROR", {}, "25"));
  const { publisher, calls } = publisherWith(refusals);
  const began = Date.now();
  const error = await outcome(publisher.publish("acme", { event: {} }));
  expect(error).toMatchObject({ status: 503, retryAfterMs: 25_000 });
  expect(calls.length).toBe(3);
  expect(Date.now() - began).toBeLessThan(60_000);
});

test("a try without an answer is given up, and repeated", async () => {
  const { publisher, calls } = publisherWith(["never", ok()], { timeoutMs: 5_000 });
  const published = publisher.publish("acme", { event: {} });
  await vi.advanceTimersByTimeAsync(5_100);
  expect(calls.length).toBe(2);
  await published;
});

test("without any answer the error says so, and has the cause", async () => {
  const failures = Array.from({ length: 99 }, () => new TypeError("fetch failed"));
  const { publisher } = publisherWith(failures, { giveUpAfterMs: 5_000 });
  const error = await outcome(publisher.publish("acme", { event: {} }));
  expect(error).toBeInstanceOf(NoAnswerError);
  expect(error).toMatchObject({ cause: new TypeError("fetch failed") });
});

test("an answer that is cut off is asked for again", async () => {
  const { publisher, calls } = publisherWith([new Response('{"message_id":"m'), ok()]);
  await outcome(publisher.publish("acme", { event: {} }));
  expect(calls.length).toBe(2);
});

describe("a signal", () => {
  test("ends a try", async () => {
    const { publisher } = publisherWith(["never"]);
    const abort = new AbortController();
    const published = publisher.publish("acme", { event: {} }, { signal: abort.signal });
    await vi.advanceTimersByTimeAsync(10);
    abort.abort(new Error("shut down"));
    expect(await outcome(published)).toEqual(new Error("shut down"));
    expect(vi.getTimerCount()).toBe(0);
  });

  test("ends the wait for the next try", async () => {
    const { publisher, calls } = publisherWith([problem(503, "INTERNAL_ERROR", {}, "20")]);
    const abort = new AbortController();
    const published = publisher.publish("acme", { event: {} }, { signal: abort.signal });
    await vi.advanceTimersByTimeAsync(10);
    abort.abort(new Error("shut down"));
    expect(await outcome(published)).toEqual(new Error("shut down"));
    expect(calls.length).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("that was aborted before lets nothing be sent", async () => {
    const { publisher, calls } = publisherWith([]);
    const signal = AbortSignal.abort(new Error("before"));
    const published = publisher.publish("acme", { event: {} }, { signal });
    await expect(published).rejects.toThrow("before");
    expect(calls.length).toBe(0);
  });
});

test("a function for the key is called before each try", async () => {
  let count = 0;
  const answers = () => [problem(503, "INTERNAL_ERROR"), ok()];
  const keyed = publisherWith(answers(), { key: async () => `key-${++count}` });
  await outcome(keyed.publisher.publish("acme", { event: {} }));
  const keys = keyed.calls.map((call) => call.headers.Authorization);
  expect(keys).toEqual(["Bearer key-1", "Bearer key-2"]);
});
