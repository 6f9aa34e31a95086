/** What the ways to the relay have in common: WebSocket, server-sent events and long polls. */

import type { Frame, Incoming, Outgoing } from "./codec.js";
import type { ConnectionError } from "./errors.js";

/**
 * A way to the relay:
 *
 * - `websocket`: everything is possible.
 * - `sse`: server-sent events, read with `fetch`. The client receives events and the presence of others,
 *   and can send nothing.
 * - `poll`: long polls. The client receives the events that the relay stores, and can send nothing.
 */
export type TransportName = "websocket" | "sse" | "poll";

/** All transports, the best one first. */
export const TRANSPORTS: readonly TransportName[] = ["websocket", "sse", "poll"];

/** After so many attempts in a row without an answer on a WebSocket, the next transport is asked too. */
export const SILENT_MAX = 2;

/** An attempt without an answer for this long is given up; the relay gives up sooner. */
export const HANDSHAKE_MS = 15_000;

/** What the owner of a connection is told. After `ended` comes nothing more. */
export interface ConnectionOwner {
  /** Messages can be sent. Over HTTP the relay may not have answered yet. */
  opened(): void;
  received(message: Incoming): void;
  ended(error: ConnectionError): void;
  /** The connection should begin anew, with another Subscribe: only over HTTP. */
  reopenWanted?(): void;
}

/** A connection to the relay, over any transport. */
export interface Connection {
  readonly transport: TransportName;
  owner: ConnectionOwner;
  /** Sends a message, if the connection is open. */
  send(message: Outgoing): void;
  /** Sends a message that is encoded already; returns false if it cannot be sent. */
  sendFrame(frame: Frame): boolean;
  /** Finds out soon whether the connection still lives. */
  probe(): void;
  /**
   * Asks the owner soon for another Subscribe, in place of the present one: only over HTTP, where a
   * connection has one Subscribe and can send nothing else.
   */
  reopenSoon?(): void;
  /** Closes the connection. The owner is not told. */
  close(): void;
}
