// views.js keeps what each node says of its peers, and the throughput between two answers.

import { nameOf, pathOf } from "./state.js";

// Views is the newest row of every node: the peers as that node sees them.
export class Views {
  #rows = new Map(); // by node: { error, at, peers: Map of peer by node, rates: Map of { received, sent } by node }
  #own = "";

  // addOwn takes the report of this node.
  addOwn(report) {
    this.#own = report.node;
    this.#add(report.node, report.peers, Date.now());
  }

  // addAll takes the body of /matrix. This node's own row comes from its reports.
  addAll(matrix) {
    for (const name of matrix.nodes ?? []) {
      if (!this.#rows.has(name)) this.#rows.set(name, { error: "no answer yet", peers: new Map(), rates: new Map() });
    }
    for (const row of matrix.rows ?? []) {
      if (row.node === this.#own) continue;
      if (row.error) this.#rows.set(row.node, { error: row.error, peers: new Map(), rates: new Map() });
      else this.#add(row.node, row.peers ?? [], Date.parse(row.at));
    }
    const known = new Set([...(matrix.nodes ?? []), this.#own]);
    for (const name of this.#rows.keys()) {
      if (!known.has(name)) this.#rows.delete(name);
    }
  }

  #add(name, peers, at) {
    const before = this.#rows.get(name);
    if (before?.at === at) return;
    const row = { error: "", at, peers: new Map(), rates: new Map() };
    for (const peer of peers) {
      const key = nameOf(peer);
      row.peers.set(key, peer);
      const last = before?.peers.get(key);
      const speed = last && speedOf(last, peer, (at - before.at) / 1000);
      if (speed) row.rates.set(key, speed);
    }
    this.#rows.set(name, row);
  }

  // own returns the name of this node.
  own() {
    return this.#own;
  }

  // names lists all nodes: those with a row and those that a row names.
  names() {
    const names = new Set(this.#rows.keys());
    for (const row of this.#rows.values()) for (const peer of row.peers.keys()) names.add(peer);
    return [...names].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  }

  // error returns why a node gave no row, or "".
  error(name) {
    return this.#rows.get(name)?.error ?? "not asked";
  }

  // cell returns the path from one node to another as the first node sees it, or undefined
  // when it is not known.
  cell(from, to, family) {
    const peer = this.#rows.get(from)?.peers.get(to);
    return peer && pathOf(peer, family);
  }

  // rate returns the bytes per second between two nodes, as either of them counts.
  rate(a, b) {
    const speed = this.#rows.get(a)?.rates.get(b) ?? this.#rows.get(b)?.rates.get(a);
    return speed ? speed.received + speed.sent : 0;
  }

  // speed returns the bytes per second between this node and a peer, or undefined.
  speed(peer) {
    return this.#rows.get(this.#own)?.rates.get(peer);
  }
}

// speedOf returns the bytes per second between two views of a peer. Counters that fell belong
// to another engine, and tell nothing.
function speedOf(before, now, seconds) {
  const bytes = (name) => (now[name] ?? 0) - (before[name] ?? 0);
  const [received, sent] = [bytes("receivedBytes"), bytes("sentBytes")];
  return seconds > 0 && received >= 0 && sent >= 0 ? { received: received / seconds, sent: sent / seconds } : undefined;
}
