/** What a response means that does not bring events. */

import { closeError } from "../close_codes.js";
import type { Refused } from "../codec.js";
import { ConnectionError } from "../errors.js";

/** The relay refuses topics, or ends the connection. */
export type Refusal = Refused | ConnectionError;

interface Problem {
  readonly code: string;
  readonly detail?: unknown;
  readonly field?: unknown;
}

/** Returns what a response to a request for these topics means. */
export async function refusalOf(
  response: Response,
  requestMessageId: string,
  topics: readonly string[],
): Promise<Refusal> {
  const { status } = response;
  const problem = await problemIn(response);
  if (problem === undefined || status === 404 || status === 405) {
    const whose = problem === undefined ? "something else than the relay" : "the relay";
    const text = `${whose} has answered with ${status}, and brings no events`;
    return new ConnectionError("NOT_OFFERED", text);
  }
  const detail = typeof problem.detail === "string" ? problem.detail : "";
  // Whatever else is wrong with a request, its topics are not.
  const isAboutTopics = status === 403 || (status === 400 && problem.field === "topic");
  if (isAboutTopics && topics.length > 0) {
    const number = /^topic ([0-9]+) /.exec(detail)?.[1];
    return {
      kind: "refused",
      requestMessageId,
      errorCode: problem.code,
      errorMessage: detail,
      fieldName: number === undefined ? undefined : topicField(Number(number) - 1),
      retryAfterMs: undefined,
    };
  }
  const delay = retryAfterMs(response);
  const reason = delay === undefined ? problem.code : `${problem.code} retry_after_ms=${delay}`;
  // A refused handshake on a WebSocket has the same codes.
  return closeError(4000 + status, reason);
}

/** Returns the refusal of a topic that the client itself cannot ask for. */
export function noRoomFor(index: number, requestMessageId: string): Refused {
  return {
    kind: "refused",
    requestMessageId,
    errorCode: "VALIDATION_ERROR",
    errorMessage: "without a WebSocket there is no room in a request for so many topics",
    fieldName: topicField(index),
    retryAfterMs: undefined,
  };
}

/** Returns the delay that a response asks for. */
export function retryAfterMs(response: Response): number | undefined {
  const seconds = response.headers.get("retry-after");
  return seconds !== null && /^[0-9]+$/.test(seconds) ? Number(seconds) * 1_000 : undefined;
}

/** Returns the problem document of a relay. */
async function problemIn(response: Response): Promise<Problem | undefined> {
  if (!response.headers.get("content-type")?.startsWith("application/problem+json")) {
    return undefined;
  }
  const problem: Problem | undefined = await response.json();
  return typeof problem?.code === "string" ? problem : undefined;
}

function topicField(index: number): string {
  return `subscribe.topics[${index}]`;
}
