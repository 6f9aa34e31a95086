/**
 * The codec for `sidewire.v1.protobuf`, on `@bufbuild/protobuf` and the application's generated schema.
 *
 * @packageDocumentation
 */

import {
  create,
  type DescField,
  type DescMessage,
  type DescOneof,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type {
  ClientEvent,
  Codec,
  EnvelopeReader,
  Frame,
  Incoming,
  Outgoing,
  PresencePayload,
} from "./codec.js";
import { presencePayload } from "./descriptor.js";
import { control, type JsonObject, received } from "./json.js";
import type { Position } from "./position.js";

/** The members of the oneof `payload` that belong to the relay. */
type ControlName =
  | "subscribe"
  | "subscriptionConfirmed"
  | "unsubscribe"
  | "unsubscribeConfirmed"
  | "ping"
  | "pong"
  | "error"
  | "batch"
  | "authenticate"
  | "authenticated";

type PayloadOf<Schema extends DescMessage> =
  MessageShape<Schema> extends { payload: infer Payload } ? Payload : never;

/** The payloads of the events of an envelope, by name. */
export type EventsOf<Schema extends DescMessage> = {
  [Payload in PayloadOf<Schema> as Payload extends { case: infer Name extends string }
    ? Exclude<Name, ControlName>
    : never]: Payload extends { value: infer Value } ? Value : never;
};

/** A codec that knows the events of a schema. */
export interface ProtobufCodec<Events> extends Codec {
  /** Only a type: the events. */
  readonly events?: Events;
}

/** The module `@sidewire/client/protobuf-json`. */
export interface ProtobufJson {
  /** Returns what reads envelopes of a schema in JSON. */
  jsonReader(envelope: DescMessage): EnvelopeReader;
}

/**
 * Returns the codec for a schema, to be passed as the option `schema`:
 *
 * ```ts
 * new Sidewire(url, { getToken, schema: protobuf(EnvelopeSchema) })
 * ```
 *
 * @param envelope The generated schema of the envelope.
 * @param json Loads what reads JSON: `() => import("@sidewire/client/protobuf-json")`. Only with it can the
 *   client do without a WebSocket, since everything else is JSON.
 */
export function protobuf<Schema extends DescMessage>(
  envelope: Schema,
  json?: () => Promise<ProtobufJson>,
): ProtobufCodec<EventsOf<Schema>> {
  const payloads: EventFields = new Map(
    payloadsOf(envelope)
      ?.fields.filter((it) => !isOfRelay(it.number))
      .map((it) => [it.number, it]),
  );
  return {
    subprotocol: "sidewire.v1.protobuf",
    presence: presencePayloads(envelope),
    encode(message: Outgoing): Frame {
      return message.kind === "client event" ? encodeEvent(envelope, message) : encode(message);
    },
    decode(data: string | ArrayBuffer): Incoming {
      if (typeof data === "string") throw new TypeError("a text frame on a binary connection");
      return decode(payloads, new Uint8Array(data));
    },
    ...(json && { jsonReader: async () => (await json()).jsonReader(envelope) }),
  };
}

// The numbers of the relay's fields are the same in every schema, whatever their names are.
const MESSAGE_ID = 1;
const TIMESTAMP = 8;
const POSITION = 9;
const SUBSCRIBE = 10;
const UNSUBSCRIBE = 12;
const PING = 14;
const AUTHENTICATE = 19;
const RELAY_FIELD_FIRST = 8;
const RELAY_FIELD_LAST = 31;
// Within Subscribe, Unsubscribe and their confirmations.
const TOPICS = 16;
const RESUME_FROM = 17;

/** How a field is read. */
type FieldReader = (reader: BinaryReader) => unknown;
const text: FieldReader = (reader) => reader.string();
const bool: FieldReader = (reader) => reader.bool();
const integer: FieldReader = (reader) => String(reader.uint64());

/** The fields of a control message by number: each with its name in JSON. */
type ControlFields = Readonly<
  Record<number, readonly [name: string, read: FieldReader, isList?: boolean]>
>;

const CONFIRMED: ControlFields = {
  [TOPICS]: ["topics", text, true],
  [RESUME_FROM]: ["position", readPosition],
  18: ["recovered", bool],
  19: ["requestMessageId", text],
  20: ["replayed", integer],
};

/** The relay's control messages by the number of their field in the envelope. */
const CONTROLS: Readonly<Record<number, readonly [string, ControlFields]>> = {
  11: ["subscriptionConfirmed", CONFIRMED],
  13: ["unsubscribeConfirmed", CONFIRMED],
  15: ["pong", { 3: ["position", readPosition] }],
  16: [
    "error",
    {
      1: ["errorCode", text],
      2: ["errorMessage", text],
      3: ["requestMessageId", text],
      4: ["fieldName", text],
      5: ["retryAfterMs", integer],
    },
  ],
  20: [
    "authenticated",
    {
      1: ["expiresAt", integer],
      2: ["revokedTopics", text, true],
      3: ["requestMessageId", text],
    },
  ],
};

/** Begins a field that has its length before its content. */
function delimited(writer: BinaryWriter, number: number): BinaryWriter {
  return writer.tag(number, WireType.LengthDelimited);
}

function encode(message: Exclude<Outgoing, ClientEvent>): Frame {
  const writer = new BinaryWriter();
  if (message.kind === "ping") return delimited(writer, PING).fork().join().finish();
  delimited(writer, MESSAGE_ID).string(message.messageId);
  if (message.kind === "authenticate") {
    delimited(writer, AUTHENTICATE).fork();
    return delimited(writer, 1).string(message.token).join().finish();
  }
  const number = message.kind === "subscribe" ? SUBSCRIBE : UNSUBSCRIBE;
  delimited(writer, number).fork();
  for (const topic of message.topics) delimited(writer, TOPICS).string(topic);
  if (message.kind === "subscribe" && message.resumeFrom !== undefined) {
    const { epoch, offset } = message.resumeFrom;
    delimited(writer, RESUME_FROM).fork();
    delimited(writer, 1).string(epoch);
    writer.tag(2, WireType.Varint).uint64(offset).join();
  }
  return writer.join().finish();
}

/** Encodes an event for other clients; its payload may leave out fields. */
function encodeEvent(envelope: DescMessage, { messageId, name, payload }: ClientEvent): Frame {
  const field = payloadsOf(envelope)?.fields.find((it) => it.localName === name);
  if (field?.message === undefined || isOfRelay(field.number)) {
    throw new TypeError(`the schema has no event ${name}`);
  }
  const writer = new BinaryWriter();
  delimited(writer, MESSAGE_ID).string(messageId);
  const content = toBinary(
    field.message,
    create(field.message, payload as Record<string, unknown>),
  );
  return delimited(writer, field.number).bytes(content).finish();
}

function presencePayloads(envelope: DescMessage): Map<string, PresencePayload> {
  const payloads = new Map<string, PresencePayload>();
  for (const { message, localName } of payloadsOf(envelope)?.fields ?? []) {
    const payload = message == null ? undefined : presencePayload(message);
    if (payload !== undefined) payloads.set(localName, payload);
  }
  return payloads;
}

/** Returns the oneof of the payloads, whatever its name is. */
function payloadsOf(envelope: DescMessage): DescOneof | undefined {
  return envelope.oneofs.find((it) => it.fields.some((field) => field.number === SUBSCRIBE));
}

function isOfRelay(number: number): boolean {
  return number >= RELAY_FIELD_FIRST && number <= RELAY_FIELD_LAST;
}

/** The payloads of events by the number of their field in the envelope. */
type EventFields = ReadonlyMap<number, DescField>;

function decode(payloads: EventFields, bytes: Uint8Array): Incoming {
  let messageId = "";
  let timestamp = 0;
  let position: Position | undefined;
  let controls: JsonObject | undefined;
  let name: string | undefined;
  let payload: unknown;
  // In one pass. To decode the envelope whole, with its schema, takes twice as long.
  const reader = new BinaryReader(bytes);
  each(reader, bytes.length, (number) => {
    if (number === MESSAGE_ID) messageId = reader.string();
    else if (number === TIMESTAMP) timestamp = Number(reader.int64());
    else if (number === POSITION) position = readPosition(reader);
    else if (CONTROLS[number] !== undefined) {
      const [name, fields] = CONTROLS[number];
      controls = { ...controls, [name]: readControl(reader, fields) };
    } else {
      const field = payloads.get(number);
      if (field?.message === undefined) return false;
      name = field.localName;
      payload = fromBinary(field.message, reader.bytes());
    }
    return true;
  });
  const message = controls && control({ ...controls, timestamp });
  return message ?? received(name, payload, messageId, timestamp, position);
}

/** Reads a message of the relay into what it is in JSON. */
function readControl(reader: BinaryReader, fields: ControlFields): JsonObject {
  const message: JsonObject = {};
  each(reader, reader.uint32(), (number) => {
    const field = fields[number];
    if (field === undefined) return false;
    const [name, read, isList] = field;
    const value = read(reader);
    message[name] = isList ? [...((message[name] ?? []) as unknown[]), value] : value;
    return true;
  });
  return message;
}

/** Most messages are events, which have one, so it is not read like a control message. */
function readPosition(reader: BinaryReader): Position | undefined {
  let epoch = "";
  let offset = "0";
  each(reader, reader.uint32(), (number) => {
    if (number === 1) epoch = reader.string();
    else if (number === 2) offset = String(reader.uint64());
    else return false;
    return true;
  });
  return epoch === "" ? undefined : { epoch, offset };
}

/** Goes through a message of so many bytes; the fields that `read` has not read are skipped. */
function each(reader: BinaryReader, length: number, read: (number: number) => boolean): void {
  const end = reader.pos + length;
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    if (!read(number)) reader.skip(wireType, number);
  }
}
