/**
 * A TCP proxy that cuts connections, refuses them, takes bytes and passes none on, or knows no WebSockets.
 */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export class FaultyProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #refuses = false;
  #holds = false;
  #holdsAnswers = false;
  #swallows = false;
  #blocks: RegExp | undefined;
  /** The number of connections that were accepted. */
  accepted = 0;

  private constructor(target: number) {
    this.#server = createServer((near) => {
      if (this.#refuses) {
        near.destroy();
        return;
      }
      this.accepted += 1;
      const far = connect(target, "127.0.0.1");
      // Each request comes in one piece.
      near.on("data", (bytes) => {
        if (!this.#blocks?.test(bytes.toString("latin1"))) return;
        near.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        far.destroy();
      });
      this.#pass(near, far, () => false);
      this.#pass(far, near, () => this.#holdsAnswers);
    });
  }

  static async start(target: number): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("it does not listen");
    return address.port;
  }

  /** Resets all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Resets all connections, and refuses new ones until `allow`. */
  refuse(): void {
    this.#refuses = true;
    this.cut();
  }

  allow(): void {
    this.#refuses = false;
  }

  /**
   * Answers requests with such a head with 400, as a proxy does that does not know WebSockets, or none.
   * Connections that are open stay so.
   */
  block(head: RegExp | undefined): void {
    this.#blocks = head;
  }

  /** Swallows whatever comes on the present connections, which stay open. */
  swallow(): void {
    this.#swallows = true;
  }

  /** Passes bytes on again, on connections that are opened from now on. */
  stopSwallowing(): void {
    this.#swallows = false;
  }

  /** Reads nothing more, as a slow client does. */
  hold(): void {
    this.#holds = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** Reads on. */
  release(): void {
    this.#holds = false;
    for (const socket of this.#sockets) socket.resume();
  }

  /** Swallows what comes from the relay, on connections that have not brought anything yet. */
  holdAnswers(): void {
    this.#holdsAnswers = true;
  }

  allowAnswers(): void {
    this.#holdsAnswers = false;
  }

  async stop(): Promise<void> {
    this.cut();
    const closed = once(this.#server, "close");
    this.#server.close();
    await closed;
  }

  #pass(from: Socket, to: Socket, isMute: () => boolean): void {
    this.#sockets.add(from);
    let isDead = false;
    from.on("data", (bytes) => {
      isDead ||= this.#swallows || isMute();
      if (isDead || to.destroyed) return;
      if (!to.write(bytes)) {
        from.pause();
        to.once("drain", () => !this.#holds && from.resume());
      }
    });
    from.on("error", () => {});
    from.on("close", () => {
      this.#sockets.delete(from);
      // What is written to it last still goes out.
      if (!isDead && !to.writableEnded) to.destroy();
    });
  }
}
