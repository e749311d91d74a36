// overview.js draws the verdict, the facts in a line, and the problems with their remedies.

import { byId, element, setText } from "./dom.js";
import { age, count, duration } from "./format.js";
import { isBad, nameOf } from "./state.js";

const mostProblems = 12;

export function drawOverview({ report }) {
  const bad = report.peers.filter((peer) => isBad(peer.state));
  const problems = listProblems(report, bad);
  const { level, text } = verdict(report, bad, problems);
  byId("overview").className = level;
  setText(byId("verdict"), text);
  setText(byId("node"), report.node);
  setText(byId("facts"), facts(report).join(" · "));
  document.title = `${level === "good" ? "" : "(!) "}${report.node} · Loden`;
  const items = problems.slice(0, mostProblems).map(problemItem);
  if (problems.length > mostProblems) items.push(element("li", {}, `and ${problems.length - mostProblems} more`));
  byId("problems").replaceChildren(...items);
}

// verdict sums the report up in a sentence.
function verdict(report, bad, problems) {
  if (!report.ready) return { level: "bad", text: `${report.node} is not ready: ${report.reason || "no reason given"}` };
  if (bad.length) {
    const down = bad.filter((peer) => peer.state === "down").length;
    const all = count(report.peers.length, "peer");
    const text = down ? `${report.node}: ${down} of ${all} ${down === 1 ? "is" : "are"} down` : `${report.node}: ${bad.length} of ${all} with a fault on the path`;
    return { level: down ? "bad" : "warn", text };
  }
  if (problems.length) return { level: "warn", text: `${report.node} is ready, with ${count(problems.length, "problem")}` };
  return { level: "good", text: `${report.node} is ready, ${count(report.peers.length, "peer")}, no problem` };
}

// facts are the parts of the second line.
function facts(report) {
  const store = report.store.up ? "etcd answers" : `etcd away for ${duration(age(report.store.since))}`;
  const caught = (report.firewall.clear ?? []).reduce((sum, counter) => sum + counter.packets, 0);
  const guard = `guard ${report.firewall.guard}: ${caught ? `${count(caught, "packet")} caught` : "clean"}`;
  const held = report.store.held?.length ? [`${count(report.store.held.length, "lease")} held`] : [];
  return [store, ...held, guard, `engine ${report.engine.kind}`, `version ${report.version}`];
}

// listProblems joins the problems of the node and of its paths. Paths with the same fault are
// a single problem.
function listProblems(report, bad) {
  const out = [];
  if (report.reason && report.ready) out.push({ object: report.node, reason: report.reason });
  for (const problem of report.problems ?? []) out.push(problem);
  const faults = new Map();
  for (const peer of bad) {
    for (const path of peer.paths ?? []) {
      if (!isBad(path.state)) continue;
      const text = [path.state, path.reason, path.remedy].join("\n");
      const fault = faults.get(text) ?? { path, peers: new Set() };
      fault.peers.add(nameOf(peer));
      faults.set(text, fault);
    }
  }
  for (const { path, peers } of faults.values()) {
    const names = [...peers];
    const object = names.length > 5 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", ");
    const since = path.since ? ` for ${duration(age(path.since))}` : "";
    out.push({ object, reason: `${path.state}${since}${path.reason ? `: ${path.reason}` : ""}`, remedy: path.remedy });
  }
  return out;
}

function problemItem({ object, reason, remedy }) {
  const item = element("li", {}, element("p", {}, element("strong", {}, object), ` ${reason}`));
  if (remedy) item.append(element("p", { class: "remedy" }, remedy));
  return item;
}
