// The processes of the board, each on the ports that it was given, so that it can be ended
// and started again.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SERVER = fileURLToPath(new URL("../backend/server.mjs", import.meta.url));

/** A program that is ready as soon as it prints a certain text. */
export class Program {
  #command;
  #readyText;
  #process;
  /** What it has printed. */
  lines = [];

  constructor(command, readyText) {
    this.#command = command;
    this.#readyText = readyText;
  }

  static relay(sidewire, home) {
    const config = join(home, "sidewire.toml");
    return new Program([sidewire, "serve", "--config", config], "the relay is ready");
  }

  static backend(home, { page, client, ingest }) {
    const options = {
      keys: join(home, "keys"),
      data: join(home, "data"),
      relay: `ws://127.0.0.1:${client}/ws`,
      ingest: `http://127.0.0.1:${ingest}`,
      port: String(page),
    };
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
    return new Program([process.execPath, SERVER, ...args], "the board is at");
  }

  /** Starts it, and waits until it is ready. */
  async start() {
    const [file, ...args] = this.#command;
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`${file} has ended: ${this.lines.join("\n")}`)));
      for (const output of [child.stdout, child.stderr]) {
        createInterface({ input: output }).on("line", (line) => {
          this.lines.push(line);
          if (line.includes(this.#readyText)) resolve();
        });
      }
    });
  }

  /** Sends a signal that does not end it. */
  signal(name) {
    this.#process.kill(name);
  }

  /** Sends a signal, and waits until it has ended. */
  async end(signal = "SIGTERM") {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}

/** Returns ports on which nothing listens. */
export async function freePorts(names) {
  const servers = names.map(() => createServer());
  const ports = {};
  for (const [index, server] of servers.entries()) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ports[names[index]] = server.address().port;
  }
  for (const server of servers) server.close();
  return ports;
}
