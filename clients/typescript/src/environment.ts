/**
 * What the environment says about the network and the machine: the browser's events, and a timer
 * that notices that the machine has slept. Outside of browsers only the timer is there.
 */

/** How often the timer looks at the clock. */
const TICK_MS = 5_000;
/** A clock that is this much later than it should be has slept. */
const ASLEEP_MS = 10_000;

/** What the owner is told. */
export interface EnvironmentOwner {
  /** The network is back, the page is looked at again, or the machine woke up. */
  wokeUp(): void;
  /** The browser says that there is no network. */
  wentOffline(): void;
  /** The page is left; it may come back from the back/forward cache. */
  pageHidden(): void;
  /** The page came back. */
  pageShown(): void;
}

/** Returns true if the browser says that there is no network. */
export function isOffline(): boolean {
  return globalThis.navigator?.onLine === false;
}

/** Watches the environment until the function that is returned is called. */
export function watchEnvironment(owner: EnvironmentOwner): () => void {
  const stops = [watchClock(() => owner.wokeUp())];
  const listen = (target: EventTarget | undefined, name: string, react: () => void) => {
    if (typeof target?.addEventListener !== "function") return;
    target.addEventListener(name, react);
    stops.push(() => target.removeEventListener(name, react));
  };
  const page: EventTarget = globalThis;
  listen(page, "online", () => owner.wokeUp());
  listen(page, "offline", () => owner.wentOffline());
  listen(page, "pagehide", () => owner.pageHidden());
  listen(page, "pageshow", () => owner.pageShown());
  const { document } = globalThis;
  listen(document, "visibilitychange", () => {
    if (document.visibilityState === "visible") owner.wokeUp();
  });
  return () => {
    for (const stop of stops) stop();
  };
}

function watchClock(wokeUp: () => void): () => void {
  let last = Date.now();
  const timer = setInterval(() => {
    const slept = Date.now() - last - TICK_MS;
    last = Date.now();
    if (slept >= ASLEEP_MS) wokeUp();
  }, TICK_MS);
  // In Node, a client that is closed or idle must not keep the process alive by this timer.
  (timer as { unref?: () => void }).unref?.();
  return () => clearInterval(timer);
}
