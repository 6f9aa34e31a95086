/** A WebSocket without a network: the test plays the relay. */

import type { WebSocketLike } from "../../src/web_socket.js";

/** What a client has sent, as JSON. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into it.
export type Sent = any;

export class FakeSocket implements WebSocketLike {
  /** All sockets since the last `reset`, the newest last. */
  static all: FakeSocket[] = [];

  static reset(): void {
    FakeSocket.all = [];
  }

  static get last(): FakeSocket {
    const last = FakeSocket.all.at(-1);
    if (last === undefined) throw new Error("no connection was opened");
    return last;
  }

  binaryType = "blob";
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  /** The messages that the client has sent and the test has not taken. */
  sent: Sent[] = [];
  closedWith: number | undefined | "open" = "open";

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.all.push(this);
  }

  send(data: string | Uint8Array): void {
    if (this.readyState !== 1) throw new Error("the socket is not open");
    this.sent.push(JSON.parse(String(data)));
  }

  close(code?: number): void {
    this.readyState = 2;
    this.closedWith = code;
  }

  /** The relay accepts the handshake. */
  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  /** The relay sends a message. */
  deliver(envelope: unknown): void {
    this.onmessage?.({ data: typeof envelope === "string" ? envelope : JSON.stringify(envelope) });
  }

  /** The connection ends. */
  end(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** Returns the only message that the client has sent since the last call. */
  take(): Sent {
    if (this.sent.length !== 1) throw new Error(`sent: ${JSON.stringify(this.sent)}`);
    return this.sent.pop();
  }

  /** Confirms the Subscribe that the client has just sent, and returns it. */
  confirm(offset: number, confirmed: Record<string, unknown> = {}): Sent {
    const sent = this.take();
    const position = at(offset);
    const { topics } = sent.subscribe;
    const requestMessageId = sent.messageId;
    this.deliver({ subscriptionConfirmed: { topics, position, requestMessageId, ...confirmed } });
    return sent.subscribe;
  }

  /** Sends an event with this offset. */
  event(offset: number): void {
    this.deliver(eventAt(offset));
  }
}

export function at(offset: number, epoch = "e1"): { epoch: string; offset: string } {
  return { epoch, offset: String(offset) };
}

export function eventAt(offset: number, epoch = "e1"): Record<string, unknown> {
  const timestamp = "1795303801";
  return { messageId: `m-${offset}`, event: { offset }, timestamp, position: at(offset, epoch) };
}
