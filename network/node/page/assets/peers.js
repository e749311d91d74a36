// peers.js draws the table of this node's peers: faults first, and a peer is chosen by its name.

import { byId, element, setText } from "./dom.js";
import { age, count, duration, mtu, rate, share } from "./format.js";
import { describe, isBad, nameOf, pathOf, tally } from "./state.js";

const mostRows = 100;

let filter = "";
const rows = new Map(); // by the peer's name

export function listenToPeers(page, redraw) {
  byId("peer-filter").addEventListener("input", (event) => {
    filter = event.target.value.trim().toLowerCase();
    if (page.report) redraw();
  });
}

export function drawPeers(page, choose) {
  const { report, family } = page;
  const all = report.peers.map((peer) => ({ peer, name: peer.node || peer.publicKey, path: pathOf(peer, family) }));
  const wanted = all.filter(({ name, path }) => name.toLowerCase().includes(filter) || path.state.includes(filter));
  wanted.sort((a, b) => isBad(b.path.state) - isBad(a.path.state) || a.name.localeCompare(b.name, "en", { numeric: true }));
  const shown = wanted.slice(0, mostRows);
  const more = shown.length < all.length ? `, ${shown.length} are shown` : "";
  setText(byId("peers-summary"), `${count(all.length, "peer")}: ${describe(tally(all.map(({ path }) => path)))}${more}.`);

  const body = byId("peer-table").tBodies[0];
  const wantedRows = shown.map((entry) => rowOf(page, entry, choose));
  for (const name of rows.keys()) if (!shown.some((entry) => entry.name === name)) rows.delete(name);
  if (wantedRows.length !== body.rows.length || wantedRows.some((row, i) => body.rows[i] !== row)) {
    const focused = document.activeElement;
    body.replaceChildren(...wantedRows);
    if (body.contains(focused)) focused.focus();
  }
}

// rowOf returns the row of a peer, the same element each time, so that the focus stays.
function rowOf(page, { peer, name, path }, choose) {
  let row = rows.get(name);
  if (!row) {
    const button = element("button", { type: "button" }, nameOf(peer));
    button.addEventListener("click", () => choose(name));
    row = element("tr", {}, element("th", { scope: "row" }, button), element("td", {}, element("span")), ...Array.from({ length: 6 }, () => element("td", { class: "number" })), element("td"));
    rows.set(name, row);
  }
  row.classList.toggle("chosen", name === page.peer);
  row.querySelector("button").setAttribute("aria-pressed", String(name === page.peer));
  const state = row.cells[1].firstChild;
  state.className = `state ${path.state}`;
  state.title = path.reason ?? "";
  const rates = page.views.speed(nameOf(peer));
  const texts = [undefined, undefined, duration(path.rttP50Seconds), path.state === "unknown" || path.state === "none" ? "–" : share(path.loss), mtu(path.mtu), duration(age(peer.lastHandshake)), rate(rates?.received), rate(rates?.sent), peer.endpoint];
  setText(state, path.state);
  texts.forEach((text, i) => text !== undefined && setText(row.cells[i], text));
  return row;
}
