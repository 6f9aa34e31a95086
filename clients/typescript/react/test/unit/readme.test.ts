// @vitest-environment node
/** The types of the README's examples. */

import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { extractExamples } from "../support/readme.js";

let folder: string;

beforeAll(() => {
  folder = extractExamples("example-types");
});
afterAll(() => rmSync(folder, { recursive: true }));

test("the examples have no type errors", () => {
  expect(readdirSync(folder)).toEqual(["app.tsx", "since.tsx"]);
  const config = { extends: "../../tsconfig.json", include: ["*.tsx"] };
  writeFileSync(`${folder}/tsconfig.json`, JSON.stringify(config));
  const tsc = spawnSync("npx", ["tsc", "--project", folder], { encoding: "utf8" });
  expect(tsc.stdout).toBe("");
  expect(tsc.status).toBe(0);
}, 60_000);
