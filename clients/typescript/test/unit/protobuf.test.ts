/** The binary codec, against the bytes that generated code writes and reads. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { Outgoing } from "../../src/codec.js";
import { protobuf } from "../../src/protobuf.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";

const codec = protobuf(EnvelopeSchema);

function sent(message: Outgoing) {
  return fromBinary(EnvelopeSchema, codec.encode(message) as Uint8Array);
}

function received(init: Parameters<typeof create<typeof EnvelopeSchema>>[1], more: number[] = []) {
  const bytes = toBinary(EnvelopeSchema, create(EnvelopeSchema, init));
  return codec.decode(new Uint8Array([...bytes, ...more]).buffer);
}

const MAX = "18446744073709551615";

test("requests are read by generated code", () => {
  const topics = ["order:7", "order:ä"];
  const resumeFrom = { epoch: "e1", offset: MAX };
  expect(sent({ kind: "subscribe", messageId: "a", topics, resumeFrom })).toMatchObject({
    messageId: "a",
    payload: {
      case: "subscribe",
      value: { topics, resumeFrom: { epoch: "e1", offset: BigInt(MAX) } },
    },
  });
  const subscribed = sent({ kind: "subscribe", messageId: "a", topics: [], resumeFrom: undefined });
  expect(subscribed.payload).toMatchObject({ case: "subscribe", value: { topics: [] } });
  expect(subscribed.payload.value).not.toHaveProperty("resumeFrom");
  expect(sent({ kind: "unsubscribe", messageId: "b", topics })).toMatchObject({
    messageId: "b",
    payload: { case: "unsubscribe", value: { topics } },
  });
  expect(sent({ kind: "authenticate", messageId: "c", token: "jwt" })).toMatchObject({
    messageId: "c",
    payload: { case: "authenticate", value: { token: "jwt" } },
  });
  expect(sent({ kind: "ping" })).toMatchObject({ messageId: "", payload: { case: "ping" } });
});

test("an event is read with the application's schema", () => {
  const message = received({
    messageId: "m-1",
    timestamp: 1795303801n,
    position: { epoch: "e1", offset: 7n },
    payload: { case: "event", value: { type: "order.shipped", userId: "ann" } },
  });
  expect(message).toMatchObject({
    kind: "event",
    event: {
      name: "event",
      payload: { type: "order.shipped", userId: "ann" },
      messageId: "m-1",
      timestamp: 1795303801,
      position: { epoch: "e1", offset: "7" },
    },
  });
});

test("an event without a position has none", () => {
  const message = received({ payload: { case: "message", value: { type: "typing" } } });
  expect(message).toMatchObject({ kind: "event", event: { name: "message" } });
  expect(message.kind === "event" && "position" in message.event).toBe(false);
});

test("answers are read", () => {
  const position = { epoch: "e1", offset: BigInt(MAX) };
  const confirmed = {
    position,
    recovered: true,
    requestMessageId: "a",
    replayed: 3n,
    topics: ["a:1"],
  };
  expect(received({ payload: { case: "subscriptionConfirmed", value: confirmed } })).toEqual({
    kind: "confirmed",
    requestMessageId: "a",
    topics: ["a:1"],
    position: { epoch: "e1", offset: MAX },
    recovered: true,
    replayed: 3,
  });
  const unsubscribed = { requestMessageId: "b", topics: ["a:1"] };
  expect(received({ payload: { case: "unsubscribeConfirmed", value: unsubscribed } })).toEqual({
    kind: "unsubscribed",
    requestMessageId: "b",
    topics: ["a:1"],
  });
  const pong = { timestamp: 1n, clientTimestamp: 2n, position: { epoch: "e1", offset: 0n } };
  expect(received({ payload: { case: "pong", value: pong } })).toEqual({
    kind: "pong",
    position: { epoch: "e1", offset: "0" },
  });
  expect(received({ payload: { case: "pong", value: {} } })).toEqual({
    kind: "pong",
    position: undefined,
  });
  const authenticated = { requestMessageId: "d", expiresAt: 9n, revokedTopics: ["a:1", "b:*"] };
  const payload = { case: "authenticated", value: authenticated } as const;
  expect(received({ timestamp: 7n, payload })).toEqual({
    kind: "authenticated",
    requestMessageId: "d",
    expiresAt: 9,
    topics: ["a:1", "b:*"],
    sentAt: 7,
  });
  const error = {
    errorCode: "RATE_LIMIT_EXCEEDED",
    errorMessage: "slow down",
    requestMessageId: "c",
    fieldName: "subscribe",
    retryAfterMs: 500n,
  };
  const { retryAfterMs: _, ...rest } = error;
  expect(received({ payload: { case: "error", value: error } })).toEqual({
    kind: "refused",
    ...rest,
    retryAfterMs: 500,
  });
});

test("fields and payloads that it does not know are ignored", () => {
  // Field 99, and field 22 as a payload of the relay.
  const later = [0x9a, 0x06, 0x01, 0x78];
  const topicState = [0xb2, 0x01, 0x00];
  expect(received({ payload: { case: "pong", value: {} } }, later).kind).toBe("pong");
  expect(received({ position: { epoch: "e1", offset: 7n } }, topicState)).toEqual({
    kind: "unknown",
    position: { epoch: "e1", offset: "7" },
  });
  expect(received({ position: { epoch: "e1", offset: 7n } }, later)).toEqual({
    kind: "unknown",
    position: { epoch: "e1", offset: "7" },
  });
  expect(received({})).toEqual({ kind: "unknown", position: undefined });
});

test("bytes that are not an envelope, and text, are errors", () => {
  expect(() => codec.decode(new Uint8Array([0x0a, 0x05, 0x61]).buffer)).toThrow();
  expect(() => codec.decode("{}")).toThrow("text frame");
});
