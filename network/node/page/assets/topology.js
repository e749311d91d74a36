// topology.js draws the nodes on a circle and the paths between them: colour by state, width
// by throughput. Of a large cluster it draws the paths with a fault, those of this node and
// the busiest.

import { byId, drawing, setText, tip } from "./dom.js";
import { count, rate } from "./format.js";
import { isBad, worse } from "./state.js";

const radius = 300, centre = 410;
const mostPaths = 500;
const levelNames = 14; // nodes: up to here names are level, above they follow the circle

let drawn = "";

export function drawTopology(page, choose) {
  const names = page.views.names();
  const known = allPaths(page, names);
  const edges = choosePaths(page, known);
  const most = edges.reduce((max, edge) => Math.max(max, edge.rate), 0);
  const some = edges.length < known.length ? ` ${edges.length} of ${known.length} paths are drawn: those with a fault, those of this node, the busiest.` : "";
  setText(byId("topology-summary"), `${count(names.length, "node")}; the busiest path carries ${rate(most)}.${some}`);

  const shape = JSON.stringify([names, page.family, edges.map((edge) => [edge.a, edge.b, edge.state, width(edge.rate, most).toFixed(1)])]);
  if (shape === drawn) return;
  drawn = shape;
  const focused = document.activeElement?.dataset?.node;
  const places = new Map(names.map((name, i) => [name, placeOf(i, names.length)]));
  const lines = edges.map((edge) => lineOf(edge, places, most));
  const nodes = names.map((name) => nodeOf(name, places.get(name), page, edges, names.length, choose));
  const picture = drawing("svg", { viewBox: viewBox([...places.values()], names.length), class: names.length > 40 ? "many" : undefined, role: "group", "aria-label": "Nodes and the paths between them" }, ...lines, ...nodes);
  byId("topology-body").replaceChildren(picture);
  if (focused) picture.querySelector(`[data-node="${CSS.escape(focused)}"]`)?.focus();
}

// allPaths returns every pair of nodes with the worse state of its directions. A pair that no
// node knows is left out.
function allPaths(page, names) {
  const out = [];
  for (let i = 0; i < names.length; i++) {
    for (let j = i + 1; j < names.length; j++) {
      const [a, b] = [names[i], names[j]];
      const there = page.views.cell(a, b, page.family)?.state, back = page.views.cell(b, a, page.family)?.state;
      const known = [there, back].filter((state) => state && state !== "none");
      if (known.length) out.push({ a, b, state: known.reduce(worse), rate: page.views.rate(a, b) });
    }
  }
  return out;
}

// choosePaths leaves paths out when there are too many. A node that gives no view is down for
// most others: its own colour says so, and of its paths the path to this node is enough.
function choosePaths(page, edges) {
  if (edges.length <= mostPaths) return edges;
  const own = page.views.own();
  const away = (name) => page.views.error(name) !== "";
  edges = edges.filter((edge) => edge.a === own || edge.b === own || !(away(edge.a) || away(edge.b)));
  const weight = (edge) => (isBad(edge.state) ? 2e15 : 0) + (edge.a === own || edge.b === own ? 1e15 : 0) + edge.rate;
  return edges.toSorted((x, y) => weight(y) - weight(x)).slice(0, mostPaths).reverse(); // faults on top
}

function placeOf(i, n) {
  const angle = (2 * Math.PI * i) / n - Math.PI / 2;
  return { angle, x: centre + radius * Math.cos(angle), y: centre + radius * Math.sin(angle) };
}

// viewBox returns the part of the drawing that the nodes and their names take.
function viewBox(places, n) {
  const aside = 110, above = n > levelNames ? aside : 64;
  const [left, right] = [Math.min(...places.map((p) => p.x)) - aside, Math.max(...places.map((p) => p.x)) + aside];
  const [top, bottom] = [Math.min(...places.map((p) => p.y)) - above, Math.max(...places.map((p) => p.y)) + above];
  return [left, top, right - left, bottom - top].map((x) => x.toFixed(0)).join(" ");
}

// width returns the width of a line: 1 without traffic, up to 9, a step for each decade.
function width(bytes, most) {
  if (bytes < 1 || most < 1) return 1;
  return 1 + 8 * Math.max(0, 1 + Math.log10(bytes / most) / 5);
}

function lineOf(edge, places, most) {
  const from = places.get(edge.a), to = places.get(edge.b);
  const line = drawing("line", {
    x1: from.x.toFixed(1), y1: from.y.toFixed(1), x2: to.x.toFixed(1), y2: to.y.toFixed(1),
    class: edge.state, "stroke-width": width(edge.rate, most).toFixed(1), "stroke-opacity": isBad(edge.state) ? 0.95 : 0.5,
  });
  addTip(line, () => `${edge.a} – ${edge.b}\n${edge.state}, ${rate(edge.rate)}`);
  return line;
}

function nodeOf(name, place, page, edges, n, choose) {
  const own = name === page.views.own();
  const mine = edges.filter((edge) => edge.a === name || edge.b === name);
  const bad = mine.filter((edge) => isBad(edge.state));
  // A node is as good as its best path: a peer of a dead node is not to blame.
  const state = mine.length && bad.length === mine.length ? bad.map((edge) => edge.state).reduce(worse) : "up";
  const text = `${name}${own ? ", this node" : ""}: ${bad.length ? `${bad.length} of ${count(mine.length, "path")} with a fault` : "all paths well"}`;
  const group = drawing("g", { class: `node ${own ? "self" : state}`, tabindex: "0", role: "button", "aria-label": text, "data-node": name },
    drawing("circle", { cx: place.x.toFixed(1), cy: place.y.toFixed(1), r: n > 40 ? 3.5 : 9 }),
    label(name, place, n));
  addTip(group, () => text);
  group.addEventListener("click", () => choose(name));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(name);
  });
  return group;
}

function label(name, { angle, x, y }, n) {
  const away = n > 40 ? 8 : n > 6 ? 16 : 28;
  const [left, right] = [Math.cos(angle) < -0.01, Math.cos(angle) > 0.01];
  const text = name.length > 18 ? `${name.slice(0, 17)}…` : name;
  if (n <= levelNames) {
    const anchor = left ? "end" : right ? "start" : "middle";
    return drawing("text", { x: x + away * Math.cos(angle), y: y + (away + 4) * Math.sin(angle), "text-anchor": anchor, "dominant-baseline": "middle" }, text);
  }
  const turn = (angle * 180) / Math.PI + (left ? 180 : 0);
  return drawing("text", {
    transform: `translate(${(x + away * Math.cos(angle)).toFixed(1)} ${(y + away * Math.sin(angle)).toFixed(1)}) rotate(${turn.toFixed(1)})`,
    "text-anchor": left ? "end" : "start", "dominant-baseline": "middle",
  }, text);
}

function addTip(node, text) {
  node.addEventListener("pointermove", (event) => tip(text(), event.clientX, event.clientY));
  node.addEventListener("pointerleave", () => tip(""));
}
