// A fleet of agents that are not there: it keeps what each director would see, does what the
// controller wants of it, and posts reports as agents do.

const VIP = "10.99.0.1";
const SWITCH = "10.0.0.1";

export const declaration = (directors, servers) => ({
  director: directors.map((name, n) => ({ name, router_id: `10.0.1.${n + 2}` })),
  switch: [{ name: "sw1", router_id: SWITCH }],
  vip: [{ address: VIP }],
  service: [
    {
      vip: VIP,
      protocol: "tcp",
      port: 80,
      flags: ["mh-fallback", "mh-port"],
      check: { type: "http", path: "/healthz" },
      real_server: servers.map((address) => ({ address })),
    },
  ],
});

export class Fleet {
  #api;
  #started = Date.now();
  #timer;
  #busy = false;
  #told = new Set();

  // `api(method, path, body)` speaks for the agents.
  constructor(api, cluster, names, servers) {
    this.#api = api;
    this.cluster = cluster;
    this.servers = servers;
    this.directors = names.map((name, n) => ({
      name,
      routerId: `10.0.1.${n + 2}`,
      desired: null,
      silent: false,
      active: 3000 + n,
      sequence: 0,
      // Addresses that this director's checks find down.
      down: new Set(),
      // The digest that its kernel has in the place of the expected one.
      digest: null,
      since: new Date(this.#started - 1_092_000).toISOString(),
    }));
  }

  director(name) {
    return this.directors.find((director) => director.name === name);
  }

  // Reports four times a second; a drain then takes about as long as with real agents. What the
  // controller refuses is shown with the tests, once for each message.
  async start() {
    await this.report();
    this.#timer = setInterval(() => {
      if (this.#busy) return;
      this.#busy = true;
      this.report()
        .catch((error) => this.#tell(error))
        .finally(() => (this.#busy = false));
    }, 250);
  }

  stop() {
    clearInterval(this.#timer);
  }

  // The controller may be down, as in the test that stops it.
  #tell({ message }) {
    if (!this.#told.has(message)) console.log(`a report failed: ${message}`);
    this.#told.add(message);
  }

  // Every director reports once, after it took over what is wanted of it.
  async report() {
    const talking = this.directors.filter((director) => !director.silent);
    for (const director of talking) await this.#fetchDesired(director);
    for (const director of talking) {
      const path = `/api/v1/clusters/${this.cluster}/directors/${director.name}/observed`;
      await this.#api("POST", path, this.#observed(director));
    }
  }

  // The first event of the stream is the present state; that is all that is needed here.
  async #fetchDesired(director) {
    const path = `/api/v1/clusters/${this.cluster}/directors/${director.name}/desired`;
    const response = await this.#api("GET", path, undefined, {
      "isopath-router-id": director.routerId,
      "isopath-instance": `instance-${director.name}`,
    });
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of response.body) {
      text += decoder.decode(chunk, { stream: true });
      const data = /^data: ?(.*)\n\n/ms.exec(text);
      if (data) {
        director.desired = JSON.parse(data[1].split("\n")[0]);
        break;
      }
    }
  }

  #announces(director) {
    const active = director.desired?.admin_state === "active" && !director.digest;
    return active && this.servers.some((address) => !director.down.has(address));
  }

  #observed(director) {
    const now = new Date().toISOString();
    const announces = this.#announces(director);
    const healthy = this.servers.filter((address) => !director.down.has(address)).length;
    const desired = director.desired;
    director.sequence += 1;
    let reason = { code: "healthy" };
    if (desired.admin_state !== "active") reason = { code: "drained", text: desired.admin_reason };
    else if (director.digest) {
      const service = `tcp:${VIP}:80`;
      const expected = desired.digests[service];
      reason = { code: "digest-mismatch", service, expected, found: director.digest };
    } else if (!announces) {
      const service = `tcp:${VIP}:80`;
      reason = { code: "below-quorum", service, healthy, quorum: 1, of: this.servers.length };
    }
    return {
      director: director.name,
      router_id: director.routerId,
      instance: `instance-${director.name}`,
      run: "run-1",
      version: "0.1.0",
      at: now,
      sequence: director.sequence,
      epoch: desired.epoch,
      generation: desired.generation,
      speaker: this.#speaker(director, announces),
      vips: [{ vip: VIP, cost: announces ? 1 : null, reason, since: director.since }],
      services: [this.#service(director, now)],
      dataplane: { kind: "ipvs", steps: 9, drift_repaired: 0, failures: [] },
    };
  }

  #speaker(director, announces) {
    const up = Date.now() - this.#started + 1_092_000;
    const announcers = this.directors.filter((d) => d.desired && this.#announces(d));
    return {
      version: "0.1.0",
      pid: 1,
      router_id: director.routerId,
      area: "0.0.0.0",
      up_ms: up,
      neighbors: [
        {
          interface: "eth1",
          router_id: SWITCH,
          address: SWITCH,
          state: "Full",
          priority: 1,
          state_ms: up,
          dead_ms: 3400,
          bfd: "Up",
        },
      ],
      announced: announces
        ? [{ vip: VIP, cost: 1, source: "agent", in_lsdb: true, acknowledged: true }]
        : [],
      withheld: [],
      owner: { state: "connected", pid: 2, silent_ms: 100 },
      announcers: { [VIP]: announcers.map((d) => d.routerId) },
      counters: {},
    };
  }

  #service(director, now) {
    const stats = (connections_per_second) => ({
      connections: 1_000_000,
      in_packets: 0,
      out_packets: 0,
      in_bytes: 0,
      out_bytes: 0,
      connections_per_second,
      in_packets_per_second: 0,
    });
    const share = Math.floor(director.active / this.servers.length);
    return {
      service: `tcp:${VIP}:80`,
      stats: stats(301),
      digest: director.digest ?? director.desired.digests[`tcp:${VIP}:80`],
      real_servers: this.servers.map((address) => {
        const ok = !director.down.has(address);
        return {
          real_server: `${address}:80`,
          health: ok ? "up" : "down",
          since: director.since,
          last_check: {
            ok,
            detail: ok ? "HTTP 200" : "TCP refused",
            took_ms: 2,
            in_a_row: 3,
            at: now,
          },
          weight: 1,
          effective_weight: ok ? 1 : 0,
          active: share,
          inactive: 12,
          stats: stats(100),
        };
      }),
    };
  }
}
