/** A connection that reads server-sent events with `fetch`. */

import { closeError } from "../close_codes.js";
import { ConnectionError } from "../errors.js";
import { type Position, parsePosition } from "../position.js";
import { DEAD_AFTER_MS } from "../web_socket.js";
import { decoded, HttpConnection, type Subscribe } from "./connection.js";
import { EventStreamParser, type ServerSentEvent } from "./event_stream_parser.js";
import { refusalOf } from "./refusal.js";
import { addressBeside, type EventsRequest, fetchEvents } from "./request.js";

/** A stream of events for one Subscribe. */
export class EventStreamConnection extends HttpConnection {
  readonly transport = "sse";

  protected override request({ topics, resumeFrom }: Subscribe): EventsRequest {
    const { url, token } = this.options;
    return { address: addressBeside(url, "sse"), token: token(), topics, since: resumeFrom };
  }

  protected override async follow(subscribe: Subscribe, signal: AbortSignal): Promise<void> {
    const { messageId, topics } = subscribe;
    const response = await fetchEvents(this.request(subscribe), "text/event-stream", signal);
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (!isStream || response.body === null) {
      const refusal = await refusalOf(response, messageId, topics);
      if (refusal instanceof ConnectionError) throw refusal;
      if (signal.aborted) return;
      // The session sends another Subscribe, or waits for one.
      this.close();
      this.owner.received(refusal);
      return;
    }
    const answer = new Answer(messageId);
    const parser = new EventStreamParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      if (answer.hasCome) this.expectWithin(DEAD_AFTER_MS);
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        this.#received(event, answer);
        if (signal.aborted) return;
      }
    }
  }

  #received({ name, data, id }: ServerSentEvent, answer: Answer): void {
    if (data === undefined) {
      this.owner.received({ kind: "pong", position: positionOf(id) });
      return;
    }
    if (name === "close") throw closeErrorOf(data);
    const message = decoded(() => this.options.read(JSON.parse(data)));
    const isAnswer = message.kind === "confirmed" && message.position !== undefined;
    if (!isAnswer || answer.hasCome) {
      this.owner.received(message);
      return;
    }
    answer.hasCome = true;
    this.expectWithin(DEAD_AFTER_MS);
    this.owner.received({ ...message, requestMessageId: answer.requestMessageId });
  }
}

/** The confirmation of the Subscribe that the request stands for; it names no message id. */
class Answer {
  hasCome = false;

  constructor(readonly requestMessageId: string) {}
}

/** Returns the position that an id names: `<epoch>:<offset>`. */
function positionOf(id: string | undefined): Position | undefined {
  const [epoch, offset] = id?.split(":") ?? [];
  return parsePosition({ epoch, offset });
}

/** Returns the error for the event with which the relay ends a stream. */
function closeErrorOf(data: string): ConnectionError {
  const { code, reason } = JSON.parse(data) as { code?: unknown; reason?: unknown };
  return closeError(Number(code), String(reason ?? ""));
}
