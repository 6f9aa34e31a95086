/** The examples of the README, as they stand there. */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const PACKAGE = join(import.meta.dirname, "../..");

/**
 * Writes the examples to files from which the names of the packages can be resolved, and returns their
 * folder, which the caller removes.
 */
export function extractExamples(folder: string): string {
  const path = join(PACKAGE, "dist", folder);
  mkdirSync(path, { recursive: true });
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  for (const [, name, code] of readme.matchAll(/```tsx (\w+)\n(.*?)```/gs)) {
    writeFileSync(`${path}/${name}.tsx`, code ?? "");
  }
  return path;
}
