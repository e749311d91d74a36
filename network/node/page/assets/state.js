// state.js knows the states of a path and what the report of a node says in a family.

// states lists the states from good to bad, with a sign for readers who do not see colours
// and a description for the legend.
export const states = {
  up: { sign: "✓", text: "answers arrive" },
  unknown: { sign: "?", text: "not probed" },
  degraded: { sign: "~", text: "some answers are lost" },
  mtu: { sign: "▭", text: "large packets are lost" },
  "one-way": { sign: "→", text: "one direction only" },
  down: { sign: "✕", text: "nothing arrives" },
};

const order = Object.keys(states);

// worse returns the worse of two states.
export const worse = (a, b) => (order.indexOf(b) > order.indexOf(a) ? b : a);

// isBad reports whether an operator should look at a path.
export const isBad = (state) => order.indexOf(state) > order.indexOf("unknown");

// nameOf returns a peer's node name, or the start of its key.
export const nameOf = (peer) => peer.node || `${(peer.publicKey ?? "?").slice(0, 8)}…`;

// pathOf returns the path to a peer in a family; a peer without the family has the state "none".
export function pathOf(peer, family) {
  return (peer.paths ?? []).find((path) => path.family === family) ?? { family, state: "none", loss: 0 };
}

// tally counts the states of paths.
export function tally(paths) {
  const counts = {};
  for (const path of paths) {
    if (path.state in states) counts[path.state] = (counts[path.state] ?? 0) + 1;
  }
  return counts;
}

// describe lists the counts of a tally, the worst state first.
export function describe(counts) {
  const parts = [...order].reverse().filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`);
  return parts.join(", ") || "no path";
}
