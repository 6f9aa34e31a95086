/**
 * Which transport is used. Does no I/O. It falls back only while the relay answers over HTTP and not on a
 * WebSocket: in an outage it does neither, and the client goes on with the WebSocket.
 */

import type { ConnectionErrorCode } from "../errors.js";
import { SILENT_MAX, type TransportName } from "../transport.js";

/** The choice of one client, over all its attempts. */
export class TransportChoice {
  readonly #transports: readonly TransportName[];
  /** The transport over HTTP that is in use, or was when the connection ended. */
  #inUse: TransportName | undefined;
  /** The attempts in a row on a WebSocket that the relay did not answer. It begins with the last of them. */
  #silent = SILENT_MAX - 1;

  /** The transport over HTTP that is asked next. */
  #next: TransportName | undefined;
  /** True if something lets server-sent events pass no longer, or too late. */
  #areStreamsBlocked = false;

  /** `transports` are those that the client may use, the best one first, and at least one. */
  constructor(transports: readonly TransportName[]) {
    this.#transports = transports;
    this.#next = this.#firstOverHttp;
  }

  /** True if a WebSocket would be better than what is in use. */
  get mayImprove(): boolean {
    return this.#inUse !== undefined && this.#transports.includes("websocket");
  }

  /** Returns the transport with which an attempt begins. */
  first(): TransportName {
    return this.#inUse ?? (this.#transports[0] as TransportName);
  }

  /** The relay has answered. */
  answered(transport: TransportName): void {
    this.#silent = 0;
    this.#inUse = transport === "websocket" ? undefined : transport;
    this.#next = this.#firstOverHttp;
  }

  /** The relay has refused a connection. Over HTTP it may only have refused a request. */
  refused(transport: TransportName): void {
    if (transport === "websocket") this.answered(transport);
  }

  /** The relay has not answered an attempt. Returns the transport to try at once, if there is one. */
  unanswered(transport: TransportName, code: ConnectionErrorCode): TransportName | undefined {
    if (transport === "websocket") {
      this.#silent += 1;
      return this.#silent < SILENT_MAX ? undefined : this.#next;
    }
    this.#inUse = undefined;
    if (isBlocked(code)) {
      this.#areStreamsBlocked ||= transport === "sse";
      return this.#after(transport);
    }
    // Where there is no network, another request would find none either. But a page is told the same of a
    // proxy that refuses, so the next attempt asks for the other transport.
    this.#next = this.#after(transport) ?? this.#firstOverHttp;
    return undefined;
  }

  /** A connection on which the relay had answered has ended. */
  lost(transport: TransportName, code: ConnectionErrorCode): void {
    if (transport === "websocket") return;
    if (isBlocked(code)) {
      this.#areStreamsBlocked ||= transport === "sse";
      this.#inUse = this.#after(transport);
    } else if (!this.#areStreamsBlocked) this.#inUse = this.#firstOverHttp;
  }

  get #firstOverHttp(): TransportName | undefined {
    return this.#transports.find((it) => it !== "websocket");
  }

  #after(transport: TransportName): TransportName | undefined {
    return this.#transports[this.#transports.indexOf(transport) + 1];
  }
}

/** Returns true if something between the client and the relay may hold this transport up. */
function isBlocked(code: ConnectionErrorCode): boolean {
  return code === "DEAD" || code === "NOT_OFFERED";
}
