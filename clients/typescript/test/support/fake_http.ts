/** `fetch` without a network: the test plays the relay. */

import { vi } from "vitest";
import { settle } from "./client.js";
import { at } from "./fake_socket.js";

/** A request that waits for its answer. */
export class FakeRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly init: RequestInit;
  #answer: (response: Response) => void = () => {};
  #fail: (error: unknown) => void = () => {};
  #stream: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** What the client's `fetch` returns. */
  readonly response: Promise<Response>;

  constructor(url: string, init: RequestInit) {
    this.url = new URL(url);
    this.headers = init.headers as Record<string, string>;
    this.init = init;
    this.response = new Promise((resolve, reject) => {
      this.#answer = resolve;
      this.#fail = reject;
    });
    init.signal?.addEventListener("abort", this.#aborted);
  }

  readonly #aborted = () => {
    const error = new DOMException("aborted", "AbortError");
    this.#fail(error);
    this.#stream?.error(error);
    this.#stream = undefined;
  };

  /** Answers with a whole response, after which nothing is left to abort. */
  async #answerWhole(body: string, status: number, headers: Record<string, string>): Promise<void> {
    this.init.signal?.removeEventListener("abort", this.#aborted);
    this.#answer(new Response(body, { status, headers }));
    await settle();
  }

  get isAborted(): boolean {
    return this.init.signal?.aborted ?? false;
  }

  get topics(): string[] {
    return this.url.searchParams.getAll("topic");
  }

  get since(): string | null {
    return this.url.searchParams.get("since");
  }

  /** There is no network. */
  async fail(): Promise<void> {
    this.#fail(new TypeError("fetch failed"));
    await settle();
  }

  /** Answers with a document. */
  async json(body: unknown, status = 200, headers: Record<string, string> = {}): Promise<void> {
    const type = status === 200 ? "application/json" : "application/problem+json";
    await this.#answerWhole(JSON.stringify(body), status, { "Content-Type": type, ...headers });
  }

  /** Answers with a page, as a proxy does. */
  async page(status = 200): Promise<void> {
    await this.#answerWhole("<html>", status, { "Content-Type": "text/html" });
  }

  /** Answers a poll. */
  poll(offset: number, events: unknown[] = [], recovered = true): Promise<void> {
    return this.json({ position: at(offset), recovered, events });
  }

  /** Begins a stream. */
  async open(): Promise<void> {
    const body = new ReadableStream<Uint8Array>({
      start: (stream) => {
        this.#stream = stream;
      },
    });
    this.#answer(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
    await settle();
  }

  /** Sends a piece of the stream. */
  async write(text: string | Uint8Array): Promise<void> {
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    this.#stream?.enqueue(bytes);
    await settle();
  }

  /** Sends messages. */
  async send(...envelopes: unknown[]): Promise<void> {
    await this.write(envelopes.map((it) => `data: ${JSON.stringify(it)}\n\n`).join(""));
  }

  /** Begins a stream with the confirmation. */
  async confirm(offset: number, confirmed: Record<string, unknown> = {}): Promise<void> {
    await this.open();
    const { topics } = this;
    const position = at(offset);
    const timestamp = "1795303801";
    await this.send({ timestamp, subscriptionConfirmed: { topics, position, ...confirmed } });
  }

  /** Ends the stream. */
  async end(): Promise<void> {
    this.#stream?.close();
    this.#stream = undefined;
    await settle();
  }
}

/** All requests of a test. */
export class FakeHttp {
  readonly requests: FakeRequest[] = [];

  /** Stands for the global `fetch` until the test ends. */
  static install(): FakeHttp {
    const http = new FakeHttp();
    vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
      const request = new FakeRequest(url, init);
      http.requests.push(request);
      return request.response;
    });
    return http;
  }

  get last(): FakeRequest {
    const last = this.requests.at(-1);
    if (last === undefined) throw new Error("nothing was asked for");
    return last;
  }

  /** Resolves with the request after the first `count` ones. */
  async request(count: number): Promise<FakeRequest> {
    // What speaks HTTP is loaded first, which takes no time of the fake clock.
    await vi.waitFor(() => {
      if (this.requests.length <= count) throw new Error(`${this.requests.length} requests`);
    });
    return this.requests[count] as FakeRequest;
  }
}
