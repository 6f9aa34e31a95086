/** The bodies of calls. Every event gets its id here, once for all tries. */

/** An envelope in proto3 JSON, or its bytes. */
export type Envelope = Readonly<Record<string, unknown>> | Uint8Array;

/** What a call sends. */
export interface Body {
  readonly contentType: "application/json" | "application/x-protobuf";
  readonly bytes: string | Uint8Array<ArrayBuffer>;
  /** The ids of its events, in their order. */
  readonly messageIds: readonly string[];
}

/** An envelope that has an id. */
interface Identified<T> {
  readonly messageId: string;
  readonly envelope: T;
}

/** Field 1 of an envelope, and of a batch: bytes of a known length. */
const FIELD_1_BYTES = 0x0a;

/** Returns the body for one event. */
export function eventBody(envelope: Envelope, messageId?: string): Body {
  if (envelope instanceof Uint8Array) {
    const identified = bytesWithId(envelope, messageId);
    return protobuf(identified.envelope, [identified]);
  }
  const identified = objectWithId(envelope, messageId);
  return json(identified.envelope, [identified]);
}

/**
 * Returns the body for a batch, whose events are all JSON or all bytes. `messageIds` has an item for
 * each event.
 */
export function batchBody(
  envelopes: readonly Envelope[],
  messageIds?: readonly (string | undefined)[],
): Body {
  if (messageIds !== undefined && messageIds.length !== envelopes.length) {
    throw new TypeError("a batch has as many message ids as events, or none");
  }
  const binary = envelopes.filter((it) => it instanceof Uint8Array);
  if (binary.length === 0 || binary.length < envelopes.length) {
    if (binary.length > 0) throw new TypeError("a batch is either JSON or bytes");
    const identified = envelopes.map((it, index) =>
      objectWithId(it as Record<string, unknown>, messageIds?.[index]),
    );
    return json({ messages: identified.map(({ envelope }) => envelope) }, identified);
  }
  const identified = binary.map((it, index) => bytesWithId(it, messageIds?.[index]));
  return protobuf(concat(identified.map(({ envelope }) => bytesField(envelope))), identified);
}

function objectWithId(
  envelope: Readonly<Record<string, unknown>>,
  given: string | undefined,
): Identified<unknown> {
  const { messageId: camel, message_id: snake, ...rest } = envelope;
  const own = String(camel ?? snake ?? "");
  const messageId = chooseId(own === "" ? undefined : own, given);
  return { messageId, envelope: own === "" ? { messageId, ...rest } : envelope };
}

function bytesWithId(
  envelope: Uint8Array,
  given: string | undefined,
): Identified<Uint8Array<ArrayBuffer>> {
  const own = findId(envelope);
  const messageId = chooseId(own, given);
  if (own !== undefined) return { messageId, envelope: concat([envelope]) };
  const id = bytesField(new TextEncoder().encode(messageId));
  // The order of fields has no meaning.
  return { messageId, envelope: concat([id, withoutEmptyId(envelope)]) };
}

/** Returns the id of an event from that in its envelope and that of the caller. */
function chooseId(own: string | undefined, given: string | undefined): string {
  if (given === "") throw new TypeError("a message id is not empty");
  if (own !== undefined && given !== undefined && given !== own) {
    throw new TypeError("the envelope has another message id than the call");
  }
  return own ?? given ?? crypto.randomUUID();
}

/** Returns field 1 of an envelope, unless it is missing or empty. */
function findId(envelope: Uint8Array): string | undefined {
  for (const { number, content } of fields(envelope)) {
    if (number === 1 && content !== undefined && content.length > 0) {
      return new TextDecoder().decode(content);
    }
  }
  return undefined;
}

/** Removes empty occurrences of field 1, since the relay refuses two of them. */
function withoutEmptyId(envelope: Uint8Array): Uint8Array {
  const kept = [...fields(envelope)].filter(({ number }) => number !== 1);
  return concat(kept.map(({ whole }) => whole));
}

interface Field {
  readonly number: number;
  /** The field with its tag. */
  readonly whole: Uint8Array;
  /** The content of a field with a length. */
  readonly content: Uint8Array | undefined;
}

/** Yields the fields of a message; throws if the bytes are not a message. */
function* fields(message: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at];
      if (byte === undefined || factor > 2 ** 63) throw malformed();
      at += 1;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const start = at;
    const tag = varint();
    let content: Uint8Array | undefined;
    switch (tag % 8) {
      case 0:
        varint();
        break;
      case 1:
        at += 8;
        break;
      case 2: {
        const length = varint();
        content = message.subarray(at, at + length);
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        // The relay refuses groups.
        throw malformed();
    }
    if (at > message.length) throw malformed();
    yield { number: Math.floor(tag / 8), whole: message.subarray(start, at), content };
  }
}

function malformed(): TypeError {
  return new TypeError("the bytes are not an envelope");
}

function bytesField(content: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = [FIELD_1_BYTES];
  let length = content.length;
  for (; length > 127; length = Math.floor(length / 128)) head.push((length % 128) + 128);
  head.push(length);
  return concat([new Uint8Array(head), content]);
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function json(content: unknown, events: readonly Identified<unknown>[]): Body {
  const bytes = JSON.stringify(content);
  return { contentType: "application/json", bytes, messageIds: idsOf(events) };
}

function protobuf(bytes: Uint8Array<ArrayBuffer>, events: readonly Identified<unknown>[]): Body {
  return { contentType: "application/x-protobuf", bytes, messageIds: idsOf(events) };
}

function idsOf(events: readonly Identified<unknown>[]): string[] {
  return events.map(({ messageId }) => messageId);
}
