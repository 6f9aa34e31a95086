/**
 * Reads envelopes in JSON with the application's generated schema, as all transports but WebSockets need
 * it. It is to be passed to `protobuf`.
 *
 * @packageDocumentation
 */

import {
  createRegistry,
  type DescFile,
  type DescMessage,
  fromJson,
  type JsonValue,
  type Registry,
} from "@bufbuild/protobuf";
import type { EnvelopeReader, Incoming } from "./codec.js";
import { control, isObject, type JsonObject } from "./json.js";
import { parsePosition } from "./position.js";

// The relay's numbers are the same in every schema.
const SUBSCRIBE = 10;
const RELAY_FIELD_FIRST = 8;
const RELAY_FIELD_LAST = 31;

/** Returns the reader for a schema. */
export function jsonReader(schema: DescMessage): EnvelopeReader {
  // A message in a google.protobuf.Any is found by its name.
  const registry = createRegistry(...filesOf(schema.file));
  const payloads = schema.oneofs.find((it) => it.fields.some(({ number }) => number === SUBSCRIBE));
  const events = (payloads?.fields ?? []).filter(
    ({ number }) => number < RELAY_FIELD_FIRST || number > RELAY_FIELD_LAST,
  );
  const names = new Set(events.map((it) => it.localName));
  return (envelope) => {
    if (!isObject(envelope)) throw new TypeError("a message is not a JSON object");
    const said = control(envelope);
    if (said !== undefined) return said;
    const payload = readPayload(schema, registry, payloads?.localName ?? "", envelope);
    return payload?.case === undefined || !names.has(payload.case)
      ? { kind: "unknown", position: parsePosition(envelope.position) }
      : event(envelope, payload.case, payload.value);
  };
}

/** The member of a oneof that is set, if one is. */
interface Payload {
  readonly case?: string;
  readonly value?: unknown;
}

function readPayload(
  schema: DescMessage,
  registry: Registry,
  oneof: string,
  envelope: JsonObject,
): Payload | undefined {
  const message = fromJson(schema, envelope as JsonValue, { registry, ignoreUnknownFields: true });
  return (message as unknown as Record<string, Payload>)[oneof];
}

function event(envelope: JsonObject, name: string, payload: unknown): Incoming {
  const position = parsePosition(envelope.position);
  const { messageId, timestamp } = envelope;
  const decoded = {
    name,
    payload,
    messageId: typeof messageId === "string" ? messageId : "",
    timestamp: Number(timestamp ?? 0),
  };
  return { kind: "event", event: position === undefined ? decoded : { ...decoded, position } };
}

/** Returns a file and all that it imports. */
function filesOf(file: DescFile, found = new Set<DescFile>()): Set<DescFile> {
  if (found.has(file)) return found;
  found.add(file);
  for (const it of file.dependencies) filesOf(it, found);
  return found;
}
