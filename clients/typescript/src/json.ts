/** The codec for `sidewire.v1.json`: canonical proto3 JSON, with or without a schema. */

import type { Codec, Control, Incoming, Outgoing } from "./codec.js";
import { type Position, parsePosition } from "./position.js";
import { presencePayloads, type RoutingTable } from "./routing_table.js";

/** An object in JSON. */
export type JsonObject = Record<string, unknown>;

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

/** What is known of the payloads: their names, or nothing. */
type Names = ReadonlySet<string> | undefined;

/**
 * Returns the codec for JSON, which is used unless the option `schema` says otherwise. Without a routing
 * table it takes the member that is not the relay's as the payload, which is wrong for an envelope with
 * plain fields of the application, and it knows of no presence.
 *
 * @param table The output of `sidewire schema --format json`.
 */
export function json(table?: RoutingTable): Codec {
  const names: Names = table && new Set(table.events.map((it) => it.json_name));
  return {
    subprotocol: "sidewire.v1.json",
    ...(table === undefined ? {} : { presence: presencePayloads(table) }),
    encode: (message) => encode(message, names),
    decode(data: string | ArrayBuffer): Incoming {
      if (typeof data !== "string") throw new TypeError("a binary frame on a JSON connection");
      return read(JSON.parse(data), names);
    },
    jsonReader: async () => (envelope) => read(envelope, names),
  };
}

function read(envelope: unknown, names: Names): Incoming {
  if (!isObject(envelope)) throw new TypeError("a message is not a JSON object");
  return control(envelope) ?? event(envelope, names);
}

function encode(message: Outgoing, names: Names): string {
  switch (message.kind) {
    case "subscribe": {
      const { messageId, topics, resumeFrom } = message;
      return JSON.stringify({ messageId, subscribe: { topics, resumeFrom } });
    }
    case "unsubscribe": {
      const { messageId, topics } = message;
      return JSON.stringify({ messageId, unsubscribe: { topics } });
    }
    case "authenticate": {
      const { messageId, token } = message;
      return JSON.stringify({ messageId, authenticate: { token } });
    }
    case "ping":
      return '{"ping":{}}';
    case "client event": {
      const { messageId, name, payload } = message;
      if (!isPayload(name, names)) throw new TypeError(`the schema has no event ${name}`);
      return JSON.stringify({ messageId, [name]: payload });
    }
  }
}

function isPayload(name: string, names: Names): boolean {
  return names === undefined ? !RELAY_MEMBERS.has(name) : names.has(name);
}

/** Returns the message of the relay itself that an envelope holds, if it holds one. */
export function control(envelope: JsonObject): Control | undefined {
  const { subscriptionConfirmed, unsubscribeConfirmed, authenticated, pong, error } = envelope;
  const sentAt = Number(envelope.timestamp ?? 0) || undefined;
  if (isObject(subscriptionConfirmed)) {
    const { requestMessageId, topics, position, recovered, replayed } = subscriptionConfirmed;
    return {
      kind: "confirmed",
      requestMessageId: text(requestMessageId),
      topics: texts(topics),
      position: parsePosition(position),
      recovered: recovered === true,
      replayed: Number(replayed ?? 0),
      sentAt,
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
  if (isObject(authenticated)) {
    const { requestMessageId, expiresAt, revokedTopics } = authenticated;
    return {
      kind: "authenticated",
      requestMessageId: text(requestMessageId),
      expiresAt: Number(expiresAt ?? 0),
      topics: texts(revokedTopics),
      sentAt,
    };
  }
  if (isObject(pong)) return { kind: "pong", position: parsePosition(pong.position), sentAt };
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

function event(envelope: JsonObject, known: Names): Incoming {
  const position = parsePosition(envelope.position);
  let name: string | undefined;
  for (const it in envelope) {
    if (!isPayload(it, known) || (envelope[it] ?? null) === null) continue;
    // Most payloads are objects, but a Timestamp, for example, is a text. Only a schema could tell it
    // from a plain field of the envelope.
    if (isObject(envelope[it])) {
      name = it;
      break;
    }
    name ??= it;
  }
  const { messageId, timestamp } = envelope;
  const payload = envelope[name ?? ""];
  return received(name, payload, text(messageId), Number(timestamp ?? 0), position);
}

/** Returns what an envelope is that holds no message of the relay itself; `name` is that of its payload. */
export function received(
  name: string | undefined,
  payload: unknown,
  messageId: string,
  timestamp: number,
  position: Position | undefined,
): Incoming {
  if (name === undefined) return { kind: "unknown", position };
  const event = { name, payload, messageId, timestamp };
  return { kind: "event", event: position === undefined ? event : { ...event, position } };
}

/** Returns true for a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((it) => typeof it === "string") : [];
}
