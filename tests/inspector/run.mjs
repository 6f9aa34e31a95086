// Drives the inspector in a headless Chromium against relays of its own. Run by scripts/browser.
//
//   node run.mjs SIDEWIRE CHROMIUM MODULES SCRATCH
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

import { connectClients, postSteadily, startDev, startServe } from "./scene.mjs";

const [sidewire, executablePath, modules, scratch] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "/"))("playwright-core");

// Maximum time of the browser for one step, and of the whole run, in ms.
const PATIENCE = 15_000;
const DEADLINE = 150_000;
// The rate at which the page must say that it samples, and stay quick.
const FLOOD = 10_000;
// Maximum time from a key press to the view that it opens, while the flood goes on, in ms.
const RESPONSE_MAX = 1_000;

const PHONE = { width: 375, height: 720 };
const DESKTOP = { width: 1180, height: 820 };

const ending = [];

async function main() {
  setTimeout(() => fail(new Error(`not done after ${DEADLINE / 1000} s`)), DEADLINE).unref();
  const browser = await chromium.launch({ executablePath, timeout: PATIENCE });
  ending.push(() => browser.close());
  const relay = await startDev(sidewire, join(scratch, "dev"), ["--bundled", "generic"]);
  ending.push(relay.stop);
  const clients = await browser.newPage();
  await connectClients(clients, relay, [
    { tenant: "acme", user: "ann", topics: ["room:1", "room:2"] },
    { tenant: "acme", user: "bob", topics: ["room:1"] },
    { tenant: "globex", user: "eve", topics: ["room:1"] },
  ]);
  await withThePage(browser, relay);
  await withoutTheKey(browser);
}

/**
 * Opens a page whose every request, error and violation of the policy is recorded. With `hasClock`
 * its timers follow `page.clock`.
 */
async function openPage(browser, url, { hasClock = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  if (hasClock) {
    await page.clock.install();
  }
  const seen = { foreign: [], errors: [] };
  const { origin } = new URL(url);
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) {
      seen.foreign.push(request.url());
    }
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => {
    // Chromium logs every answer that is not 2xx.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      seen.errors.push(message.text());
    }
  });
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  return { page, seen, isClean: () => assert.deepEqual(seen, { foreign: [], errors: [] }) };
}

const heading = (page, text) => page.locator("h1", { hasText: text }).waitFor();
const open = async (page, view, text) => {
  await page.locator("nav a", { hasText: text }).click();
  await heading(page, view);
};
const post = (relay, type, data, topic = "room:1") =>
  relay.post("acme", `events?topic=${encodeURIComponent(topic)}`, JSON.stringify({ event: { type, data } }));

async function withThePage(browser, relay) {
  const { page, isClean } = await openPage(browser, relay.url);

  await step("the page opens with the key of the URL, and takes it out", async () => {
    await heading(page, "Overview");
    await page.locator("#status.live").waitFor();
    assert.equal(await page.evaluate(() => location.hash), "#/overview");
    assert.equal(await page.title(), "Overview – Sidewire inspector");
  });

  await step("the overview shows rates, connections and latency of live events", async () => {
    const tile = (name) => page.locator(".tile", { hasText: name }).locator("dd > span");
    await tile("Connections").filter({ hasText: /^3$/ }).waitFor();
    const steady = postSteadily(() => post(relay, "made", { n: 1 }), 50, 1);
    await tile("Events in").filter({ hasText: /^(4|5)\d/ }).waitFor();
    await tile("Deliveries").filter({ hasText: /^(8|9|10)\d/ }).waitFor();
    await page.locator("rect.bar-mark:not(.empty)").first().waitFor();
    await page.locator("polyline.line").nth(1).waitFor();
    await page.getByText(/last minute: half ≤ .* 99 % ≤/).waitFor();
    await steady.stop();
  });

  await step("rates are also shown when the answers come slowly", async () => {
    const rate = await page.evaluate(async () => {
      const { History } = await import("/inspect/overview.js");
      const history = new History();
      history.add({ at_ms: 1_000, accepted_total: 7 });
      history.add({ at_ms: 11_000, accepted_total: 57 });
      return history.rate((it) => it.accepted_total);
    });
    assert.equal(rate, 5);
  });

  await step("tenants lead to their connections and topics", async () => {
    await open(page, "Tenants", "Tenants");
    await page.locator("tbody tr").nth(1).waitFor();
    await page.getByLabel("Search").fill("cm");
    await page.locator("tbody tr:only-child a", { hasText: "acme" }).click();
    await heading(page, "acme");
    await page.locator("td", { hasText: /^bob$/ }).waitFor();
    await page.locator("tr", { hasText: "room:1" }).locator("td", { hasText: /^2$/ }).waitFor();
    await page.getByLabel("Topic", { exact: true }).fill("room:2");
    await page.locator("td", { hasText: /^bob$/ }).waitFor({ state: "detached" });
    await page.locator("td", { hasText: /^ann$/ }).waitFor();
  });

  await step("live events appear, are filtered, paused and opened", async () => {
    await page.locator("a", { hasText: "room:1" }).click();
    await heading(page, "Live");
    assert.equal(await page.getByLabel("Topic").inputValue(), "room:1");
    await post(relay, "first", { n: 1 });
    const first = page.locator(".event", { hasText: '"type":"first"' });
    await first.waitFor();
    await page.getByLabel("Filter").fill("second");
    await first.waitFor({ state: "hidden" });
    await post(relay, "second", { n: 2 });
    const second = page.locator(".event:visible", { hasText: "second" });
    await second.waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await post(relay, "third", {});
    await page.getByLabel("Filter").fill("");
    await first.waitFor();
    await second.click();
    await second.locator("pre", { hasText: '"n": 2' }).waitFor();
    assert.equal(await page.locator(".event", { hasText: '"type":"third"' }).count(), 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.locator(".event", { hasText: '"type":"third"' }).waitFor();
  });

  await step("an event is shown once, also if the view is paused and goes on while it is asked for", async () => {
    const events = /\/tenants\/acme\/events\?/;
    let letPass;
    const mayPass = new Promise((resolve) => { letPass = resolve; });
    await new Promise((held) => {
      page.route(events, async (route) => {
        held();
        await mayPass;
        await route.continue();
      });
    });
    await post(relay, "once", {});
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume" }).click();
    letPass();
    await post(relay, "last", {});
    await page.locator(".event", { hasText: '"type":"last"' }).first().waitFor();
    await page.unroute(events);
    assert.equal(await page.locator(".event", { hasText: '"type":"once"' }).count(), 1);
  });

  await step("a hostile event of 64 KiB is shown as text", async () => {
    const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>\u202Eevil\u2066\u0000`;
    await post(relay, hostile, { text: `</pre><b>bold</b>${"x".repeat(64 * 1024)}` });
    const event = page.locator(".event").first();
    await event.locator("summary", { hasText: "large" }).click();
    const whole = event.locator("pre");
    await whole.filter({ hasText: "</pre><b>bold</b>" }).waitFor();
    const text = await whole.textContent();
    assert.ok(text.includes("<img src=x onerror=") && text.includes("<script>"), text.slice(0, 300));
    assert.ok(text.includes("\\u{202e}evil\\u{2066}"), text.slice(0, 300));
    assert.ok(!/[\u202E\u2066]/.test(await page.locator("#view").textContent()));
    assert.equal(await page.locator("#view img, #view script, #view b").count(), 0);
    assert.notEqual(await page.title(), "owned");
    // What a client or a backend chooses as a name is text too.
    await relay.post("<i>tenant\u202E</i>", "events?topic=room:1", JSON.stringify({ event: { type: "x" } }));
    await open(page, "Tenants", "Tenants");
    await page.locator("tbody a", { hasText: "<i>tenant\\u{202e}</i>" }).click();
    await heading(page, "<i>tenant");
    assert.equal(await page.locator("#view i").count(), 0);
  });

  await step("an event is explained, and one that is refused too", async () => {
    await open(page, "Explain", "Explain");
    await page.getByLabel("Tenant").fill("acme");
    await page.getByLabel("Further topics").fill("room:1 room:2");
    await page.getByLabel("Event", { exact: true }).fill('{"event":{"type":"x"}}');
    await page.getByRole("button", { name: "Explain" }).click();
    await page.getByText("2 connections", { exact: true }).waitFor();
    await page.locator("tr", { hasText: "room:2" }).first().waitFor();
    await page.locator("td", { hasText: /^ann$/ }).waitFor();
    await page.getByLabel("Further topics").fill("");
    await page.keyboard.press("Enter");
    await page.getByText("The relay would refuse this event").waitFor();
    await page.getByLabel("Example").selectOption("message");
    assert.match(await page.getByLabel("Event", { exact: true }).inputValue(), /"message": {/);
  });

  await step("an event is published from the form that its example makes", async () => {
    await open(page, "Publish", "Publish");
    await page.getByLabel("type", { exact: true }).fill("from.the.form");
    assert.match(await page.getByLabel("The whole event").inputValue(), /"type": "from\.the\.form"/);
    await page.getByLabel("Further topics").fill("room:1");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByText("It matched 2 connections.").waitFor();
    await page.getByLabel("The whole event").fill("{}");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.locator(".notice.bad").waitFor();
  });

  await step("a token is ready, and a browser connects with it", async () => {
    await open(page, "Connect", "Connect");
    const statement = page.locator("#snippet-in-the-console-of-a-browser");
    await statement.waitFor();
    await page.getByLabel("User").fill("zoe");
    const before = await statement.textContent();
    await page.getByRole("button", { name: "Make a token" }).click();
    await page.waitForFunction((old) => document.getElementById("snippet-in-the-console-of-a-browser")?.textContent !== old, before);
    const other = await browser.newPage();
    await other.evaluate((text) => { (0, eval)(text); return new Promise((resolve) => { globalThis.ws.onmessage = resolve; }); },
      await statement.textContent());
    const listed = await relay.call("tenants/acme/connections?user=zoe");
    assert.equal(listed.connections.length, 1);
    await other.close();
  });

  await step("the views are reached with the keyboard alone", async () => {
    await page.locator("#view").focus();
    await page.keyboard.press("1");
    await heading(page, "Overview");
    await page.keyboard.press("2");
    await heading(page, "Tenants");
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.type), "search");
    await page.keyboard.type("globex");
    await page.locator("tbody tr:only-child a", { hasText: "globex" }).waitFor();
    await page.keyboard.press("Tab");
    await page.waitForFunction(() => document.activeElement.textContent === "globex");
    // The list is drawn again under the focus.
    await page.waitForResponse((answer) => answer.url().includes("/tenants"));
    await page.waitForFunction(() => document.activeElement.textContent === "globex");
    await page.keyboard.press("Enter");
    await heading(page, "globex");
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("3");
    await heading(page, "Live");
    await page.keyboard.press("p");
    await page.getByRole("button", { name: "Resume" }).waitFor();
  });

  await step(`${FLOOD} events/s are sampled, which the page says, and it stays quick`, async () => {
    await page.goto(`${relay.origin}/inspect#/live?tenant=acme`);
    await page.reload();
    await heading(page, "Live");
    const batch = Buffer.from(batchOf(200));
    const flood = postSteadily(() => relay.post("acme", "events:batch", batch, "application/x-protobuf"), FLOOD, 200);
    await page.getByText(/these are the newest 50 of [1-9],?\d{3}\b/).waitFor();
    // A machine that builds at the same time may need a while to post so many.
    const posted = await rateOf(flood, FLOOD * 0.9);
    assert.ok(await page.locator(".event").count() <= 200);
    const began = performance.now();
    await page.keyboard.press("1");
    await heading(page, "Overview");
    const took = performance.now() - began;
    assert.ok(took < RESPONSE_MAX, `${took} ms`);
    await flood.stop();
    console.log(`inspector: ${Math.round(posted)} events/s were posted; the view changed within ${Math.round(took)} ms`);
  });
  isClean();
  await page.context().close();

  await withTheClock(browser, relay);

  for (const colorScheme of ["light", "dark"]) {
    await step(`a phone shows every view without scrolling sideways, ${colorScheme}`, async () => {
      const { page: phone, isClean: isPhoneClean } = await openPage(browser, relay.url, { viewport: PHONE, colorScheme });
      await heading(phone, "Overview");
      const dark = await phone.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(dark === "rgb(18, 20, 22)", colorScheme === "dark", dark);
      for (const name of ["Overview", "Tenants", "Live", "Explain", "Publish", "Connect"]) {
        await open(phone, name, name);
        await phone.locator("#status.live").waitFor();
        const width = await phone.evaluate(() => document.documentElement.scrollWidth);
        assert.equal(width, PHONE.width, name);
      }
      isPhoneClean();
      await phone.context().close();
    });
  }
}

/** A page whose time passes only when the test says so, so that its calls can be counted. */
async function withTheClock(browser, relay) {
  const { page, isClean } = await openPage(browser, relay.url, { hasClock: true });
  // Counted in the page, since the browser may report a request only after the clock has moved on.
  await page.evaluate(() => {
    const { fetch } = globalThis;
    globalThis.calls = { begun: 0, answered: 0 };
    globalThis.fetch = (...what) => {
      globalThis.calls.begun += 1;
      return fetch(...what).finally(() => { globalThis.calls.answered += 1; });
    };
  });
  const begun = () => page.evaluate(() => globalThis.calls.begun);
  /** Lets so many seconds pass, each once every call is answered. Returns how many calls it made. */
  const pass = async (seconds) => {
    const before = await begun();
    for (let passed = 0; passed < seconds; passed++) {
      await page.waitForFunction(() => globalThis.calls.begun === globalThis.calls.answered);
      await page.clock.runFor(1_000);
    }
    return await begun() - before;
  };
  await page.locator("#status.live").waitFor();
  await page.clock.pauseAt(Date.now() + 3_600_000);

  await step("a key that is pasted into the URL of an open tab does not make it ask twice as often", async () => {
    const before = await begun();
    await page.evaluate((key) => { location.hash = key; }, new URL(relay.url).hash);
    // For the session, and for the first sample.
    await page.waitForFunction((count) => globalThis.calls.begun === count, before + 2);
    const made = await pass(10);
    assert.ok(made > 0 && made <= 10, `${made} calls in 10 s`);
  });

  await step("a page that nobody sees asks for nothing", async () => {
    const show = (isHidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, isHidden);
    await show(true);
    assert.equal(await pass(60), 0);
    const before = await begun();
    await show(false);
    assert.equal(await begun(), before + 1);
  });
  isClean();
  await page.context().close();
}

/** A relay outside `dev`: the page asks for the key and does not offer to publish. */
async function withoutTheKey(browser) {
  const relay = await startServe(sidewire, join(scratch, "serve"));
  ending.push(relay.stop);
  const { page, isClean } = await openPage(browser, `${relay.origin}/inspect`);
  await step("without the key the page shows nothing and asks for it", async () => {
    await heading(page, "The key of the inspector");
    assert.equal(await page.locator("nav a").count(), 0);
    await page.keyboard.type("wrong-key-of-the-inspector");
    await page.keyboard.press("Enter");
    await page.getByText("This is not the inspector's key").waitFor();
    await page.getByLabel("Key").fill(relay.key);
    await page.keyboard.press("Enter");
    await heading(page, "Overview");
    assert.deepEqual(await page.locator("nav a").allTextContents(), ["Overview", "Tenants", "Live", "Explain"]);
    await page.goto(`${relay.origin}/inspect#/publish`);
    await heading(page, "Overview");
  });
  isClean();
  await step("a page of another site can neither read nor frame it", async () => {
    const other = await browser.newPage();
    await other.route("http://evil.example/", (route) => route.fulfill({ contentType: "text/html", body: "<p>evil" }));
    await other.goto("http://evil.example/");
    const outcome = await other.evaluate(async ([origin, key]) => {
      const read = (init) => fetch(`${origin}/inspect/api/overview`, init).then(() => "read", () => "refused");
      const frame = document.createElement("iframe");
      frame.src = `${origin}/inspect`;
      document.body.append(frame);
      await new Promise((resolve) => { frame.onload = resolve; });
      let framed;
      try {
        framed = frame.contentDocument?.body?.textContent ?? "refused";
      } catch {
        framed = "refused";
      }
      return [await read({}), await read({ headers: { Authorization: `Bearer ${key}` } }), framed];
    }, [relay.origin, relay.key]);
    assert.deepEqual(outcome, ["refused", "refused", "refused"]);
    await other.close();
  });
}

/** Waits for 3 s in which at least so many events per second were posted, and returns how many. */
async function rateOf(flood, least) {
  const deadline = performance.now() + 2 * PATIENCE;
  for (;;) {
    const [began, before] = [performance.now(), flood.posted()];
    await new Promise((resolve) => { setTimeout(resolve, 3_000); });
    const rate = (flood.posted() - before) / ((performance.now() - began) / 1000);
    if (rate >= least) {
      return rate;
    }
    assert.ok(performance.now() < deadline, `only ${Math.round(rate)} events/s were posted`);
  }
}

/** Returns a BatchUpdate of so many events of the generic schema, as Protocol Buffers. */
function batchOf(events) {
  const text = (field, value) => [(field << 3) | 2, value.length, ...new TextEncoder().encode(value)];
  // topics = 18, event = 32 with type = 1.
  const payload = text(1, "flood");
  const envelope = [0x92, 0x01, 7, ...new TextEncoder().encode("flood:1"), 0x82, 0x02, payload.length, ...payload];
  return Array.from({ length: events }, () => [0x0a, envelope.length, ...envelope]).flat();
}

async function step(name, run) {
  const began = performance.now();
  try {
    await run();
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
  console.log(`inspector: ${name} (${Math.round(performance.now() - began)} ms)`);
}

async function end() {
  for (const stop of ending.splice(0).reverse()) {
    await stop();
  }
}

async function fail(error) {
  console.error(`inspector: ${error.stack ?? error}`);
  await end();
  process.exit(1);
}

main().then(end, fail);
