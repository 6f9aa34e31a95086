/**
 * Opens connections: on a WebSocket, or over HTTP while only that works. Then it tries the WebSocket again
 * beside it, and moves over. It is loaded when the relay does not answer on a WebSocket.
 */

import type { EnvelopeReader, Incoming } from "../codec.js";
import {
  type Connector,
  type ConnectorOptions,
  type ConnectorOwner,
  isAnswer,
  openWebSocket,
} from "../connector.js";
import { ConnectionError } from "../errors.js";
import type { Connection, ConnectionOwner, TransportName } from "../transport.js";
import { EventStreamConnection } from "./event_stream.js";
import { PollConnection } from "./poll.js";
import { TransportChoice } from "./transport_choice.js";

/** The WebSocket is tried for the first time soon, since an outage may just have ended. */
const FIRST_TRIAL_MS = 2_000;
const TRIAL_INTERVAL_MS = 60_000;

/** Opens connections over all transports. */
export class HttpConnector implements Connector {
  token: string | undefined;
  readonly #options: ConnectorOptions;
  readonly #owner: ConnectorOwner;
  readonly #choice: TransportChoice;
  #reader: EnvelopeReader | undefined;
  #connection: Connection | undefined;
  /** A WebSocket that is tried beside the connection. */
  #trial: Connection | undefined;
  #trialTimer: ReturnType<typeof setTimeout> | undefined;
  /** When the next trial is due, which connections that end soon do not put off. */
  #trialDueAt = Infinity;
  /** Counts connections, so that what belongs to an earlier one is ignored. */
  #count = 0;
  #hasAnswered = false;
  /** Why the WebSocket failed, while other transports are tried. */
  #error: ConnectionError | undefined;

  constructor(options: ConnectorOptions, owner: ConnectorOwner) {
    this.#options = options;
    this.#owner = owner;
    this.#choice = new TransportChoice(options.transports);
  }

  get isOpen(): boolean {
    return this.#connection?.transport === "websocket" || this.#hasAnswered;
  }

  /** Goes on with an attempt in which the WebSocket failed with `error`, or begins the first attempt. */
  goOn(token: string | undefined, error: ConnectionError | undefined): void {
    this.token = token;
    if (error === undefined) this.#begin(this.#choice.first());
    else this.#ended("websocket", error);
  }

  open(token: string | undefined): void {
    this.close();
    this.token = token;
    this.#begin(this.#choice.first());
  }

  probe(): void {
    this.#connection?.probe();
    if (this.#trialTimer !== undefined) this.#tryWebSocketAfter(0);
  }

  close(): void {
    this.#drop();
    this.#error = undefined;
  }

  #begin(transport: TransportName): void {
    const owner = this.#nextOwner(transport);
    if (transport === "websocket") {
      this.#connection = openWebSocket(this.#options, this.token, owner);
    } else void this.#connect(transport, owner);
  }

  /** Returns the owner of the next connection. */
  #nextOwner(transport: TransportName): ConnectionOwner {
    this.#count += 1;
    const count = this.#count;
    const isCurrent = () => count === this.#count;
    return {
      opened: () => isCurrent() && this.#connection && this.#owner.opened(this.#connection),
      received: (message) => isCurrent() && this.#received(transport, message),
      ended: (error) => isCurrent() && this.#ended(transport, error),
      reopenWanted: () => isCurrent() && this.#owner.reopenWanted(),
    };
  }

  async #connect(transport: TransportName, owner: ConnectionOwner): Promise<void> {
    const { url, codec } = this.#options;
    const count = this.#count;
    try {
      this.#reader ??= await codec.jsonReader?.();
    } catch (cause) {
      owner.ended(new ConnectionError("LOST", "what reads JSON cannot be loaded", { cause }));
    }
    const read = this.#reader;
    if (count !== this.#count || read === undefined) return;
    const options = { url, token: () => this.token, read, owner };
    const Transport = transport === "sse" ? EventStreamConnection : PollConnection;
    this.#connection = new Transport(options);
    owner.opened();
  }

  #received(transport: TransportName, message: Incoming): void {
    if (!this.#hasAnswered) {
      this.#hasAnswered = true;
      this.#error = undefined;
      this.#choice.answered(transport);
      if (this.#choice.mayImprove) {
        this.#tryWebSocketAfter(Math.min(FIRST_TRIAL_MS, this.#trialDueAt - Date.now()));
      } else this.#trialDueAt = Infinity;
    }
    this.#owner.received(message);
  }

  #ended(transport: TransportName, error: ConnectionError): void {
    const hadAnswered = this.#hasAnswered;
    const earlier = this.#error;
    this.#drop();
    if (hadAnswered) this.#choice.lost(transport, error.code);
    // Over HTTP it only means that a request was refused.
    else if (isAnswer(error)) this.#choice.refused(transport);
    else {
      const next = this.#choice.unanswered(transport, error.code);
      this.#error = earlier ?? error;
      if (next !== undefined) {
        this.#begin(next);
        return;
      }
    }
    this.#error = undefined;
    this.#owner.ended(isAnswer(error) ? error : (earlier ?? error));
  }

  /** Tries the WebSocket beside the present connection. */
  #tryWebSocketAfter(ms: number): void {
    clearTimeout(this.#trialTimer);
    const jittered = ms * (0.9 + Math.random() / 5);
    this.#trialDueAt = Date.now() + jittered;
    this.#trialTimer = setTimeout(() => {
      this.#tryWebSocketAfter(TRIAL_INTERVAL_MS);
      this.#trial?.close();
      this.#trial = openWebSocket(this.#options, this.token, {
        // Frames have to pass in both directions.
        opened: () => this.#trial?.send({ kind: "ping" }),
        received: (message) => this.#moveToTrial(message),
        ended: () => {},
      });
    }, jittered);
  }

  #moveToTrial(message: Incoming): void {
    const trial = this.#trial;
    if (trial === undefined) return;
    this.#trial = undefined;
    this.#drop();
    this.#connection = trial;
    this.#trialDueAt = Infinity;
    trial.owner = this.#nextOwner("websocket");
    this.#owner.opened(trial);
    trial.owner.received(message);
  }

  #drop(): void {
    this.#count += 1;
    clearTimeout(this.#trialTimer);
    this.#trialTimer = undefined;
    this.#trial?.close();
    this.#trial = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    this.#hasAnswered = false;
  }
}
