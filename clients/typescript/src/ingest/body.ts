/** The bodies of calls. Every event gets its id here, once for all tries. */

/** An envelope in proto3 JSON, or its bytes. */
export type Envelope = Readonly<Record<string, unknown>> | Uint8Array;

/** What a call sends. */
export interface Body {
  readonly contentType: "application/json" | "application/x-protobuf";
  readonly bytes: string | Uint8Array<ArrayBuffer>;
}

/** Field 1 of an envelope, and of a batch: bytes of a known length. */
const FIELD_1_BYTES = 0x0a;

/** Returns the body for one event. */
export function eventBody(envelope: Envelope, messageId?: string): Body {
  if (envelope instanceof Uint8Array) return protobuf(bytesWithId(envelope, messageId));
  return json(JSON.stringify(objectWithId(envelope, messageId)));
}

/** Returns the body for a batch, whose events are all JSON or all bytes. */
export function batchBody(envelopes: readonly Envelope[]): Body {
  const binary = envelopes.filter((it) => it instanceof Uint8Array);
  if (binary.length === 0 || binary.length < envelopes.length) {
    if (binary.length > 0) throw new TypeError("a batch is either JSON or bytes");
    const messages = envelopes.map((it) => objectWithId(it as Record<string, unknown>));
    return json(JSON.stringify({ messages }));
  }
  return protobuf(concat(binary.map((it) => bytesField(bytesWithId(it)))));
}

function objectWithId(envelope: Readonly<Record<string, unknown>>, messageId?: string): unknown {
  const { messageId: camel, message_id: snake, ...rest } = envelope;
  const own = camel ?? snake;
  if (own !== undefined && own !== "") {
    if (messageId !== undefined && messageId !== own) throw differentIds();
    return envelope;
  }
  return { messageId: messageId ?? crypto.randomUUID(), ...rest };
}

function bytesWithId(envelope: Uint8Array, messageId?: string): Uint8Array<ArrayBuffer> {
  const own = findId(envelope);
  if (own !== undefined) {
    if (messageId !== undefined && messageId !== own) throw differentIds();
    return concat([envelope]);
  }
  const id = new TextEncoder().encode(messageId ?? crypto.randomUUID());
  // The order of fields has no meaning.
  return concat([bytesField(id), withoutEmptyId(envelope)]);
}

function differentIds(): TypeError {
  return new TypeError("the envelope has another message id than the call");
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

/** Yields the fields of a message; throws if the bytes are none. */
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

function json(bytes: string): Body {
  return { contentType: "application/json", bytes };
}

function protobuf(bytes: Uint8Array<ArrayBuffer>): Body {
  return { contentType: "application/x-protobuf", bytes };
}
