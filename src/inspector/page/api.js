// The data calls, with the key. The key comes in the fragment of the URL, which a browser never
// sends, and is kept for this tab only.

const KEY = "sidewire-inspector-key";
const TIMEOUT = 15_000;

/** An answer other than 2xx. */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Takes the key out of the URL, if it has one, so that no bookmark and no screenshot shows it. */
export function takeKeyFromUrl() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const key = fragment.get("key");
  if (key) {
    useKey(key);
    history.replaceState(null, "", `${location.pathname}${location.search}#/overview`);
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key.trim());
}

export function hasKey() {
  return Boolean(sessionStorage.getItem(KEY));
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

/**
 * Makes a data call and returns its JSON.
 * @param {string} path the path after /inspect/api/
 * @param {{query?: Record<string, string | string[] | null | undefined>, body?: string, signal?: AbortSignal}} [options]
 */
export async function call(path, { query = {}, body, signal } = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") {
        parameters.append(name, one);
      }
    }
  }
  const suffix = parameters.size ? `?${parameters}` : "";
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const signals = [AbortSignal.timeout(TIMEOUT), signal].filter((it) => it !== undefined);
  const response = await fetch(`/inspect/api/${path}${suffix}`, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body,
    signal: AbortSignal.any(signals),
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    throw new ApiError(response.status, answer?.detail ?? `The relay answered with ${response.status}.`);
  }
  return answer;
}

/** Returns the path of a call about a tenant. */
export function tenantPath(tenant, rest = "") {
  return `tenants/${encodeURIComponent(tenant)}${rest}`;
}

/**
 * Calls `action` again and again while the page can be seen: the next time `pause()` ms after it
 * has ended, so that two calls are never under way. Returns `stop`, which ends this, and `now`,
 * which calls `action` at once, or as soon as the call under way has ended.
 * @param {(signal: AbortSignal) => Promise<void>} action
 * @param {() => number} pause
 */
export function repeat(action, pause) {
  const ended = new AbortController();
  let timer = 0;
  let isRunning = false;
  let isWanted = false;
  const run = async () => {
    if (isRunning || ended.signal.aborted || document.hidden) {
      return;
    }
    isRunning = true;
    isWanted = false;
    clearTimeout(timer);
    await action(ended.signal).catch(() => {});
    isRunning = false;
    if (!ended.signal.aborted) {
      timer = setTimeout(run, isWanted ? 0 : pause());
    }
  };
  document.addEventListener("visibilitychange", run, { signal: ended.signal });
  run();
  return {
    stop: () => {
      clearTimeout(timer);
      ended.abort();
    },
    now: () => {
      isWanted = true;
      run();
    },
  };
}
