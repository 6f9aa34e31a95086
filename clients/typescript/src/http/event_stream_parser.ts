/** Takes a text of server-sent events apart (HTML, 9.2.6). It may come in pieces. */

/** What stands between two empty lines. One without data is a sign of life. */
export interface ServerSentEvent {
  /** The type, `message` unless the stream names one. */
  name: string;
  /** The lines of data; undefined if there are none. */
  data: string | undefined;
  /** The id that stands beside the data; undefined if there is none. */
  id: string | undefined;
}

/** The parser of one stream. */
export class EventStreamParser {
  #line = "";
  #endedWithReturn = false;
  #event: ServerSentEvent = empty();
  #isBegun = false;

  /** Takes the next piece, and returns the events that are complete with it. */
  push(text: string): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    // A line may end with the two characters CR LF, and a piece between them.
    const piece = this.#endedWithReturn && text.startsWith("\n") ? text.slice(1) : text;
    if (text !== "") this.#endedWithReturn = text.endsWith("\r");
    const lines = piece.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== "") this.#field(line);
      else if (this.#isBegun) {
        events.push(this.#event);
        this.#event = empty();
        this.#isBegun = false;
      }
    }
    return events;
  }

  #field(line: string): void {
    this.#isBegun = true;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    const event = this.#event;
    if (name === "data") event.data = event.data === undefined ? value : `${event.data}\n${value}`;
    else if (name === "event") event.name = value;
    else if (name === "id") event.id = value;
  }
}

function empty(): ServerSentEvent {
  return { name: "message", data: undefined, id: undefined };
}
