/** The client: keeps one connection, and on it all subscriptions. */

import { Backoff } from "./backoff.js";
import type { PublishOptions, PublishRefusal, Sendable } from "./client_event.js";
import { nextAfterClose } from "./close_codes.js";
import type { Codec, Incoming, Outgoing } from "./codec.js";
import { type Connector, WebSocketConnector } from "./connector.js";
import { Conversation } from "./conversation.js";
import { Emitter } from "./emitter.js";
import { isOffline, watchEnvironment } from "./environment.js";
import { ConnectionError } from "./errors.js";
import type { AnyEvents } from "./event.js";
import { json } from "./json.js";
import { consoleLogger, type Logger } from "./logger.js";
import type { SidewireOptions } from "./options.js";
import { parsePosition } from "./position.js";
import type { Presence, PresenceOptions } from "./presence.js";
import { Renewal } from "./renewal.js";
import type { ConnectionState } from "./state.js";
import type { SubscribeOptions, Subscription } from "./subscription.js";
import { checkTopics } from "./topics.js";
import { type Connection, TRANSPORTS, type TransportName } from "./transport.js";
import type { WebSocketConstructor } from "./web_socket.js";

/** To fetch a token may take this long. */
const TOKEN_MS = 30_000;

/** What a client calls back with. */
interface Callbacks {
  readonly state: ConnectionState;
  readonly refused: PublishRefusal;
}

/** Why no connection is wanted although the application wants one. */
type Pause = "OFFLINE" | "PAGE_HIDDEN";

/**
 * A client of a relay. It connects with the first subscription, and reconnects until it is closed:
 * after 1, 2, 4 … 30 s, or when the relay asks it to, and at once when the browser is online again,
 * the page becomes visible, or the machine wakes up.
 */
export class Sidewire<Events = AnyEvents> {
  /** Where the client writes what nobody else is told. */
  readonly logger: Logger;
  readonly #getToken: SidewireOptions["getToken"];
  #connector: Connector;
  readonly #emitter: Emitter<Callbacks>;
  readonly #conversation: Conversation<Events>;
  readonly #backoff = new Backoff();
  #state: ConnectionState = { name: "idle" };
  #connection: Connection | undefined;
  #renewal: Renewal | undefined;
  /** Counts the attempts, so that what belongs to an earlier one is ignored. */
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #unwatch: (() => void) | undefined;
  /** True while the relay has asked to wait, so that nothing may shorten that. */
  #relayAskedToWait = false;
  #waitsUntil = 0;
  #pause: Pause | undefined;
  #wasConfirmed = false;

  /**
   * @param url The address of the relay, such as `wss://relay.example/ws`.
   *
   * Throws a `TypeError` for an invalid address, an unknown transport, or if there is no WebSocket.
   */
  constructor(url: string, options: SidewireOptions<Events> = {}) {
    if (!/^wss?:$/.test(new URL(url).protocol)) {
      throw new TypeError("the address of a relay begins with ws:// or wss://");
    }
    const WebSocket: WebSocketConstructor | undefined = options.WebSocket ?? globalThis.WebSocket;
    const { schema: codec = json() } = options;
    const transports = transportsOf(options.transports, codec);
    if (WebSocket === undefined && transports.includes("websocket")) {
      throw new TypeError("there is no WebSocket here: pass that of the package `ws` as an option");
    }
    this.#getToken = options.getToken;
    this.logger = options.logger ?? consoleLogger;
    this.#emitter = new Emitter(this.logger);
    this.#connector = new WebSocketConnector(
      { url, codec, transports, WebSocket },
      {
        opened: (connection) => this.#opened(connection),
        received: (message) => this.#received(message),
        ended: (error) => this.#lost(error),
        reopenWanted: () => this.#conversation.reopen(),
        replaced: (connector) => {
          this.#connector = connector;
        },
      },
    );
    this.#conversation = new Conversation(codec, this.logger, {
      confirmed: () => this.#confirmed(),
      advanced: (isSettled) => this.#advanced(isSettled),
      connectionWanted: () => this.#replace(),
      unanswered: () => {
        this.#lost(new ConnectionError("NO_ANSWER", "the relay does not answer a request"));
      },
      refused: (refusal) => this.#emitter.emit("refused", refusal),
    });
  }

  /** The state of the connection. */
  get state(): ConnectionState {
    return this.#state;
  }

  /**
   * Calls back with each new state of the connection, or with each event of {@link publish} that the
   * relay has refused, of which otherwise the logger is told. The function that is returned ends that.
   */
  on<Name extends keyof Callbacks>(
    name: Name,
    callback: (value: Callbacks[Name]) => void,
  ): () => void {
    return this.#emitter.on(name, callback);
  }

  /**
   * Subscribes to topics, `kind:id` each, on this connection and each later one. Without topics the
   * subscription gets only the events for the user and for the whole tenant.
   *
   * Throws a `TypeError` for an invalid topic, or for more than 1,000 of them.
   */
  subscribe(topics: readonly string[], options: SubscribeOptions<Events>): Subscription<Events> {
    const since = options.since === undefined ? undefined : parsePosition(options.since);
    if (options.since !== undefined && since === undefined) {
      throw new TypeError("`since` is not a position");
    }
    this.#checkNotClosed();
    const subscription = this.#conversation.subscribe(checkTopics(topics), since, options);
    if (this.#state.name === "idle") this.connect();
    return subscription;
  }

  /**
   * Sends an event to the other clients of the topics that its payload names, and returns its message
   * id. It is sent at once or not at all: without a connection on which a topic is subscribed the
   * promise rejects with a {@link ConnectionError} (`NOT_CONNECTED`), which nobody has to handle. The
   * relay does not answer an event that it takes; for those that it refuses, see {@link on}.
   *
   * Throws a `TypeError` for an event that the schema does not have, or of more than 64 KiB.
   */
  publish<Name extends keyof Events & string>(
    name: Name,
    payload: Sendable<Events[Name]>,
    options: PublishOptions = {},
  ): Promise<string> {
    return this.#conversation.publish(name, payload, options);
  }

  /**
   * Subscribes to a topic, `kind:id` or `kind:*`, and returns who is present on it.
   *
   * Throws a `TypeError` for an invalid topic, or if the option `schema` does not tell which payloads are
   * presence.
   */
  presence(topic: string, options: PresenceOptions<Events> = {}): Presence<Events> {
    return this.#conversation.presence((it) => this.subscribe([topic], it), options);
  }

  /**
   * Connects now: with no need to wait for the first subscription or for the next attempt, or after
   * `closed`, with all subscriptions and their positions.
   */
  connect(): void {
    this.#checkNotClosed();
    if (this.#connection !== undefined || this.#state.name === "connecting") return;
    this.#unwatch ??= watchEnvironment({
      wokeUp: () => this.#wokeUp(),
      wentOffline: () => this.#wentOffline(),
      pageHidden: () => this.#pageHidden(),
      pageShown: () => this.#pageShown(),
    });
    this.#pause = undefined;
    void this.#open();
  }

  /** Closes the connection and ends all subscriptions, for good. */
  close(): void {
    if (this.#isClosed) return;
    this.#stop(new ConnectionError("CLOSED", "the application closed the client"));
    this.#conversation.unsubscribeAll();
  }

  get #isClosed(): boolean {
    return this.#state.name === "closed" && this.#state.reason.code === "CLOSED";
  }

  #checkNotClosed(): void {
    if (this.#isClosed) throw new Error("the application closed the client");
  }

  async #open(): Promise<void> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    clearTimeout(this.#timer);
    this.#relayAskedToWait = false;
    this.#wasConfirmed = false;
    this.#timer = setTimeout(() => {
      this.#lost(new ConnectionError("DEAD", `no token within ${TOKEN_MS / 1000} s`));
    }, TOKEN_MS);
    this.#setState({ name: "connecting" });
    let token: string | undefined;
    try {
      token = await this.#getToken?.();
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      const text = "there is no token with which to connect";
      this.#lost(new ConnectionError("NO_TOKEN", text, { cause }));
      return;
    }
    if (attempt !== this.#attempt) return;
    clearTimeout(this.#timer);
    this.#connector.open(token);
  }

  #opened(connection: Connection): void {
    this.#connection = connection;
    const getToken = this.#getToken;
    const { token } = this.#connector;
    // Over HTTP a token cannot be renewed: the relay ends what it was used for.
    if (connection.transport === "websocket" && token !== undefined && getToken !== undefined) {
      const send = (message: Outgoing) => connection.send(message);
      this.#renewal = new Renewal(token, async () => getToken(), send, this.logger);
    }
    this.#conversation.opened(connection);
  }

  #received(message: Incoming): void {
    if (!this.#renewal?.received(message)) this.#conversation.received(message);
  }

  #advanced(isSettled: boolean): void {
    const { transport } = this.#connection ?? {};
    // Over HTTP nothing is open before the first answer.
    if (transport === undefined || !this.#connector.isOpen) return;
    this.#setState({ name: isSettled ? "open" : "resuming", transport });
  }

  #confirmed(): void {
    // Once for each connection, so that a later failure can undo it.
    if (!this.#wasConfirmed) this.#backoff.reset();
    this.#wasConfirmed = true;
  }

  /** Opens another connection, on which a subscription can resume. */
  #replace(): void {
    const reason = new ConnectionError("REPLACED", "a subscription resumes on a new connection");
    this.#drop();
    this.#waitShortly(reason);
  }

  #lost(error: ConnectionError): void {
    this.#drop();
    this.#log(error);
    // What cannot be decoded will probably come again after each confirmation.
    if (error.code === "UNREADABLE") this.#backoff.undoReset();
    const next = nextAfterClose(error.closeCode ?? 0, error.closeReason ?? "");
    switch (next.kind) {
      case "never":
        this.#stop(error);
        break;
      case "at once":
        this.#waitShortly(error);
        break;
      case "after":
        this.#relayAskedToWait = true;
        this.#wait(error, next.ms);
        break;
      case "backoff":
        this.#relayAskedToWait = next.afterMs > 0;
        this.#wait(error, next.afterMs + this.#backoff.next());
        break;
    }
  }

  #log(error: ConnectionError): void {
    const { code } = error;
    if (code === "UNREADABLE") {
      this.logger.error("sidewire: the connection is given up", error);
    } else if (code === "WEBSOCKET_FAILED") {
      // Without the cause, whose text may have the token.
      this.logger.error(`sidewire: ${error.message}`);
    } else if (code === "TOKEN_REFUSED" || code === "ORIGIN_REFUSED" || code === "NO_ANSWER") {
      this.logger.warn("sidewire: there is no connection", error);
    } else {
      this.logger.debug("sidewire: there is no connection", error);
    }
  }

  /** Connects at once, but for what would become a loop: without any progress it waits. */
  #waitShortly(reason: ConnectionError): void {
    this.#relayAskedToWait = false;
    this.#wait(reason, this.#wasConfirmed ? 0 : this.#backoff.next());
  }

  #wait(reason: ConnectionError, ms: number): void {
    const { failures } = this.#backoff;
    if (isOffline()) this.#pause ??= "OFFLINE";
    this.#waitsUntil = Date.now() + ms;
    const retryAt = this.#pause === undefined ? this.#waitsUntil : undefined;
    clearTimeout(this.#timer);
    if (retryAt !== undefined || this.#relayAskedToWait) {
      this.#timer = setTimeout(() => this.#waited(), ms);
    }
    this.#setState({ name: "waiting", reason, retryAt, failures });
  }

  #waited(): void {
    this.#relayAskedToWait = false;
    if (this.#pause === undefined) void this.#open();
  }

  /** Forgets the connection, and whatever is under way. */
  #drop(): void {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#renewal?.stop();
    this.#renewal = undefined;
    this.#connector.close();
    this.#connection = undefined;
    this.#conversation.closed();
  }

  #stop(reason: ConnectionError): void {
    this.#drop();
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#relayAskedToWait = false;
    this.#setState({ name: "closed", reason });
  }

  #wokeUp(): void {
    if (this.#connection !== undefined) {
      this.#connector.probe();
      return;
    }
    if (this.#state.name !== "waiting" || this.#pause === "PAGE_HIDDEN" || isOffline()) return;
    this.#endPause();
  }

  #wentOffline(): void {
    // An open connection may survive; the heartbeat finds out.
    if (this.#state.name !== "waiting" || this.#pause !== undefined) return;
    const reason = new ConnectionError("OFFLINE", "the browser is offline");
    this.#pause = "OFFLINE";
    if (!this.#relayAskedToWait) clearTimeout(this.#timer);
    this.#setState({ ...this.#state, reason, retryAt: undefined });
  }

  /** An open connection would keep the page out of the back/forward cache. */
  #pageHidden(): void {
    const { name } = this.#state;
    if (name === "idle" || name === "closed") return;
    this.#pause = "PAGE_HIDDEN";
    if (this.#relayAskedToWait) return;
    this.#drop();
    this.#wait(new ConnectionError("PAGE_HIDDEN", "the page is hidden"), 0);
  }

  #pageShown(): void {
    if (this.#pause !== "PAGE_HIDDEN") return;
    if (isOffline()) this.#pause = "OFFLINE";
    else this.#endPause();
  }

  /** Connects at once, unless the relay has asked to wait. */
  #endPause(): void {
    this.#pause = undefined;
    if (!this.#relayAskedToWait) void this.#open();
    else if (this.#state.name === "waiting") {
      this.#setState({ ...this.#state, retryAt: this.#waitsUntil });
    }
  }

  #setState(state: ConnectionState): void {
    const saysMore = state.name === "waiting" || state.name === "closed";
    const isSame =
      state.name === this.#state.name && transportOf(state) === transportOf(this.#state);
    if (isSame && !saysMore) return;
    this.#state = state;
    this.#emitter.emit("state", state);
  }
}

/** Returns the transports to use, the best one first; throws a `TypeError` if they cannot be used. */
function transportsOf(
  wanted: readonly TransportName[] | undefined,
  { jsonReader }: Codec,
): readonly TransportName[] {
  // The binary codec may have nothing that reads JSON.
  const usable = jsonReader === undefined ? TRANSPORTS.slice(0, 1) : TRANSPORTS;
  if (wanted === undefined) return usable;
  const transports = usable.filter((it) => wanted.includes(it));
  if (wanted.length === 0 || transports.length < new Set(wanted).size) {
    throw new TypeError(`the possible transports are ${usable.join(", ")}`);
  }
  return transports;
}

function transportOf(state: ConnectionState): TransportName | undefined {
  return "transport" in state ? state.transport : undefined;
}
