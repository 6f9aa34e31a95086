// A page that stays connected over many lifetimes of its token. Part of run.mjs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as delay } from "node:timers/promises";

// How long a token is valid, and how old it is when the page replaces it.
const LIFETIME_SECONDS = 3;
const RENEW_AFTER_MS = 1_000;
// Number of lifetimes during which the page stays connected.
const LIFETIMES = 10;
// The time between two events, in ms.
const PAUSE_MS = 20;

const TOPIC = "order:renewal";

/** Runs the steps. `listen` makes a server listen and returns its address. */
export async function renewTokens({ relay, context, ending, listen, step }) {
  let minted = 0;
  const mint = () => {
    minted += 1;
    return relay.token("ann", `${LIFETIME_SECONDS}s`);
  };
  const pages = await servePage(listen, ending, mint);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  let sockets = 0;
  page.on("websocket", () => {
    sockets += 1;
  });
  const settings = new URLSearchParams({
    url: `ws://${relay.client}/ws`, topic: TOPIC, renewAfter: RENEW_AFTER_MS,
  });
  await page.goto(`http://${pages}/renewal.html#${settings}`);
  await page.locator('#status[data-state="live"]').waitFor();

  await step("a page outlives ten tokens on one connection and misses nothing", async () => {
    const end = performance.now() + LIFETIMES * LIFETIME_SECONDS * 1_000;
    let posted = 0;
    while (performance.now() < end) {
      posted += 1;
      await relay.post(TOPIC, { type: "tick", data: { number: posted } });
      await delay(PAUSE_MS);
    }
    await page.waitForFunction((count) => seen.closed || seen.numbers.length >= count, posted);
    const { numbers, renewals, closed, ...rest } = await page.evaluate(() => seen);
    assert.equal(closed, null);
    assert.deepEqual(rest.problems.concat(problems), []);
    assert.deepEqual(numbers, Array.from({ length: posted }, (_, index) => index + 1));
    assert.equal(sockets, 1);
    // It would have been closed with fewer.
    assert.ok(renewals.length >= LIFETIMES, `${renewals.length} renewals`);
    assert.ok(minted > renewals.length);
    renewals.forEach(({ expiresAt, revokedTopics, requestMessageId }, index) => {
      assert.equal(requestMessageId, `renewal-${index}`);
      assert.equal(revokedTopics, undefined);
      assert.ok(expiresAt >= (renewals[index - 1]?.expiresAt ?? 0));
    });
  });

  await step("the same page is closed with 4001 when it renews no more", async () => {
    await page.evaluate(() => stopRenewing());
    await page.locator('#status[data-state="closed"]').waitFor();
    const { closed, problems: last } = await page.evaluate(() => seen);
    assert.deepEqual(closed, { code: 4001, reason: "token expired" });
    assert.equal(last.length, 1);
    assert.equal(JSON.parse(last[0]).error.errorCode, "AUTHENTICATION_FAILED");
    assert.equal(sockets, 1);
  });
  await page.close();
}

/** Serves the page, and new tokens for it. */
async function servePage(listen, ending, mint) {
  const types = { "/renewal.html": "text/html", "/renewal.js": "text/javascript" };
  const server = createServer((request, response) => {
    if (request.method === "POST" && request.url === "/token") {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ token: mint() }));
    } else if (request.url in types) {
      response.writeHead(200, { "Content-Type": types[request.url] });
      response.end(readFileSync(new URL(`.${request.url}`, import.meta.url)));
    } else {
      response.writeHead(404).end();
    }
  });
  const address = await listen(server);
  ending.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return address;
}
