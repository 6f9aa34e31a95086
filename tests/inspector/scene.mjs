// What the inspector has to show: `sidewire dev` with clients and a backend that posts. Used by the
// test in a browser and by the screenshots.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

/**
 * Starts `sidewire dev` on free ports.
 * @param {string} sidewire the program
 * @param {string} directory for its keys
 * @param {string[]} flags further flags
 */
export async function startDev(sidewire, directory, flags = []) {
  mkdirSync(directory, { recursive: true });
  const ports = ["--client-port", "0", "--ingest-port", "0", "--ops-port", "0"];
  const process_ = spawn(sidewire, ["dev", ...ports, ...flags], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, TMPDIR: directory },
  });
  const guide = [];
  const url = await new Promise((resolve, reject) => {
    process_.on("exit", (code) => reject(new Error(`sidewire dev ended with ${code}: ${guide.join("\n")}`)));
    createInterface({ input: process_.stdout }).on("line", (line) => {
      guide.push(line);
      if (line.includes(" token --tenant ")) {
        resolve(guide.find((it) => it.includes("/inspect#key=")).trim());
      }
    });
  });
  const after = (word) => guide.map((it) => it.trim()).find((it) => it.startsWith(`${word} `)).slice(word.length).trim();
  const ingest = after("backends");
  const ingestKey = readFileSync(after("ingest key"), "utf8").trim();
  const { origin, hash } = new URL(url);
  const relay = {
    url,
    origin,
    key: new URLSearchParams(hash.slice(1)).get("key"),
    client: after("clients"),
    process: process_,
    stop: () => {
      process_.removeAllListeners("exit");
      process_.kill();
    },
    /** Makes a data call of the inspector. */
    call: async (path, body, headers = {}) => {
      const answer = await fetch(`${origin}/inspect/api/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: { Authorization: `Bearer ${relay.key}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
        body,
      });
      return answer.json();
    },
    /** Returns a token. */
    token: async (tenant, user) => (await relay.call("token", JSON.stringify({ tenant, user, topics: null }))).token,
    /** Posts an event, or a batch of them, as a backend. */
    post: async (tenant, what, body, type = "application/json") => {
      const answer = await fetch(`${ingest}/v1/tenants/${encodeURIComponent(tenant)}/${what}`, {
        method: "POST",
        headers: { Authorization: `Bearer ${ingestKey}`, "Content-Type": type },
        body,
      });
      if (!answer.ok) {
        throw new Error(`the relay answered with ${answer.status}: ${await answer.text()}`);
      }
      return answer.json();
    },
  };
  return relay;
}

/** Starts a relay with a configuration of its own. Returns its ops address and its key. */
export async function startServe(sidewire, directory) {
  mkdirSync(directory, { recursive: true });
  const write = (name, text) => writeFileSync(join(directory, name), text, { mode: 0o600 });
  const key = "the-key-of-the-inspector";
  write("jwt.secret", "0123456789abcdef0123456789abcdef");
  write("inspector.key", key);
  write("sidewire.toml", `
[client]
listen = "127.0.0.1:0"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[ingest]
listen = "127.0.0.1:0"
[ops]
listen = "127.0.0.1:0"
inspector = true
inspector_key_file = "inspector.key"
[log]
format = "json"
`);
  const relay = spawn(sidewire, ["serve", "--config", join(directory, "sidewire.toml")], { stdio: ["ignore", "ignore", "pipe"] });
  const ops = await new Promise((resolve, reject) => {
    relay.on("exit", (code) => reject(new Error(`the relay ended with ${code}`)));
    createInterface({ input: relay.stderr }).on("line", (line) => {
      const fields = JSON.parse(line).fields ?? JSON.parse(line);
      if (fields.message === "the relay is ready") {
        resolve(fields.ops);
      }
    });
  });
  const stop = () => {
    relay.removeAllListeners("exit");
    relay.kill();
  };
  return { origin: `http://${ops}`, key, stop };
}

/** Connects clients from a page of the browser: each {tenant, user, topics}. */
export async function connectClients(page, relay, clients) {
  const wanted = await Promise.all(clients.map(async (it) => ({ ...it, token: await relay.token(it.tenant, it.user) })));
  await page.evaluate(([url, all]) => Promise.all(all.map(({ token, topics }) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ["sidewire.v1.protobuf", `bearer.${token}`]);
    socket.binaryType = "arraybuffer";
    (globalThis.sockets ??= []).push(socket);
    socket.onerror = () => reject(new Error("a client could not connect"));
    // The first message is the confirmation.
    socket.onmessage = resolve;
    socket.onopen = () => socket.send(new Uint8Array(subscribe(topics)));
    /** Returns an envelope with a Subscribe to topics (field 16 of field 10). */
    function subscribe(names) {
      const text = names.flatMap((name) => {
        const bytes = [...new TextEncoder().encode(name)];
        return [0x82, 0x01, bytes.length, ...bytes];
      });
      return [0x52, ...varint(text.length), ...text];
    }
    function varint(number) {
      return number < 128 ? [number] : [(number % 128) | 128, ...varint(Math.floor(number / 128))];
    }
  }))), [relay.client, wanted]);
}

/** Calls `post` so often that `perSecond` events are posted in batches of `batch`. */
export function postSteadily(post, perSecond, batch) {
  let [began, due, posted, isStopped] = [performance.now(), 0, 0, false];
  const run = (async () => {
    while (!isStopped) {
      const wait = began + (due / perSecond) * 1000 - performance.now();
      if (wait > 0) {
        await new Promise((resolve) => { setTimeout(resolve, wait); });
      } else if (wait < -1000) {
        // What a busy machine has missed is not made up for in a burst.
        [began, due] = [performance.now(), 0];
      }
      await post(posted);
      due += batch;
      posted += batch;
    }
  })();
  // A failure is that of whoever stops it.
  run.catch(() => {});
  return {
    posted: () => posted,
    stop: () => {
      isStopped = true;
      return run;
    },
  };
}
