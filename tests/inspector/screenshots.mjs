// Makes the screenshots of docs/inspector.md. Run by scripts/screenshots.
//
//   node screenshots.mjs SIDEWIRE CHROMIUM MODULES SCRATCH DIRECTORY
import { createRequire } from "node:module";
import { join } from "node:path";

import { connectClients, postSteadily, startDev } from "./scene.mjs";

const [sidewire, executablePath, modules, scratch, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "/"))("playwright-core");

const DESKTOP = { width: 1120, height: 760 };
const PHONE = { width: 390, height: 760 };
/** Time for which the charts fill, in ms. */
const FILLING = 118_000;
const USERS = ["alice", "bob", "carla", "deniz", "emma", "farid", "grace", "hugo"];
const TENANTS = [["acme", 18], ["globex", 9], ["initech", 6], ["umbrella", 3], ["hooli", 2]];

const relay = await startDev(sidewire, join(scratch, "dev"));
const browser = await chromium.launch({ executablePath });
try {
  const schema = await relay.call("schema");
  const posted = schema.filter((it) => !it.client_publish).map((it) => it.example);
  const clients = TENANTS.flatMap(([tenant, count]) => Array.from({ length: count }, (_, index) => ({
    tenant,
    user: USERS[index % USERS.length],
    topics: ["project:project-1", `sprint:sprint-${index % 4}`, `work_item:work_item-${index}`],
  })));
  const others = await browser.newPage();
  await connectClients(others, relay, clients);

  // Not quite steady, so that the charts look like those of a real relay.
  const wave = () => 1 + Math.sin(performance.now() / 9_000) / 2 + Math.random() / 3;
  const steady = postSteadily(async (number) => {
    const events = Array.from({ length: Math.max(1, Math.round(6 * wave())) },
      (_, index) => posted[(number + index) % posted.length]);
    const [tenant] = TENANTS[Math.random() < 0.6 ? 0 : Math.floor(Math.random() * TENANTS.length)];
    await relay.post(tenant, "events:batch", JSON.stringify({ messages: events }));
  }, 20, 1);

  const context = async (colorScheme, viewport) => {
    const made = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: 1, reducedMotion: "reduce" });
    // The path of the program is that of whoever makes the pictures.
    await made.route("**/inspect/api/session", async (route) => {
      const response = await route.fetch();
      const json = await response.json();
      json.dev.program = "sidewire";
      await route.fulfill({ response, json });
    });
    const page = await made.newPage();
    await page.goto(relay.url);
    await page.locator("#status.live").waitFor();
    return page;
  };
  const [light, dark, phone] = await Promise.all([
    context("light", DESKTOP), context("dark", DESKTOP), context("light", PHONE),
  ]);
  const shoot = (page, name) => page.screenshot({ path: join(directory, `${name}.png`) });
  const go = async (page, hash, ready) => {
    await page.evaluate((to) => { location.hash = to; }, hash);
    await page.locator(ready).first().waitFor({ state: "attached" });
    await page.mouse.move(0, 0);
  };

  await light.waitForTimeout(FILLING);
  await shoot(light, "overview");
  await shoot(dark, "overview-dark");
  await shoot(phone, "phone");

  await go(light, "#/tenants", "tbody tr");
  await shoot(light, "tenants");
  await go(light, "#/tenants/acme", "section:nth-of-type(2) tbody tr");
  await shoot(light, "tenant");

  await go(dark, "#/live?tenant=acme", ".event");
  await dark.waitForTimeout(3_000);
  await dark.keyboard.press("p");
  await dark.locator(".event").nth(3).click();
  await dark.locator(".event pre").waitFor();
  await dark.evaluate(() => scrollTo(0, 0));
  await shoot(dark, "live");

  await go(light, "#/explain", "option:nth-of-type(2)");
  await light.getByLabel("Example").selectOption("work_item_moved");
  await light.getByRole("button", { name: "Explain" }).click();
  await light.locator("#who-title").waitFor();
  await light.setViewportSize({ width: DESKTOP.width, height: 1180 });
  await shoot(light, "explain");
  await light.setViewportSize(DESKTOP);

  await go(light, "#/publish", ".fields input");
  await light.getByRole("button", { name: "Publish" }).click();
  await light.locator("h2.good").waitFor();
  await light.setViewportSize({ width: DESKTOP.width, height: 900 });
  await shoot(light, "publish");
  await light.setViewportSize(DESKTOP);

  await go(light, "#/connect", "#snippet-in-a-terminal");
  await shoot(light, "connect");
  await steady.stop();
} finally {
  await browser.close();
  relay.stop();
}
