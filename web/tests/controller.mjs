// A controller of its own for the tests: a database in a new folder, a free loopback port.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const USER = "mia";
export const PASSWORD = "correct horse battery";

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Controller {
  #program;
  #folder = mkdtempSync(join(tmpdir(), "isopath-pages-"));
  #child = null;
  #log = "";
  tokens = {};

  constructor(program) {
    this.#program = program;
    // Whatever ends this process ends the controller too.
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
    process.on("exit", () => {
      this.#child?.kill("SIGKILL");
      rmSync(this.#folder, { recursive: true, force: true });
    });
  }

  get #database() {
    return `sqlite://${join(this.#folder, "isopath.db")}`;
  }

  async create(cluster) {
    const run = (...args) => execFileSync(this.#program, args, { encoding: "utf8" }).trim();
    const database = ["--database", this.#database];
    const file = join(this.#folder, "password");
    writeFileSync(file, PASSWORD);
    run("user", "create", USER, ...database, "--password-file", file);
    const token = (...args) => run("token", "create", ...database, ...args);
    this.tokens.operator = token("--name", "test", "--role", "operator");
    this.tokens.agent = token("--name", "agents", "--role", "agent", "--cluster", cluster);
    this.port = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
  }

  async start() {
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, "--database", this.#database];
    this.#child = spawn(this.#program, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.#child.stderr.on("data", (text) => (this.#log += text));
    for (let tries = 0; tries < 200; tries += 1) {
      if (this.#child.exitCode !== null) break;
      try {
        if ((await fetch(`${this.url}/readyz`)).ok) return;
      } catch {
        // Not listening yet.
      }
      await sleep(50);
    }
    throw new Error(`the controller did not start:\n${this.#log}`);
  }

  async stop() {
    if (!this.#child || this.#child.exitCode !== null) return;
    this.#child.kill("SIGTERM");
    await once(this.#child, "exit");
    this.#child = null;
  }

  // A caller of the API with one of the tokens.
  api(role) {
    return async (method, path, body, headers = {}) => {
      const response = await fetch(this.url + path, {
        method,
        headers: {
          authorization: `Bearer ${this.tokens[role]}`,
          "content-type": "application/json",
          ...headers,
        },
        body: body && JSON.stringify(body),
      });
      if (!response.ok) {
        throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
      }
      return response;
    };
  }
}
