/** Events that clients send to each other. */

import type { Codec, Frame } from "./codec.js";
import type { RelayError } from "./errors.js";

/** Larger messages would end the connection, unless the relay is set to take them. */
const FRAME_BYTES_MAX = 64 * 1024;

/** How an event is sent to other clients. */
export interface PublishOptions {
  /** The `messageId` that the others receive. Unless it is given, the client makes one. */
  readonly messageId?: string;
}

/** The relay has refused an event of this client. */
export interface PublishRefusal {
  /** The event's id. */
  readonly messageId: string;
  readonly error: RelayError;
}

/** The events by payload, of which the sender may leave out fields. */
export type Sendable<Payload> = Partial<Payload>;

/** Encodes an event; throws a `TypeError` if no relay would take it. */
export function clientEventFrame(
  codec: Codec,
  messageId: string,
  name: string,
  payload: unknown,
): Frame {
  const frame = codec.encode({ kind: "client event", messageId, name, payload });
  const bytes = typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
  if (bytes > FRAME_BYTES_MAX) {
    throw new TypeError(`an event for other clients has at most ${FRAME_BYTES_MAX} bytes`);
  }
  return frame;
}
