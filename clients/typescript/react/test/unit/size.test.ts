// @vitest-environment node
/** What a page has to load. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

test("a page loads at most 2 KB, and nothing but React and the client", async () => {
  const result = await build({
    entryPoints: [fileURLToPath(new URL("../../src/index.ts", import.meta.url))],
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    packages: "external",
    write: false,
    metafile: true,
  });
  const { contents } = result.outputFiles[0] ?? { contents: new Uint8Array() };
  expect(gzipSync(contents, { level: 9 }).length).toBeLessThan(2 * 1024);
  const imported = Object.values(result.metafile.outputs).flatMap(({ imports }) => imports);
  expect(new Set(imported.map(({ path }) => path))).toEqual(
    new Set(["react", "react/jsx-runtime"]),
  );
});
