// main.js ties the parts of the page together: the newest data comes in, each part draws it.

import { byId } from "./dom.js";
import { drawAbout, drawPlan } from "./about.js";
import { drawEvents, listenToEvents } from "./events.js";
import { drawMatrix, listenToMatrix } from "./matrix.js";
import { drawOverview } from "./overview.js";
import { drawPeers, listenToPeers } from "./peers.js";
import { drawPlots } from "./plots.js";
import { ask, follow, repeat } from "./source.js";
import { drawTopology } from "./topology.js";
import { Views } from "./views.js";

// page is all that the parts draw.
const page = {
  report: undefined, // the newest body of /status
  views: new Views(), // of all nodes, by node
  events: [], // the newest first
  family: "ipv4",
  metric: "state",
  peer: undefined, // the peer whose plots are shown
  history: undefined, // of that peer
};

const fewNodes = 6; // up to here matrix and topology stand side by side

function draw() {
  if (!page.report) return;
  document.querySelector("main").classList.toggle("few", page.views.names().length <= fewNodes);
  drawOverview(page);
  drawMatrix(page);
  drawTopology(page, choose);
  drawPeers(page, choose);
  drawAbout(page);
}

// takeReport draws a new report. The first report chooses the family and a peer.
function takeReport(report) {
  if (!page.report) begin(report);
  page.report = report;
  page.views.addOwn(report);
  draw();
}

function begin(report) {
  const families = Object.keys(report.networks ?? {});
  for (const input of byId("family").elements) {
    if (input.type === "radio") input.disabled = families.length > 0 && !families.includes(input.value);
  }
  if (families.length && !families.includes(page.family)) page.family = families[0];
  for (const input of document.getElementsByName("family")) input.checked = input.value === page.family;
}

// choose shows the plots of a peer of this node, by its name.
async function choose(name, scroll = true) {
  if (!page.report?.peers.some((peer) => (peer.node || peer.publicKey) === name)) return;
  page.peer = name;
  page.history = undefined;
  drawPeers(page, choose);
  await refreshHistory();
  if (scroll) byId("plots").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

async function refreshHistory() {
  if (!page.peer) return;
  const peer = page.peer;
  const history = await ask(`/history?peer=${encodeURIComponent(peer)}`);
  if (peer !== page.peer) return;
  page.history = history ?? page.history;
  drawPlots(page);
}

async function refreshMatrix() {
  const matrix = await ask("/matrix");
  if (!matrix) return;
  page.views.addAll(matrix);
  draw();
}

async function refreshPlan() {
  drawPlan(await ask("/plan"));
}

// The matrix asks every node of the cluster, so a large cluster is asked rarely.
const matrixPause = () => (page.views.names().length > 20 ? 15_000 : 3_000);

function start() {
  for (const input of document.getElementsByName("family")) {
    input.addEventListener("change", () => {
      page.family = input.value;
      draw();
      drawPlots(page);
    });
  }
  listenToMatrix(page, draw);
  listenToPeers(page, () => drawPeers(page, choose));
  listenToEvents(page);
  follow({
    report: takeReport,
    connected(open) {
      const live = byId("live");
      live.textContent = open ? "live" : "no answer";
      live.classList.toggle("open", open);
      if (open) page.events = []; // the stream begins with all events
    },
    event(event) {
      page.events.unshift(event);
      page.events.length = Math.min(page.events.length, 500);
      drawEvents(page);
    },
  });
  repeat(refreshMatrix, matrixPause);
  repeat(refreshHistory, () => 10_000);
  repeat(refreshPlan, () => 10_000);
}

start();
