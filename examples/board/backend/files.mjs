// The files that the backend serves: the page, and the built modules of the SDK, which a
// browser can import as they are.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("../page/", import.meta.url));
const SDK = dirname(fileURLToPath(import.meta.resolve("@sidewire/client")));

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Returns the files by the path of their URL, each with its type and content. */
export function readFiles() {
  const files = new Map([...filesIn(PAGE, "/"), ...filesIn(SDK, "/sdk/")]);
  files.set("/", files.get("/index.html"));
  return files;
}

function* filesIn(directory, prefix) {
  for (const name of readdirSync(directory, { recursive: true })) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const path = prefix + name.split(sep).join("/");
    yield [path, { type, content: readFileSync(join(directory, name)) }];
  }
}
