/** A relay of the real program, on free ports and with keys of its own. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { RoutingTable } from "../../src/index.js";

const SIDEWIRE =
  process.env.SIDEWIRE ??
  fileURLToPath(new URL("../../../../target/debug/sidewire", import.meta.url));

/** Keys of the config beyond those that every test needs, as TOML. */
export interface RelayConfig {
  readonly limits?: string;
  readonly presence?: string;
  readonly replay?: string;
}

interface Addresses {
  readonly client: string;
  readonly ingest: string;
}

/** Returns the routing table of the schema `generic`. */
export function routingTable(): RoutingTable {
  const args = ["schema", "--bundled", "generic", "--format", "json"];
  return JSON.parse(execFileSync(SIDEWIRE, args, { encoding: "utf8" }));
}

/** A relay with the schema `generic`. */
export class TestRelay {
  readonly key = randomBytes(32).toString("hex");
  readonly #secret = randomBytes(32).toString("hex");
  readonly #directory = mkdtempSync(join(tmpdir(), "sidewire-client-"));
  readonly #config: RelayConfig;
  #process: ChildProcess | undefined;
  #addresses: Addresses = { client: "127.0.0.1:0", ingest: "127.0.0.1:0" };

  private constructor(config: RelayConfig) {
    this.#config = config;
    writeFileSync(join(this.#directory, "jwt.secret"), this.#secret, { mode: 0o600 });
    writeFileSync(join(this.#directory, "ingest.key"), this.key, { mode: 0o600 });
  }

  static async start(config: RelayConfig = {}): Promise<TestRelay> {
    const relay = new TestRelay(config);
    await relay.#spawn();
    return relay;
  }

  /** The port of the client listener. */
  get clientPort(): number {
    return Number(this.#addresses.client.split(":")[1]);
  }

  /** The port of the ingest listener. */
  get ingestPort(): number {
    return Number(this.#addresses.ingest.split(":")[1]);
  }

  /** Returns a token for a user of the tenant acme. */
  token(user: string, claims: Record<string, unknown> = {}): string {
    const exp = Math.floor(Date.now() / 1000) + 3600;
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const head = part({ alg: "HS256", typ: "JWT" });
    const signed = `${head}.${part({ tenant_id: "acme", user_id: user, exp, ...claims })}`;
    return `${signed}.${createHmac("sha256", this.#secret).update(signed).digest("base64url")}`;
  }

  /** Writes a file that is removed with the relay, and returns its path. */
  file(name: string, content: string): string {
    const path = join(this.#directory, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  }

  /** Closes all connections of a user with 4002. */
  async disconnect(user: string): Promise<void> {
    const url = `http://${this.#addresses.ingest}/v1/tenants/acme/users/${user}/connections`;
    const headers = { Authorization: `Bearer ${this.key}` };
    const answer = await fetch(url, { method: "DELETE", headers });
    if (!answer.ok) throw new Error(await answer.text());
  }

  /** Kills the relay and starts it again on the same ports: its log begins a new epoch. */
  async restart(): Promise<void> {
    await this.kill();
    await this.#spawn();
  }

  async kill(): Promise<void> {
    const relay = this.#process;
    this.#process = undefined;
    if (relay === undefined || relay.exitCode !== null) return;
    const exited = once(relay, "exit");
    relay.kill("SIGKILL");
    await exited;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true });
  }

  async #spawn(): Promise<void> {
    const config = join(this.#directory, "sidewire.toml");
    writeFileSync(
      config,
      `
[client]
listen = "${this.#addresses.client}"
[auth]
leeway = "0s"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[schema]
bundled = "generic"
[limits]
user_burst = 100000
tenant_burst = 100000
${this.#config.limits ?? ""}
[presence]
${this.#config.presence ?? ""}
[replay]
${this.#config.replay ?? ""}
[ingest]
listen = "${this.#addresses.ingest}"
[[ingest.keys]]
name = "test"
key_file = "ingest.key"
[ops]
listen = "127.0.0.1:0"
[log]
format = "json"
`,
    );
    const relay = spawn(SIDEWIRE, ["serve", "--config", config], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#process = relay;
    // Whatever ends the tests ends the relay.
    process.once("exit", () => relay.kill("SIGKILL"));
    const lines = createInterface({ input: relay.stderr });
    const log: string[] = [];
    this.#addresses = await new Promise<Addresses>((resolve, reject) => {
      relay.on("error", reject);
      relay.on("exit", () => reject(new Error(`the relay ended: ${log.join("\n")}`)));
      lines.on("line", (line) => {
        if (log.length < 100) log.push(line);
        const fields = JSON.parse(line).fields ?? JSON.parse(line);
        if (fields.message === "the relay is ready") resolve(fields);
      });
    });
  }
}
