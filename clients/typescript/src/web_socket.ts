/** One WebSocket, from its handshake to its end: frames in and out, and the heartbeat. */

import { closeError } from "./close_codes.js";
import type { Codec, Frame, Incoming, Outgoing } from "./codec.js";
import { ConnectionError } from "./errors.js";
import { type Connection, type ConnectionOwner, HANDSHAKE_MS } from "./transport.js";

/** A Ping is sent this often. */
export const PING_INTERVAL_MS = 30_000;
/** Without a frame for this long, the connection is dead. */
export const DEAD_AFTER_MS = 60_000;
/** The same after a wake-up, when the connection may have been dead for long. */
export const PROBE_MS = 10_000;

const CONNECTING = 0;
const OPEN = 1;

/** The part of the standard's WebSocket that the client uses; the one of the package `ws` fits too. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  // biome-ignore lint/suspicious/noExplicitAny: the events of `ws` have types of their own.
  onopen: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  onmessage: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  onclose: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  onerror: ((event: any) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** A constructor of WebSockets. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** A WebSocket that speaks the protocol. */
export class WebSocketConnection implements Connection {
  readonly transport = "websocket";
  owner: ConnectionOwner;
  readonly #socket: WebSocketLike;
  readonly #codec: Codec;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer runs out, and by when a frame has to come, in ms of the monotonic clock. */
  #timerEnds = Infinity;
  #dueAt = 0;
  #hasEnded = false;

  constructor(socket: WebSocketLike, codec: Codec, owner: ConnectionOwner) {
    this.#socket = socket;
    this.#codec = codec;
    this.owner = owner;
    socket.binaryType = "arraybuffer";
    this.#expectWithin(HANDSHAKE_MS);
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }: { data: unknown }) => this.#received(data);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) =>
      this.#end(closeError(code, reason));
    // A close event follows, which has all that a page may know.
    socket.onerror = () => {};
  }

  /** Sends a message, if the connection is open. */
  send(message: Outgoing): void {
    this.sendFrame(this.#codec.encode(message));
  }

  /** Sends a message that is encoded already; returns false if the connection is not open. */
  sendFrame(frame: Frame): boolean {
    if (this.#socket.readyState !== OPEN) return false;
    this.#socket.send(frame);
    return true;
  }

  /** Finds out soon whether the connection still lives. */
  probe(): void {
    if (this.#hasEnded || this.#socket.readyState !== OPEN) return;
    this.send({ kind: "ping" });
    this.#expectWithin(PROBE_MS);
  }

  /** Closes the connection. The owner is not told. */
  close(): void {
    this.#release();
    if (this.#socket.readyState <= OPEN) {
      // A WebSocket that is being opened may be closed, but not with a code.
      if (this.#socket.readyState === CONNECTING) this.#socket.close();
      else this.#socket.close(1000);
    }
  }

  #opened(): void {
    this.#heartbeat = setInterval(() => this.send({ kind: "ping" }), PING_INTERVAL_MS);
    this.#expectWithin(DEAD_AFTER_MS);
    this.owner.opened();
  }

  #received(data: unknown): void {
    if (this.#hasEnded) return;
    this.#expectWithin(DEAD_AFTER_MS);
    let message: Incoming;
    try {
      message = this.#codec.decode(data as string | ArrayBuffer);
    } catch (cause) {
      const text = "a message of the relay cannot be decoded";
      this.#abandon(new ConnectionError("UNREADABLE", text, { cause }));
      return;
    }
    this.owner.received(message);
  }

  #expectWithin(ms: number): void {
    this.#dueAt = performance.now() + ms;
    // A timer for each frame would take a tenth of the time that an event takes.
    if (this.#dueAt < this.#timerEnds) this.#startTimer();
  }

  #startTimer(): void {
    clearTimeout(this.#timer);
    this.#timerEnds = this.#dueAt;
    this.#timer = setTimeout(() => {
      if (performance.now() < this.#dueAt) this.#startTimer();
      else this.#abandon(new ConnectionError("DEAD", "no frame arrived in time"));
    }, this.#dueAt - performance.now());
  }

  /** Ends the connection at once: a dead one would answer a Close frame late or never. */
  #abandon(error: ConnectionError): void {
    this.close();
    this.owner.ended(error);
  }

  #end(error: ConnectionError): void {
    if (this.#hasEnded) return;
    this.#release();
    this.owner.ended(error);
  }

  #release(): void {
    this.#hasEnded = true;
    clearInterval(this.#heartbeat);
    clearTimeout(this.#timer);
    this.#socket.onopen = null;
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    // Stays, since `ws` throws an error that nobody handles.
    this.#socket.onerror = () => {};
  }
}
