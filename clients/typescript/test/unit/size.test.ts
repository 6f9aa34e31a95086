/** What a page has to load. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

/** What is loaded only while WebSockets do not pass. */
const WITHOUT_WEB_SOCKET = "./http/connector.js";

/** Returns the modules that these entry points load at first, and their size in bytes. */
async function bundle(entries: string[], external = [WITHOUT_WEB_SOCKET]) {
  const result = await build({
    stdin: {
      contents: entries.map((it) => `export * from "./${it}.js";`).join("\n"),
      resolveDir: fileURLToPath(new URL("../../src", import.meta.url)),
    },
    bundle: true,
    external,
    minify: true,
    format: "esm",
    platform: "browser",
    write: false,
    metafile: true,
  });
  const text = result.outputFiles[0]?.contents ?? new Uint8Array();
  return {
    modules: Object.keys(result.metafile.inputs),
    bytes: gzipSync(text, { level: 9 }).length,
  };
}

test("with JSON a page loads at most 12 KB, and nothing of another package", async () => {
  const { modules, bytes } = await bundle(["index"]);
  expect(bytes).toBeLessThan(12 * 1024);
  expect(modules.filter((it) => it.includes("node_modules"))).toEqual([]);
  expect(modules.filter((it) => it.includes("/http/"))).toEqual([]);
});

test("without a WebSocket it loads at most 4 KB more, of no other package", async () => {
  const { bytes } = await bundle(["index"]);
  const whole = await bundle(["index"], []);
  expect(whole.bytes - bytes).toBeLessThan(4 * 1024);
  expect(whole.modules.filter((it) => it.includes("node_modules"))).toEqual([]);
  expect(whole.modules.some((it) => it.includes("/http/"))).toBe(true);
});

test("with Protocol Buffers a page loads at most 21 KB", async () => {
  const { modules, bytes } = await bundle(["index", "protobuf"]);
  expect(bytes).toBeLessThan(21 * 1024);
  expect(modules.some((it) => it.includes("node_modules/@bufbuild/protobuf"))).toBe(true);
  expect(modules.filter((it) => it.includes("json.ts"))).toEqual(["src/json.ts"]);
});
