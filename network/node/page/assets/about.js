// about.js lists the facts of this node and its plan: the state that its kernel is to have.

import { byId, element, setText } from "./dom.js";
import { age, count, duration } from "./format.js";

let drawn = "";

export function drawAbout({ report }) {
  const both = (dual) => Object.values(dual ?? {}).join(", ") || "–";
  const facts = [
    ["Version", report.version],
    ["Interface", `${report.interface}, UDP port ${report.port}, MTU ${report.mtu} bytes`],
    ["Pod subnets", `${both(report.subnets)} of ${both(report.networks)}`],
    ["Announced", both(report.endpoints)],
    ["Uplink", both(report.uplinks)],
    ["Engine", withReason(report.engine)],
    ["Firewall", `${withReason(report.firewall)}; guard ${report.firewall.guard}`],
    ["etcd", report.store.up ? `answers, revision ${report.store.revision}` : `away: ${report.store.error ?? ""}`],
    ["Key", report.publicKey],
  ];
  const shape = JSON.stringify(facts);
  if (shape === drawn) return;
  drawn = shape;
  list(byId("about"), facts.map(([name, text]) => [name, [text]]));
}

const withReason = ({ kind, reason }) => (reason ? `${kind} (${reason})` : kind);

export function drawPlan(plan) {
  if (!plan) return;
  const made = plan.made.length ? `made ${count(plan.made.length, "change")}` : "found nothing to change";
  const text = plan.error ? `The last pass was incomplete: ${plan.error}` : `The last pass, ${duration(age(plan.at))} ago, ${made}.`;
  setText(byId("plan-summary"), plan.parts.length ? `What the kernel is to have. ${text}` : "No plan yet: the node has no lease.");
  list(byId("plan"), plan.parts.map(({ part, lines }) => [part, lines]));
}

// list fills a description list: a term with a line for each text.
function list(node, entries) {
  node.replaceChildren(...entries.flatMap(([name, texts]) => [element("dt", {}, name), ...texts.map((text) => element("dd", {}, text))]));
}
