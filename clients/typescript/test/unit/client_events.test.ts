/** Events that clients send to each other. */

import { create, fromBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { protobuf } from "../../src/protobuf.js";
import { EnvelopeSchema, MessageSchema } from "../generated/generic/v1/envelope_pb.js";
import { accepted, follow, live, logger, settle, startClient } from "../support/client.js";
import { at } from "../support/fake_socket.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => vi.useRealTimers());

const typing = { projectId: "1", isTyping: true };
const REFUSED = { errorCode: "AUTHORIZATION_FAILED", errorMessage: "no", requestMessageId: "t-1" };

test("an event is sent at once, with the id that the caller gives or a new one", async () => {
  const { relay, socket } = await live();
  await expect(relay.publish("typing", typing, { messageId: "t-1" })).resolves.toBe("t-1");
  expect(socket.take()).toEqual({ messageId: "t-1", typing });
  const ids = [await relay.publish("typing", {}), await relay.publish("typing", {})];
  expect(socket.sent.map(({ messageId }) => messageId)).toEqual(ids);
  expect(new Set(ids).size).toBe(2);
  expect(ids[0]).toMatch(/^[0-9a-f]{32}$/);
});

test("without a subscribed topic an event is not sent, now or later", async () => {
  const { relay } = startClient();
  const fails = () =>
    expect(relay.publish("typing", typing)).rejects.toMatchObject({
      name: "ConnectionError",
      code: "NOT_CONNECTED",
    });
  await fails();
  follow(relay, ["project:1"]);
  const socket = await accepted();
  await fails();
  socket.confirm(5);
  await relay.publish("typing", typing);
  socket.take();
  socket.end(1006);
  await fails();
  relay.close();
  await fails();
  expect(socket.sent).toEqual([]);
});

test("a failure to send may be ignored", async () => {
  const unhandled = vi.fn();
  process.on("unhandledRejection", unhandled);
  const { relay } = startClient();
  void relay.publish("typing", typing);
  vi.useRealTimers();
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});

test("a refusal is reported with the event's id, or else to the logger", async () => {
  const { relay, socket } = await live();
  await relay.publish("typing", typing, { messageId: "t-1" });
  socket.deliver({ error: REFUSED });
  expect(logger.warn).toHaveBeenCalledOnce();
  const refusals: unknown[] = [];
  const stop = relay.on("refused", ({ messageId, error }) =>
    refusals.push([messageId, error.code]),
  );
  socket.deliver({ error: REFUSED });
  expect(refusals).toEqual([["t-1", "AUTHORIZATION_FAILED"]]);
  stop();
  socket.deliver({ error: REFUSED });
  expect(logger.warn).toHaveBeenCalledTimes(2);
});

test("what no relay takes throws", async () => {
  const { relay, socket } = await live();
  expect(() => relay.publish("subscribe", { topics: ["project:2"] })).toThrow(TypeError);
  expect(() => relay.publish("typing", { text: "ä".repeat(33_000) })).toThrow("65536 bytes");
  expect(socket.sent).toEqual([]);
});

test("an event of another client reaches every live subscription, and changes no position", async () => {
  const { relay, socket, subscription } = await live();
  const pending = follow(relay, ["project:2"], { since: at(3) });
  const positions: unknown[] = [];
  subscription.on("typing", (event) => positions.push(event.position));
  await settle();
  socket.deliver({ messageId: "t-1", timestamp: "1", typing });
  socket.deliver({ messageId: "t-1", timestamp: "1", typing });
  expect(positions).toEqual([undefined, undefined]);
  expect(subscription.position).toEqual(at(5));
  expect(pending.told).toEqual([]);
});

describe("with Protocol Buffers", () => {
  const codec = protobuf(EnvelopeSchema);
  const sent = (name: string, payload: unknown) =>
    fromBinary(
      EnvelopeSchema,
      codec.encode({ kind: "client event", messageId: "m", name, payload }) as Uint8Array,
    );

  test("an event is encoded by the schema, whole or with some of its fields", () => {
    const topics = ["project:1"];
    const payload = { case: "message", value: { type: "typing", topics, userId: "" } };
    expect(sent("message", { type: "typing", topics })).toMatchObject({ messageId: "m", payload });
    const whole = create(MessageSchema, { type: "typing", topics });
    expect(sent("message", whole)).toMatchObject({ messageId: "m", payload });
  });

  test("an event that the schema does not have throws", () => {
    expect(() => sent("typing", {})).toThrow("the schema has no event typing");
    expect(() => sent("subscribe", {})).toThrow(TypeError);
  });
});
