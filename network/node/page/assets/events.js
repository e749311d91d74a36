// events.js lists what happened, the newest first.

import { byId, element, setText } from "./dom.js";
import { clock, count } from "./format.js";

const mostShown = 200;
const kinds = ["all", "peer-joined", "peer-left", "path", "repaired", "engine", "guard", "problem", "store", "ready"];
const alarming = new Set(["guard", "engine", "problem"]);

let kind = "all";
let pending = false; // a drawing is due: many events may come at once

export function listenToEvents(page) {
  const select = byId("event-kind");
  select.append(...kinds.map((name) => element("option", { value: name }, name === "all" ? "all kinds" : name)));
  select.addEventListener("change", () => {
    kind = select.value;
    drawEvents(page);
  });
}

export function drawEvents(page) {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    draw(page.events);
  });
}

function draw(events) {
  const wanted = events.filter((event) => kind === "all" || event.kind === kind);
  setText(byId("events-summary"), wanted.length ? `${count(wanted.length, "event")}, the newest first.` : "No event since the daemon started.");
  byId("event-list").replaceChildren(...wanted.slice(0, mostShown).map((event) => element("li", {},
    element("time", { datetime: event.at }, clock(event.at)),
    element("span", { class: alarming.has(event.kind) && !event.text.startsWith("solved") ? "kind bad" : "kind" }, event.kind),
    element("p", {}, element("strong", {}, event.object), ` ${event.text}`))));
}
