// Answers HTTP requests: with a file, or with what a call returns as JSON. Knows nothing of
// boards.

const BODY_BYTES_MAX = 16 * 1024;

/** A request that is refused, with a status that says why. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Returns a handler for a server of `node:http`.
 *
 * @param calls Method, path and handler of each call; see `makeCalls`.
 * @param files The files by path; see `readFiles`.
 * @param relay The origin of the relay, to which pages may connect.
 */
export function makeHandler(calls, files, relay) {
  const headers = {
    "cache-control": "no-store",
    "content-security-policy":
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
      `connect-src 'self' ${relay}`,
    "x-content-type-options": "nosniff",
  };
  const send = (response, status, type, content) =>
    response.writeHead(status, { ...headers, "content-type": type }).end(content);
  const sendJson = (response, status, value) =>
    send(response, status, "application/json", JSON.stringify(value));

  return async (request, response) => {
    try {
      const path = request.url.split("?", 1)[0];
      const file = request.method === "GET" ? files.get(path) : undefined;
      if (file !== undefined) send(response, 200, file.type, file.content);
      else sendJson(response, 200, await answer(calls, request, path));
    } catch (error) {
      const status = error.status ?? 500;
      if (status === 500) console.error(`${request.method} ${request.url} has failed:`, error);
      sendJson(response, status, { error: status === 500 ? "it has failed" : error.message });
    }
  };
}

async function answer(calls, request, path) {
  for (const [method, pattern, handle] of calls) {
    const parts = method === request.method && new RegExp(`^${pattern}$`).exec(path);
    if (!parts) continue;
    const hasBody = method === "POST" || method === "PATCH";
    const body = hasBody ? await readBody(request) : undefined;
    return handle(body, ...parts.slice(1));
  }
  throw new RequestError(404, `there is no ${request.method} ${path}`);
}

/** Reads the JSON object of a request. */
async function readBody(request) {
  // A form on another site could send any other type without asking first.
  if (request.headers["content-type"] !== "application/json") {
    throw new RequestError(415, "the body is not application/json");
  }
  const parts = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) throw new RequestError(413, "the body is too large");
    parts.push(part);
  }
  try {
    return Object(JSON.parse(Buffer.concat(parts).toString()));
  } catch {
    throw new RequestError(400, "the body is not JSON");
  }
}
