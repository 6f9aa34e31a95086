/** The relay's answers to calls: receipts, and problem documents as errors. */

import type { RelayErrorCode } from "../errors.js";
import { type Position, parsePosition } from "../position.js";

/** What became of an event. */
export interface Receipt {
  /** The event's id. */
  readonly messageId: string;
  /** Its position in the tenant's order. */
  readonly position: Position;
  /** All its topics. */
  readonly topics: readonly string[];
  /**
   * The number of connections that it matched. Undefined if a part of the relay did not confirm in
   * time (202): the event is stored and will be delivered all the same.
   */
  readonly matched: number | undefined;
  /** True if the event had been posted before, under the same id. */
  readonly duplicate: boolean;
}

/** One invalid event of a batch. */
export interface EventFault {
  /** Its index in the batch. */
  readonly index: number;
  /** The path of the invalid field. */
  readonly field: string | undefined;
  /** The reason, for people. */
  readonly message: string;
}

/** Where a topic stands for which a condition did not hold. */
export interface CurrentPosition {
  /** The topic. */
  readonly topic: string;
  /** The epoch of the tenant's log, if there is one. */
  readonly epoch: string | undefined;
  /** The position of the topic's last event, if the log has one. */
  readonly position: Position | undefined;
}

/** What is known of the events of a call that failed. */
export interface CallEvents {
  /** The ids of the events, in their order. */
  readonly messageIds: readonly string[];
  /** True if they may be in the log nevertheless. */
  readonly mayBeStored: boolean;
}

/** What an error of a call has. */
export interface PublishErrorDetails extends CallEvents {
  readonly status: number;
  readonly code: RelayErrorCode | undefined;
  readonly detail: string;
  readonly field: string | undefined;
  readonly errors: readonly EventFault[];
  readonly current: readonly CurrentPosition[];
  readonly retryAfterMs: number | undefined;
}

/**
 * The relay, or a proxy before it, refused a call. Nothing of the call was stored, unless
 * `mayBeStored` says otherwise.
 */
export class PublishError extends Error {
  override readonly name: string = "PublishError";
  /** The HTTP status. */
  readonly status: number;
  /** The ids of the call's events, in their order, to post them again under. */
  readonly messageIds: readonly string[];
  /**
   * True if the events may be in the log although the call failed: an earlier try had no answer, or a
   * proxy answered for the relay with a redirect or 5xx. Post them again under the same ids.
   */
  readonly mayBeStored: boolean;
  /** The code; undefined if the answer is not the relay's, but that of a proxy. */
  readonly code: RelayErrorCode | undefined;
  /** The path of the invalid field. */
  readonly field: string | undefined;
  /** The invalid events of a batch. */
  readonly errors: readonly EventFault[];
  /** With CONFLICT: where the topics stand whose conditions did not hold. */
  readonly current: readonly CurrentPosition[];
  /** How long the relay asks to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(details: PublishErrorDetails) {
    super(`${details.status} ${details.code ?? ""}: ${details.detail}`);
    this.status = details.status;
    this.messageIds = details.messageIds;
    this.mayBeStored = details.mayBeStored;
    this.code = details.code;
    this.field = details.field;
    this.errors = details.errors;
    this.current = details.current;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** There was no answer. The `cause` says why. */
export class NoAnswerError extends Error {
  override readonly name = "NoAnswerError";
  /** The ids of the call's events, in their order, to post them again under. */
  readonly messageIds: readonly string[];
  /**
   * True if the events may have been stored or not; false if it is known that no try has reached the
   * relay.
   */
  readonly mayBeStored: boolean;

  constructor(cause: unknown, { messageIds, mayBeStored }: CallEvents) {
    super("the relay has not answered", { cause });
    this.messageIds = messageIds;
    this.mayBeStored = mayBeStored || !isUnsent(cause);
  }
}

/** The codes with which Node says that there was no connection over which to send. */
const UNSENT: readonly unknown[] = [
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
];

function isUnsent(error: unknown): boolean {
  // Node's fetch fails with a TypeError that has the error of the connection as its cause.
  return error instanceof Error && UNSENT.includes(object(error.cause).code);
}

/** Parses one receipt; throws if it is not a receipt. */
export function parseReceipt(value: unknown): Receipt {
  const { message_id, position, topics, matched, duplicate } = object(value);
  const parsed = parsePosition(position);
  if (typeof message_id !== "string" || parsed === undefined) {
    throw new TypeError("the answer of the relay is not a receipt");
  }
  return {
    messageId: message_id,
    position: parsed,
    topics: list(topics).map(String),
    matched: typeof matched === "number" ? matched : undefined,
    duplicate: duplicate === true,
  };
}

/** Parses the receipts of a batch; throws if there are not `count` of them. */
export function parseReceipts(value: unknown, count: number): Receipt[] {
  const receipts = list(object(value).results).map(parseReceipt);
  if (receipts.length !== count) throw new TypeError("the answer of the relay is not a batch's");
  return receipts;
}

/** Makes the error for a refusal. The body need not be a problem document: a proxy has others. */
export function parseProblem(
  status: number,
  retryAfter: string | null,
  body: string,
  { messageIds, mayBeStored }: CallEvents,
): PublishError {
  const { code, detail, title, field, errors, current } = object(parseJson(body));
  return new PublishError({
    status,
    messageIds,
    // A proxy that redirects, or reports a failure, may have passed the call on.
    mayBeStored: mayBeStored || (typeof code !== "string" && (status < 400 || status >= 500)),
    code: typeof code === "string" ? (code as RelayErrorCode) : undefined,
    detail: String(detail ?? title ?? "the answer has no problem document"),
    field: optionalText(field),
    errors: list(errors).map((it) => {
      const { index, field, message } = object(it);
      return { index: Number(index), field: optionalText(field), message: String(message) };
    }),
    current: list(current).map((it) => {
      const { topic, epoch, position } = object(it);
      return {
        topic: String(topic),
        epoch: optionalText(epoch),
        position: parsePosition(position),
      };
    }),
    retryAfterMs: /^[0-9]{1,9}$/.test(retryAfter ?? "") ? Number(retryAfter) * 1000 : undefined,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function object(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function optionalText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
