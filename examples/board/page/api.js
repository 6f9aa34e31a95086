// The calls of the backend.

// After this time a call has failed, and what it was to change is shown as it was.
const TIMEOUT_MS = 10_000;

/** Calls the backend and returns its answer; throws an `Error` that can be shown to the user. */
export async function call(method, path, body) {
  const init = { method, signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const answer = await fetch(path, init).catch(() => {
    throw new Error("the backend does not answer");
  });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error ?? `the backend answers ${answer.status}`);
  return content;
}
