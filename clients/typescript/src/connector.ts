/**
 * Opens WebSockets. If the relay does not answer on them, it loads the connector that can do more, which
 * takes its place.
 */

import type { Codec, Incoming } from "./codec.js";
import { ConnectionError } from "./errors.js";
import {
  type Connection,
  type ConnectionOwner,
  SILENT_MAX,
  type TransportName,
} from "./transport.js";
import { WebSocketConnection, type WebSocketConstructor } from "./web_socket.js";

/** No Close frame was received. */
const NO_CLOSE_FRAME = 1006;

/** With what connections are opened. */
export interface ConnectorOptions {
  readonly url: string;
  readonly codec: Codec;
  /** The best one first. */
  readonly transports: readonly TransportName[];
  readonly WebSocket: WebSocketConstructor;
}

/** What the owner of a connector is told. */
export interface ConnectorOwner {
  /** Messages can be sent on a connection, which takes the place of the one before it. */
  opened(connection: Connection): void;
  received(message: Incoming): void;
  /** The attempt has failed, or the connection has ended. */
  ended(error: ConnectionError): void;
  /** The connection should begin anew, with another Subscribe. */
  reopenWanted(): void;
  /** Another connector takes the place of this one, and goes on. */
  replaced(connector: Connector): void;
}

/** Opens connections for a client, one after the other. */
export interface Connector {
  /** The token for the next request. */
  token: string | undefined;
  /** True if the relay has accepted the connection. */
  readonly isOpen: boolean;
  /** Opens a connection, in place of the present one. */
  open(token: string | undefined): void;
  /** Finds out soon whether the connection still lives, and whether a better one can be had. */
  probe(): void;
  /** Ends everything. The owner is not told. */
  close(): void;
}

/** Opens WebSockets. */
export class WebSocketConnector implements Connector {
  token: string | undefined;
  readonly #options: ConnectorOptions;
  readonly #owner: ConnectorOwner;
  #connection: Connection | undefined;
  /** Counts attempts, so that what belongs to an earlier one is ignored. */
  #attempt = 0;
  /** The attempts in a row that the relay did not answer, the present one included until it does. */
  #silent = 0;

  constructor(options: ConnectorOptions, owner: ConnectorOwner) {
    this.#options = options;
    this.#owner = owner;
  }

  get isOpen(): boolean {
    return this.#connection !== undefined;
  }

  open(token: string | undefined): void {
    this.close();
    this.token = token;
    const attempt = this.#attempt;
    const { transports } = this.#options;
    if (transports[0] !== "websocket") {
      void this.#replace(undefined);
      return;
    }
    this.#silent += 1;
    this.#connection = openWebSocket(this.#options, token, {
      opened: () => this.#connection && this.#owner.opened(this.#connection),
      received: (message) => {
        this.#silent = 0;
        this.#owner.received(message);
      },
      ended: (error) => attempt === this.#attempt && this.#ended(error),
    });
  }

  probe(): void {
    this.#connection?.probe();
  }

  close(): void {
    this.#attempt += 1;
    this.#connection?.close();
    this.#connection = undefined;
  }

  #ended(error: ConnectionError): void {
    this.close();
    if (isAnswer(error)) this.#silent = 0;
    const mayFallBack = this.#options.transports.length > 1;
    if (mayFallBack && this.#silent >= SILENT_MAX) void this.#replace(error);
    else this.#owner.ended(error);
  }

  /** `error` is why there is no WebSocket. */
  async #replace(error: ConnectionError | undefined): Promise<void> {
    const attempt = this.#attempt;
    try {
      const { HttpConnector } = await import("./http/connector.js");
      if (attempt !== this.#attempt) return;
      const connector = new HttpConnector(this.#options, this.#owner);
      this.#owner.replaced(connector);
      connector.goOn(this.token, error);
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      this.#owner.ended(error ?? new ConnectionError("LOST", "a module is missing", { cause }));
    }
  }
}

/** Returns true if the relay has ended a connection, in contrast to one that was cut or not opened. */
export function isAnswer({ closeCode = NO_CLOSE_FRAME }: ConnectionError): boolean {
  return closeCode !== NO_CLOSE_FRAME;
}

/** Opens a WebSocket; the owner is told later if it cannot be made. */
export function openWebSocket(
  { WebSocket, codec, url }: ConnectorOptions,
  token: string | undefined,
  owner: ConnectionOwner,
): Connection | undefined {
  const tokens = token === undefined ? [] : [`bearer.${token}`];
  try {
    return new WebSocketConnection(
      new WebSocket(url, [codec.subprotocol, ...tokens]),
      codec,
      owner,
    );
  } catch (cause) {
    const error = new ConnectionError("WEBSOCKET_FAILED", "the WebSocket cannot be made", {
      cause,
    });
    queueMicrotask(() => owner.ended(error));
    return undefined;
  }
}
