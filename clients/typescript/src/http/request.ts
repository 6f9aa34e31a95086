/** The requests for events over HTTP. */

import type { Position } from "../position.js";

/** The relay takes 16 KiB of a request's head; this much of it is for what the browser adds. */
const HEAD_BYTES_MAX = 16 * 1024 - 2 * 1024;
/** Proxies take longer addresses less often. */
const URL_BYTES_MAX = 8_000;

/** What is asked for. */
export interface EventsRequest {
  /** The address without a query of the client's own. */
  readonly address: URL;
  readonly token: string | undefined;
  readonly topics: readonly string[];
  readonly since: Position | undefined;
  /** Further parameters. */
  readonly parameters?: Readonly<Record<string, string>>;
}

/** Returns the address beside that of the WebSocket: `wss://relay/ws` gives `https://relay/sse`. */
export function addressBeside(webSocketUrl: string, name: string): URL {
  const address = new URL(webSocketUrl);
  address.protocol = address.protocol === "wss:" ? "https:" : "http:";
  address.pathname = address.pathname.replace(/[^/]*$/, name);
  return address;
}

/** Returns the index of the first topic that a request has no room for; undefined if they all fit. */
export function firstWithoutRoom(request: EventsRequest): number | undefined {
  const max = Math.min(URL_BYTES_MAX, HEAD_BYTES_MAX - (request.token?.length ?? 0));
  let bytes = urlOf({ ...request, topics: [] }).length;
  const index = request.topics.findIndex((topic) => {
    bytes += parameter("topic", topic).length;
    return bytes > max;
  });
  return index < 0 ? undefined : index;
}

/** Sends the request. */
export function fetchEvents(request: EventsRequest, accept: string, signal: AbortSignal) {
  const headers: Record<string, string> = { Accept: accept };
  if (request.token !== undefined) headers.Authorization = `Bearer ${request.token}`;
  return fetch(urlOf(request), {
    headers,
    signal,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
}

function urlOf({ address, topics, since, parameters }: EventsRequest): string {
  const query = topics.map((topic) => parameter("topic", topic));
  if (since !== undefined) query.push(parameter("since", `${since.epoch}:${since.offset}`));
  for (const [name, value] of Object.entries(parameters ?? {})) query.push(parameter(name, value));
  const url = new URL(address);
  url.search = `${url.search.replace(/^\?/, "&")}${query.join("")}`.slice(1);
  return url.href;
}

/** Returns `&name=value`. */
function parameter(name: string, value: string): string {
  // A lone half of a pair cannot be encoded, and no relay takes it.
  const text = encodeURIComponent(value.replace(/\p{Surrogate}/gu, "\uFFFD"));
  return `&${name}=${text.replaceAll("%3A", ":")}`;
}
