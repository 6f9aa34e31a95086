/** A connection that asks for events again and again. */

import { closeError } from "../close_codes.js";
import { ConnectionError } from "../errors.js";
import { type Position, parsePosition } from "../position.js";
import { HANDSHAKE_MS } from "../transport.js";
import { decoded, HttpConnection, type Subscribe } from "./connection.js";
import { refusalOf, retryAfterMs } from "./refusal.js";
import { addressBeside, type EventsRequest, fetchEvents } from "./request.js";

/** The relay answers after this time, in seconds, if nothing has come. */
const WAIT_S = 25;
/** At most so many events are asked for at once. */
const EVENTS_MAX = 1_000;
/** The relay charges each request, and takes a hundred a minute of a user. */
const INTERVAL_MS = 1_000;
const EXPIRED = 4001;
const TOKEN_REFUSED = 4401;

/** The answer to a poll. */
interface Answer {
  readonly position: Position;
  readonly recovered: boolean;
  readonly events: readonly unknown[];
}

/** Polls for one Subscribe. */
export class PollConnection extends HttpConnection {
  readonly transport = "poll";

  protected override request({ topics, resumeFrom }: Subscribe): EventsRequest {
    const { url, token } = this.options;
    return {
      address: addressBeside(url, "poll"),
      token: token(),
      topics,
      since: resumeFrom,
      parameters: { wait: `${WAIT_S}s`, max: `${EVENTS_MAX}` },
    };
  }

  protected override async follow(subscribe: Subscribe, signal: AbortSignal): Promise<void> {
    const request = this.request(subscribe);
    const parameters = { ...request.parameters, wait: "0" };
    const response = await fetchEvents({ ...request, parameters }, "application/json", signal);
    if (!isAnswer(response)) {
      const { messageId, topics } = subscribe;
      const refusal = await refusalOf(response, messageId, topics);
      if (refusal instanceof ConnectionError) throw refusal;
      if (signal.aborted) return;
      // The session sends another Subscribe, or waits for one.
      this.close();
      this.owner.received(refusal);
      return;
    }
    let answer = await answerIn(response);
    if (signal.aborted) return;
    const { position, recovered, events } = answer;
    this.owner.received({
      kind: "confirmed",
      requestMessageId: subscribe.messageId,
      topics: [],
      position,
      recovered,
      replayed: events.length,
    });
    for (;;) {
      this.#pass(answer, signal);
      if (signal.aborted) return;
      await this.#pause(INTERVAL_MS, signal);
      const next = await this.#ask(subscribe, answer.position, signal);
      if (signal.aborted) return;
      if (next === undefined || !next.recovered) {
        // The next Subscribe finds out which topics are refused, and for whom events are missing.
        this.owner.reopenWanted?.();
        return;
      }
      answer = next;
    }
  }

  /** Passes on what an answer has brought. */
  #pass({ events, position }: Answer, signal: AbortSignal): void {
    for (const event of events) {
      this.owner.received(decoded(() => this.options.read(event)));
      if (signal.aborted) return;
    }
    // Up to here the relay has searched its log.
    this.owner.received({ kind: "pong", position });
  }

  /** Asks for what came after a position. Returns nothing if a topic is refused. */
  async #ask(
    subscribe: Subscribe,
    since: Position,
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    for (;;) {
      this.expectWithin(WAIT_S * 1_000 + HANDSHAKE_MS);
      const request = { ...this.request(subscribe), since };
      const response = await fetchEvents(request, "application/json", signal);
      if (isAnswer(response)) return answerIn(response);
      const refusal = await refusalOf(response, "", subscribe.topics);
      if (!(refusal instanceof ConnectionError)) return undefined;
      if (response.status !== 429) throw endOf(refusal);
      await this.#pause(retryAfterMs(response) ?? INTERVAL_MS, signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    this.expectWithin(ms + HANDSHAKE_MS);
    await new Promise<void>((resolve) => {
      const over = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", over);
        resolve();
      };
      const timer = setTimeout(over, ms);
      signal.addEventListener("abort", over);
    });
    signal.throwIfAborted();
  }
}

/** Returns what the refusal of a later poll means: the token of the first one was good. */
function endOf(refusal: ConnectionError): ConnectionError {
  const { closeCode, closeReason } = refusal;
  return closeCode === TOKEN_REFUSED ? closeError(EXPIRED, closeReason ?? "") : refusal;
}

/** Returns true unless the relay refuses, or something else answers, such as the sign-in page of a network. */
function isAnswer({ ok, headers }: Response): boolean {
  return ok && headers.get("content-type")?.startsWith("application/json") === true;
}

/** Returns the answer in a response. */
async function answerIn(response: Response): Promise<Answer> {
  const { position, recovered, events } = (await response.json()) as Record<string, unknown>;
  const parsed = parsePosition(position);
  if (parsed === undefined || !Array.isArray(events)) {
    throw new ConnectionError("NOT_OFFERED", "something else than the relay has answered");
  }
  return { position: parsed, recovered: recovered === true, events };
}
