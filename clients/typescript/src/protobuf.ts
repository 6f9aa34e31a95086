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
  Authenticated,
  ClientEvent,
  Codec,
  Confirmed,
  Control,
  EnvelopeReader,
  Frame,
  Incoming,
  Outgoing,
  Pong,
  PresencePayload,
  Refused,
  Unsubscribed,
} from "./codec.js";
import { presencePayload } from "./descriptor.js";
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
const SUBSCRIPTION_CONFIRMED = 11;
const UNSUBSCRIBE = 12;
const UNSUBSCRIBE_CONFIRMED = 13;
const PING = 14;
const PONG = 15;
const ERROR = 16;
const AUTHENTICATE = 19;
const AUTHENTICATED = 20;
const RELAY_FIELD_FIRST = 8;
const RELAY_FIELD_LAST = 31;
// Within Subscribe, Unsubscribe and their confirmations.
const TOPICS = 16;
const RESUME_FROM = 17;
const RECOVERED = 18;
const REQUEST_MESSAGE_ID = 19;
const REPLAYED = 20;

function encode(message: Exclude<Outgoing, ClientEvent>): Frame {
  const writer = new BinaryWriter();
  if (message.kind === "ping")
    return writer.tag(PING, WireType.LengthDelimited).fork().join().finish();
  writer.tag(MESSAGE_ID, WireType.LengthDelimited).string(message.messageId);
  if (message.kind === "authenticate") {
    writer.tag(AUTHENTICATE, WireType.LengthDelimited).fork();
    return writer.tag(1, WireType.LengthDelimited).string(message.token).join().finish();
  }
  const number = message.kind === "subscribe" ? SUBSCRIBE : UNSUBSCRIBE;
  writer.tag(number, WireType.LengthDelimited).fork();
  for (const topic of message.topics) writer.tag(TOPICS, WireType.LengthDelimited).string(topic);
  if (message.kind === "subscribe" && message.resumeFrom !== undefined) {
    const { epoch, offset } = message.resumeFrom;
    writer.tag(RESUME_FROM, WireType.LengthDelimited).fork();
    writer.tag(1, WireType.LengthDelimited).string(epoch);
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
  writer.tag(MESSAGE_ID, WireType.LengthDelimited).string(messageId);
  const content = toBinary(
    field.message,
    create(field.message, payload as Record<string, unknown>),
  );
  return writer.tag(field.number, WireType.LengthDelimited).bytes(content).finish();
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

/** What an envelope holds. */
interface EnvelopeFields {
  messageId: string;
  timestamp: number;
  position: Position | undefined;
  control: Control | undefined;
  /** The name of the event's payload, if the application's schema knows it. */
  name: string | undefined;
  payload: unknown;
}

function decode(payloads: EventFields, bytes: Uint8Array): Incoming {
  const { control, name, payload, position, messageId, timestamp } = readFields(payloads, bytes);
  if (control !== undefined) return { ...control, sentAt: timestamp || undefined };
  if (name === undefined) return { kind: "unknown", position };
  const event = { name, payload, messageId, timestamp };
  return { kind: "event", event: position === undefined ? event : { ...event, position } };
}

/** Reads an envelope in one pass. To decode it whole, with its schema, takes twice as long. */
function readFields(payloads: EventFields, bytes: Uint8Array): EnvelopeFields {
  const fields: EnvelopeFields = {
    messageId: "",
    timestamp: 0,
    position: undefined,
    control: undefined,
    name: undefined,
    payload: undefined,
  };
  each(new BinaryReader(bytes), bytes.length, (number, reader) => {
    switch (number) {
      case MESSAGE_ID:
        fields.messageId = reader.string();
        return true;
      case TIMESTAMP:
        fields.timestamp = Number(reader.int64());
        return true;
      case POSITION:
        fields.position = readPosition(reader);
        return true;
      case SUBSCRIPTION_CONFIRMED:
        fields.control = readConfirmed(reader);
        return true;
      case UNSUBSCRIBE_CONFIRMED:
        fields.control = readUnsubscribed(reader);
        return true;
      case PONG:
        fields.control = readPong(reader);
        return true;
      case AUTHENTICATED:
        fields.control = readAuthenticated(reader);
        return true;
      case ERROR:
        fields.control = readError(reader);
        return true;
    }
    const field = payloads.get(number);
    if (field?.message === undefined) return false;
    fields.name = field.localName;
    fields.payload = fromBinary(field.message, reader.bytes());
    return true;
  });
  return fields;
}

function readConfirmed(reader: BinaryReader): Confirmed {
  let requestMessageId = "";
  const topics: string[] = [];
  let position: Position | undefined;
  let recovered = false;
  let replayed = 0;
  eachWithin(reader, (number) => {
    if (number === TOPICS) topics.push(reader.string());
    else if (number === RESUME_FROM) position = readPosition(reader);
    else if (number === RECOVERED) recovered = reader.bool();
    else if (number === REQUEST_MESSAGE_ID) requestMessageId = reader.string();
    else if (number === REPLAYED) replayed = Number(reader.uint64());
    else return false;
    return true;
  });
  return { kind: "confirmed", requestMessageId, topics, position, recovered, replayed };
}

function readUnsubscribed(reader: BinaryReader): Unsubscribed {
  let requestMessageId = "";
  const topics: string[] = [];
  eachWithin(reader, (number) => {
    if (number === TOPICS) topics.push(reader.string());
    else if (number === REQUEST_MESSAGE_ID) requestMessageId = reader.string();
    else return false;
    return true;
  });
  return { kind: "unsubscribed", requestMessageId, topics };
}

function readAuthenticated(reader: BinaryReader): Authenticated {
  let expiresAt = 0;
  let requestMessageId = "";
  const topics: string[] = [];
  eachWithin(reader, (number) => {
    if (number === 1) expiresAt = Number(reader.int64());
    else if (number === 2) topics.push(reader.string());
    else if (number === 3) requestMessageId = reader.string();
    else return false;
    return true;
  });
  return { kind: "authenticated", requestMessageId, expiresAt, topics };
}

function readPong(reader: BinaryReader): Pong {
  let position: Position | undefined;
  eachWithin(reader, (number) => {
    if (number !== 3) return false;
    position = readPosition(reader);
    return true;
  });
  return { kind: "pong", position };
}

function readError(reader: BinaryReader): Refused {
  const texts = ["", "", "", ""];
  let retryAfterMs: number | undefined;
  let hasField = false;
  eachWithin(reader, (number) => {
    if (number >= 1 && number <= 4) texts[number - 1] = reader.string();
    else if (number === 5) retryAfterMs = Number(reader.uint64());
    else return false;
    hasField ||= number === 4;
    return true;
  });
  const [errorCode = "", errorMessage = "", requestMessageId = "", fieldName] = texts;
  return {
    kind: "refused",
    requestMessageId,
    errorCode,
    errorMessage,
    fieldName: hasField ? fieldName : undefined,
    retryAfterMs,
  };
}

function readPosition(reader: BinaryReader): Position | undefined {
  let epoch = "";
  let offset = "0";
  eachWithin(reader, (number) => {
    if (number === 1) epoch = reader.string();
    else if (number === 2) offset = String(reader.uint64());
    else return false;
    return true;
  });
  return epoch === "" ? undefined : { epoch, offset };
}

function eachWithin(reader: BinaryReader, read: (number: number) => boolean): void {
  const length = reader.uint32();
  each(reader, reader.pos + length, read);
}

/** Goes through the fields of a message; those that `read` has not read are skipped. */
function each(
  reader: BinaryReader,
  end: number,
  read: (number: number, reader: BinaryReader) => boolean,
): void {
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    if (!read(number, reader)) reader.skip(wireType, number);
  }
}
