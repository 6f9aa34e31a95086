/** The built package in a real browser, as ES modules without a bundler. */

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Publisher } from "../../src/publisher.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { routingTable, TestRelay } from "../support/relay.js";

const DIST = new URL("../../dist/", import.meta.url);

const PAGE = `<!doctype html>
<title>Sidewire</title>
<pre id="events"></pre>
<pre id="present"></pre>
<script type="module">
  import { json, Sidewire } from "/dist/index.js";
  const settings = new URLSearchParams(location.hash.slice(1));
  const table = await (await fetch("/table")).json();
  const relay = new Sidewire(settings.get("url"), {
    getToken: () => settings.get("token"),
    schema: json(table),
  });
  const show = (state) => { document.body.dataset.state = state; };
  relay.on("state", (state) => {
    show(state.name === "waiting" ? "waiting " + state.reason.code : state.name);
    document.body.dataset.transport = state.transport;
  });
  const orders = relay.subscribe(["order:7"], {
    onGap: () => { events.textContent += "gap\\n"; },
  });
  orders.on("event", (event) => { events.textContent += event.payload.type + "\\n"; });
  const room = relay.presence("room:1", {
    onChange: () => { present.textContent = [...room.users("presence").keys()].join(); },
  });
  room.set("presence", { type: "looking", topics: ["room:1"] });
</script>`;

let server: TestRelay;
let proxy: FaultyProxy;
let pages: Server;
let browser: Browser;
let page: Page;
let publisher: Publisher;

beforeAll(async () => {
  server = await TestRelay.start({ presence: 'linger = "200ms"' });
  proxy = await FaultyProxy.start(server.clientPort);
  publisher = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: server.key });
  pages = createServer(async ({ url = "" }, response) => {
    if (url === "/table") {
      response.setHeader("Content-Type", "application/json").end(JSON.stringify(routingTable()));
      return;
    }
    if (!url.startsWith("/dist/")) {
      response.setHeader("Content-Type", "text/html").end(url === "/page" ? PAGE : "elsewhere");
      return;
    }
    const script = await readFile(new URL(url.slice("/dist/".length), DIST));
    response.setHeader("Content-Type", "text/javascript").end(script);
  });
  await new Promise<void>((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const executablePath = execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  browser = await chromium.launch({
    executablePath,
    // So that a page that is left is kept, as it is for people.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
  page = await openPage("ann");
}, 120_000);

afterAll(async () => {
  await browser?.close();
  pages?.close();
  pages?.closeAllConnections();
  await proxy?.stop();
  await server?.stop();
});

async function openPage(user: string): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", console.error);
  const token = server.token(user);
  const settings = new URLSearchParams({ url: `ws://127.0.0.1:${proxy.port}/ws`, token });
  await page.goto(`${origin()}/page#${settings}`);
  return page;
}

const origin = () => `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
const post = (type: string) =>
  publisher.publish("acme", { event: { type } }, { topics: ["order:7"] });
const untilState = (state: string) =>
  page.locator(`body[data-state="${state}"]`).waitFor({ state: "attached" });
/** Waits until a page is open over this transport. */
const untilOver = (page: Page, transport: string) =>
  page
    .locator(`body[data-state="open"][data-transport="${transport}"]`)
    .waitFor({ state: "attached" });

async function untilEvents(...types: string[]): Promise<void> {
  await untilEventsIn(page, ...types);
}

async function untilEventsIn(page: Page, ...types: string[]): Promise<void> {
  const expected = types.map((type) => `${type}\n`).join("");
  await page.waitForFunction(
    (length) => (document.querySelector("#events")?.textContent ?? "").length >= length,
    expected.length,
  );
  expect(await page.locator("#events").textContent()).toBe(expected);
}

test("an event arrives", async () => {
  await untilState("open");
  await post("1");
  await untilEvents("1");
});

test("what was missed while offline arrives at once when it is online again", async () => {
  await page.context().setOffline(true);
  proxy.refuse();
  await untilState("waiting LOST");
  await post("2");
  proxy.allow();
  await page.context().setOffline(false);
  await untilState("open");
  await untilEvents("1", "2");
});

test("a page in the back/forward cache has no connection, and resumes when it is back", async () => {
  await page.goto(`${origin()}/elsewhere`);
  await post("3");
  // A page that comes from there is not loaded again.
  await page.goBack({ waitUntil: "commit" });
  await untilEvents("1", "2", "3");
});

test("two pages see each other, and one that is closed is gone", async () => {
  const untilPresent = (page: Page, users: string) =>
    page.locator("#present").getByText(users, { exact: true }).waitFor({ state: "attached" });
  const other = await openPage("bob");
  await untilPresent(other, "ann");
  await untilPresent(page, "bob");
  await other.close();
  await untilPresent(page, "");
});

test.each([
  ["sse", /^upgrade: websocket/im],
  ["poll", /^upgrade: websocket|^GET \/sse/im],
])(
  "a page without a WebSocket uses %s, and the WebSocket as soon as it can",
  async (transport, blocked) => {
    proxy.block(blocked);
    const [ann, bob] = await Promise.all([openPage("ann"), openPage("bob")]);
    await Promise.all([ann, bob].map((it) => untilOver(it, transport)));
    await post("a");
    await Promise.all([ann, bob].map((it) => untilEventsIn(it, "a")));
    // A page that is left has no request under way, and resumes when it is back.
    await ann.goto(`${origin()}/elsewhere`);
    await post("b");
    await ann.goBack({ waitUntil: "commit" });
    await Promise.all([ann, bob].map((it) => untilEventsIn(it, "a", "b")));
    await untilOver(ann, transport);
    proxy.block(undefined);
    await ann.context().setOffline(true);
    await ann.context().setOffline(false);
    await untilOver(ann, "websocket");
    await post("c");
    await Promise.all([ann, bob].map((it) => untilEventsIn(it, "a", "b", "c")));
    await Promise.all([ann.close(), bob.close()]);
  },
);
