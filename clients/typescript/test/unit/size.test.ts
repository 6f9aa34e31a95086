/** What a page has to load. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

/** Returns the modules of a page that imports these entry points, and their size in bytes. */
async function bundle(...entries: string[]) {
  const result = await build({
    stdin: {
      contents: entries.map((it) => `export * from "./${it}.js";`).join("\n"),
      resolveDir: fileURLToPath(new URL("../../src", import.meta.url)),
    },
    bundle: true,
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
  const { modules, bytes } = await bundle("index");
  expect(bytes).toBeLessThan(12 * 1024);
  expect(modules.filter((it) => it.includes("node_modules"))).toEqual([]);
});

test("with Protocol Buffers a page loads at most 21 KB", async () => {
  const { modules, bytes } = await bundle("index", "protobuf");
  expect(bytes).toBeLessThan(21 * 1024);
  expect(modules.some((it) => it.includes("node_modules/@bufbuild/protobuf"))).toBe(true);
});
