/** The errors of the client. */

/** The codes with which the relay refuses a message or a call. */
export type RelayErrorCode =
  | "AUTHENTICATION_FAILED"
  | "AUTHORIZATION_FAILED"
  | "VALIDATION_ERROR"
  | "NOT_FOUND"
  | "CONFLICT"
  | "RATE_LIMIT_EXCEEDED"
  | "INTERNAL_ERROR";

/** The relay refused a message of this client, such as a Subscribe or an event for other clients. */
export class RelayError extends Error {
  override readonly name = "RelayError";

  constructor(
    /** The code; a newer relay may have codes that this version does not know. */
    readonly code: RelayErrorCode | (string & {}),
    /** A text for people, which can change. */
    message: string,
    /** The path of the invalid field, such as `subscribe.topics[2]`. */
    readonly fieldName?: string,
    /** How long to wait, if the refusal is a temporary one. */
    readonly retryAfterMs?: number,
  ) {
    super(`${code}: ${message}`);
  }
}

/**
 * Why there is no connection, or a message was not sent:
 *
 * | code | meaning |
 * |---|---|
 * | `LOST` | The connection ended, or could not be opened. |
 * | `DEAD` | No frame arrived in time. |
 * | `NOT_CONNECTED` | A message for other clients could not be sent: no topic is subscribed at present. |
 * | `CANNOT_SEND` | A message for other clients could not be sent: the transport in use only receives. |
 * | `NOT_OFFERED` | The relay does not offer this transport, or something else has answered in its place. |
 * | `NO_ANSWER` | The relay did not answer a request in time. |
 * | `NO_TOKEN` | `getToken` failed; its error is the `cause`. |
 * | `TOKEN_REFUSED` | The relay refused the token (4401). The next attempt asks for a new one. |
 * | `WEBSOCKET_FAILED` | No WebSocket could be made; the error is the `cause`. |
 * | `UNREADABLE` | A message could not be decoded; the error is the `cause`. |
 * | `REPLACED` | The client itself replaced the connection, to resume from an earlier position. |
 * | `OFFLINE` | The browser says that it is offline. |
 * | `PAGE_HIDDEN` | The page was left, and may come back from the back/forward cache. |
 * | `DISCONNECTED` | A backend disconnected the user (4002). The client does not reconnect by itself. |
 * | `ORIGIN_REFUSED` | The relay refused the origin or the host (4403). It does not reconnect by itself. |
 * | `CLIENT_FAULT` | This client violated the protocol. It does not reconnect by itself. |
 * | `CLOSED` | The application closed the client. |
 */
export type ConnectionErrorCode =
  | "LOST"
  | "DEAD"
  | "NOT_CONNECTED"
  | "CANNOT_SEND"
  | "NOT_OFFERED"
  | "NO_ANSWER"
  | "NO_TOKEN"
  | "TOKEN_REFUSED"
  | "WEBSOCKET_FAILED"
  | "UNREADABLE"
  | "REPLACED"
  | "OFFLINE"
  | "PAGE_HIDDEN"
  | "DISCONNECTED"
  | "ORIGIN_REFUSED"
  | "CLIENT_FAULT"
  | "CLOSED";

/** What a connection's end is known to have been. */
export interface ConnectionEnd {
  /** The close code of the WebSocket. */
  readonly closeCode?: number;
  /** The reason in the Close frame. */
  readonly closeReason?: string;
  /** The error that ended the connection. */
  readonly cause?: unknown;
}

/** Why a connection ended or could not be opened, or why a message was not sent. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  /** The close code, if the relay has closed the connection. A status of HTTP counts as 4000 more. */
  readonly closeCode: number | undefined;
  /** The reason in the Close frame, if there was one. */
  readonly closeReason: string | undefined;

  constructor(
    /** The kind of end. */
    readonly code: ConnectionErrorCode,
    message: string,
    end: ConnectionEnd = {},
  ) {
    super(message, end.cause === undefined ? undefined : { cause: end.cause });
    this.closeCode = end.closeCode;
    this.closeReason = end.closeReason;
  }
}
