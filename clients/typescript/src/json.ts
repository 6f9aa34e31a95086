/** The codec for `sidewire.v1.json`: canonical proto3 JSON, without a schema. */

import type { Codec, Incoming, Outgoing } from "./codec.js";
import { parsePosition } from "./position.js";

type JsonObject = Record<string, unknown>;

/**
 * The members of an envelope that belong to the relay. Some of them do not exist yet: an envelope
 * that has one of those is no event of the application.
 */
const RELAY_MEMBERS: ReadonlySet<string> = new Set([
  "messageId",
  "timestamp",
  "position",
  "topics",
  "subscribe",
  "subscriptionConfirmed",
  "unsubscribe",
  "unsubscribeConfirmed",
  "ping",
  "pong",
  "error",
  "batch",
  "authenticate",
  "authenticated",
  "entry",
  "topicState",
]);

/**
 * The codec for JSON. It takes the member that is not the relay's as the payload, so an envelope with
 * plain fields of the application needs a codec that knows the schema: `protobuf`.
 */
export const json: Codec = {
  subprotocol: "sidewire.v1.json",

  encode(message: Outgoing): string {
    switch (message.kind) {
      case "subscribe": {
        const { messageId, topics, resumeFrom } = message;
        return JSON.stringify({ messageId, subscribe: { topics, resumeFrom } });
      }
      case "unsubscribe": {
        const { messageId, topics } = message;
        return JSON.stringify({ messageId, unsubscribe: { topics } });
      }
      case "ping":
        return '{"ping":{}}';
      case "client event": {
        const { messageId, name, payload } = message;
        if (RELAY_MEMBERS.has(name)) throw new TypeError(`${name} is no event`);
        return JSON.stringify({ messageId, [name]: payload });
      }
    }
  },

  decode(data: string | ArrayBuffer): Incoming {
    if (typeof data !== "string") throw new TypeError("a binary frame on a JSON connection");
    const envelope: unknown = JSON.parse(data);
    if (!isObject(envelope)) throw new TypeError("the frame is not a JSON object");
    return control(envelope) ?? event(envelope);
  },
};

function control(envelope: JsonObject): Incoming | undefined {
  const { subscriptionConfirmed, unsubscribeConfirmed, pong, error } = envelope;
  if (isObject(subscriptionConfirmed)) {
    const { requestMessageId, topics, position, recovered, replayed } = subscriptionConfirmed;
    return {
      kind: "confirmed",
      requestMessageId: text(requestMessageId),
      topics: texts(topics),
      position: parsePosition(position),
      recovered: recovered === true,
      replayed: Number(replayed ?? 0),
    };
  }
  if (isObject(unsubscribeConfirmed)) {
    const { requestMessageId, topics } = unsubscribeConfirmed;
    return {
      kind: "unsubscribed",
      requestMessageId: text(requestMessageId),
      topics: texts(topics),
    };
  }
  if (isObject(pong)) return { kind: "pong", position: parsePosition(pong.position) };
  if (isObject(error)) {
    return {
      kind: "refused",
      requestMessageId: text(error.requestMessageId),
      errorCode: text(error.errorCode),
      errorMessage: text(error.errorMessage),
      fieldName: error.fieldName === undefined ? undefined : text(error.fieldName),
      retryAfterMs: error.retryAfterMs === undefined ? undefined : Number(error.retryAfterMs),
    };
  }
  return undefined;
}

function event(envelope: JsonObject): Incoming {
  const position = parsePosition(envelope.position);
  const names = Object.keys(envelope).filter(
    (it) => !RELAY_MEMBERS.has(it) && (envelope[it] ?? null) !== null,
  );
  // Most payloads are objects, but a Timestamp, for example, is a text. Only a schema could tell it from
  // a plain field of the envelope.
  const name = names.find((it) => isObject(envelope[it])) ?? names[0];
  if (name === undefined) return { kind: "unknown", position };
  const known = {
    name,
    payload: envelope[name],
    messageId: text(envelope.messageId),
    timestamp: Number(envelope.timestamp ?? 0),
  };
  return { kind: "event", event: position === undefined ? known : { ...known, position } };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((it) => typeof it === "string") : [];
}
