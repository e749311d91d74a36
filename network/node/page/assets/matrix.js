// matrix.js draws who reaches whom: a table for few nodes, a picture for many.

import { byId, element, setText } from "./dom.js";
import { age, count, duration, mtu, share } from "./format.js";
import { Picture } from "./picture.js";
import { describe, isBad, states, tally } from "./state.js";

const mostInTable = 32; // nodes
const roomy = 10; // nodes: up to here a cell has two lines
const mostPairs = 20;
const manyViews = 4; // nodes that see the same fault of a node: from here they share a line

let picture; // of a large cluster
let drawn = ""; // what the table shows, so that it is replaced only when it changes

export function listenToMatrix(page, redraw) {
  for (const input of document.getElementsByName("metric")) {
    input.addEventListener("change", () => {
      page.metric = input.value;
      redraw();
    });
  }
  const items = Object.entries(states).map(([state, { sign, text }]) =>
    element("li", { class: `state ${state}` }, element("b", {}, `${sign} ${state}`), ` ${text}`));
  byId("legend").replaceChildren(...items);
}

export function drawMatrix(page) {
  const names = page.views.names();
  const cells = [];
  for (const from of names) {
    for (const to of names) {
      const path = from !== to && page.views.cell(from, to, page.family);
      if (path) cells.push({ from, to, path });
    }
  }
  const silent = names.filter((name) => page.views.error(name) !== "");
  const missing = silent.length ? `; no answer of ${count(silent.length, "node")}` : "";
  setText(byId("matrix-summary"), `${count(names.length, "node")}, ${count(cells.length, "path")}: ${describe(tally(cells.map((c) => c.path)))}${missing}. A row is the view of its node.`);
  if (names.length > mostInTable) drawPicture(page, names);
  else drawTable(page, names);
  drawPairs(cells);
}

function drawTable(page, names) {
  picture = undefined;
  const rows = names.map((from) => names.map((to) => cellOf(page, from, to)));
  const shape = JSON.stringify([names, page.metric, rows]);
  if (shape === drawn) return;
  drawn = shape;
  const heads = names.map((name) => element("th", { scope: "col" }, element("span", {}, name)));
  const body = rows.map((row, i) => element("tr", {}, element("th", { scope: "row" }, names[i]), ...row.map((cell) => tableCell(cell, names.length))));
  const table = element("table", { class: names.length > roomy ? "matrix tight" : "matrix" },
    element("caption", { class: "hidden" }, "Paths from the node of the row to the node of the column"),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, element("span", { class: "hidden" }, "from \\ to")), ...heads)),
    element("tbody", {}, ...body));
  byId("matrix-body").replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "matrix-title" }, table));
}

// cellOf returns the state and the text of a cell.
function cellOf(page, from, to) {
  if (from === to) return { state: "self", text: "·" };
  const path = page.views.cell(from, to, page.family);
  if (!path || path.state === "none") return { state: "none", text: "–", title: page.views.error(from) || "no such path" };
  return { state: path.state, text: valueOf(path, page.metric), more: page.metric === "state" ? duration(path.rttP50Seconds) : path.state, title: describePath(from, to, path) };
}

function tableCell(cell, nodes) {
  const known = states[cell.state];
  const td = element("td", { class: cell.state, title: cell.title });
  if (nodes > roomy && known && cell.text === cell.state) {
    td.append(known.sign, element("span", { class: "hidden" }, cell.state));
    return td;
  }
  td.append(cell.text);
  if (nodes <= roomy && cell.more) td.append(element("small", {}, cell.more));
  return td;
}

function drawPicture(page, names) {
  drawn = "";
  picture ??= new Picture(byId("matrix-body"));
  picture.draw({
    names,
    metric: page.metric,
    cell: (from, to) => (from === to ? undefined : page.views.cell(from, to, page.family)),
    describe: (from, to) => {
      if (from === to) return from;
      const path = page.views.cell(from, to, page.family);
      return path ? describePath(from, to, path) : `${from} → ${to}\n${page.views.error(from) || "no such path"}`;
    },
  });
}

// drawPairs lists the paths with a fault.
function drawPairs(cells) {
  const faults = groupFaults(cells);
  byId("pairs")?.remove();
  if (!faults.length) return;
  const rows = faults.slice(0, mostPairs).map(({ name, path }) => element("tr", {},
    element("th", { scope: "row" }, name),
    element("td", {}, element("span", { class: `state ${path.state}` }, path.state)),
    element("td", { class: "number" }, path.since ? duration(age(path.since)) : "–"),
    element("td", {}, path.reason ?? "")));
  const rest = faults.length - rows.length;
  byId("matrix-body").append(element("div", { id: "pairs", class: "scroll", tabindex: "0", role: "region", "aria-label": "Paths with a fault" },
    element("table", {},
      element("thead", {}, element("tr", {}, ...["Path", "State", "For", "Reason"].map((text) => element("th", { scope: "col", class: text === "For" ? "number" : undefined }, text)))),
      element("tbody", {}, ...rows)),
    rest > 0 ? element("p", { class: "summary" }, `and ${rest} more`) : ""));
}

// groupFaults returns the faults of paths, the faults that many nodes see first. Several nodes
// that see the same state of a node share a line, and so do both directions of a pair.
function groupFaults(cells) {
  const seen = new Map(); // faults by the node at the other end and the state
  for (const cell of cells) {
    if (!isBad(cell.path.state)) continue;
    const key = `${cell.to} ${cell.path.state}`;
    seen.set(key, [...(seen.get(key) ?? []), cell]);
  }
  const out = [], pairs = new Map();
  for (const group of seen.values()) {
    const { to, path } = group[0];
    if (group.length >= manyViews) out.push({ name: `${group.length} nodes → ${to}`, path, weight: group.length });
    else for (const cell of group) {
      const pair = pairs.get([cell.from, to].sort().join(" "));
      if (pair?.path.state === cell.path.state) pair.name = pair.name.replace("→", "↔");
      else pairs.set([cell.from, to].sort().join(" "), { name: `${cell.from} → ${to}`, path: cell.path, weight: 1 });
    }
  }
  return [...out, ...pairs.values()].sort((a, b) => b.weight - a.weight);
}

function valueOf(path, metric) {
  if (path.state === "unknown" && metric !== "state") return "–";
  switch (metric) {
    case "rtt": return duration(path.rttP50Seconds);
    case "loss": return share(path.loss);
    case "mtu": return mtu(path.mtu);
  }
  return path.state;
}

// describePath returns all that is known of a path, for a tip.
function describePath(from, to, path) {
  const lines = [`${from} → ${to}`, `${path.state}${path.since ? ` for ${duration(age(path.since))}` : ""}${path.reason ? `: ${path.reason}` : ""}`];
  if (path.rttP50Seconds) lines.push(`round trip ${duration(path.rttP50Seconds)}, p99 ${duration(path.rttP99Seconds)}`);
  lines.push(`loss ${share(path.loss)}, MTU ${mtu(path.mtu)}`);
  return lines.join("\n");
}
