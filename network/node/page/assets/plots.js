// plots.js draws an hour of a peer: round trip, loss, throughput, age of the handshake.

import { byId, drawing, element, setText, tip } from "./dom.js";
import { clock, duration, rate, share } from "./format.js";

const size = { width: 480, height: 150, left: 62, right: 8, top: 8, bottom: 20 };

export function drawPlots(page) {
  const { history, family, peer } = page;
  byId("plots").hidden = !history;
  if (!history) return;
  setText(byId("plots-title"), `${peer}, the last hour`);
  const path = history.paths?.[family] ?? {};
  const name = family === "ipv6" ? "IPv6" : "IPv4";
  byId("plots-body").replaceChildren(
    plot(`Round trip, ${name}`, history.times, duration, [
      { name: "median", class: "first", values: path.rttP50Seconds },
      { name: "p99", class: "second", values: path.rttP99Seconds },
    ], 1e-4),
    plot(`Loss, ${name}`, history.times, share, [{ name: "lost probes", class: "alarm", values: path.loss, area: true }], 0.05),
    plot("Throughput", history.times, rate, [
      { name: "in", class: "first", values: history.receivedBytesPerSecond, area: true },
      { name: "out", class: "second", values: history.sentBytesPerSecond },
    ], 1000),
    plot("Age of the handshake", history.times, duration, [{ name: "age", class: "first", values: history.handshakeAgeSeconds }], 10),
  );
}

// plot returns a figure. least is the least end of the scale, so that small noise looks small.
function plot(title, times, format, lines, least) {
  const known = lines.filter((line) => line.values?.some((value) => value != null));
  const caption = element("figcaption", {}, element("b", {}, title));
  if (!known.length) return element("figure", {}, caption, element("p", { class: "summary" }, "no measurement in the last hour"));
  const top = niceTop(Math.max(least, ...known.flatMap((line) => line.values.filter((value) => value != null))));
  const end = times.at(-1), begin = end - 3600;
  const x = (time) => size.left + ((time - begin) / 3600) * (size.width - size.left - size.right);
  const y = (value) => size.height - size.bottom - (value / top) * (size.height - size.top - size.bottom);
  const spoken = known.map((line) => `${line.name} now ${format(line.values.at(-1))}, at most ${format(Math.max(...line.values.filter((value) => value != null)))}`).join("; ");
  const svg = drawing("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": `${title}: ${spoken}` }, ...grid(top, y, format), ...hours(begin, end, x));
  for (const line of known) svg.append(...curves(line, times, x, y));
  for (const line of known) caption.append(element("span", { class: `key ${line.class}` }, `${line.name} ${format(line.values.at(-1))}`));
  addCursor(svg, times, x, (i) => [clock(times[i] * 1000), ...known.map((line) => `${line.name} ${format(line.values[i])}`)].join("\n"));
  return element("figure", {}, caption, svg);
}

// curves draws a line in pieces: a missing value makes a gap.
function curves(line, times, x, y) {
  const pieces = [];
  let piece = [];
  line.values.forEach((value, i) => {
    if (value != null) return piece.push(`${x(times[i]).toFixed(1)},${y(value).toFixed(1)}`);
    if (piece.length) pieces.push(piece);
    piece = [];
  });
  if (piece.length) pieces.push(piece);
  return pieces.flatMap((points) => {
    const path = `M${points.length > 1 ? points.join("L") : `${points[0]}h0.1`}`;
    const out = [drawing("path", { class: line.class, d: path, "stroke-linecap": "round" })];
    if (line.area && points.length > 1) {
      const [first, last] = [points[0], points.at(-1)].map((point) => point.split(",")[0]);
      out.unshift(drawing("path", { class: `area ${line.class}`, d: `${path}L${last},${y(0)}L${first},${y(0)}Z` }));
    }
    return out;
  });
}

function grid(top, y, format) {
  return [0, top / 2, top].flatMap((value) => [
    drawing("line", { class: "grid", x1: size.left, x2: size.width - size.right, y1: y(value), y2: y(value) }),
    drawing("text", { x: size.left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
  ]);
}

function hours(begin, end, x) {
  return [0, 15, 30, 45, 60].map((minutes) =>
    drawing("text", { x: x(begin + 60 * minutes), y: size.height - 5, "text-anchor": minutes === 0 ? "start" : minutes === 60 ? "end" : "middle" }, minutes === 60 ? clock(end * 1000).slice(-8, -3) : `−${60 - minutes} min`));
}

// addCursor shows the values under the pointer.
function addCursor(svg, times, x, text) {
  const cursor = drawing("line", { class: "cursor", y1: size.top, y2: size.height - size.bottom, visibility: "hidden" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * size.width;
    let nearest = 0;
    times.forEach((time, i) => {
      if (Math.abs(x(time) - at) < Math.abs(x(times[nearest]) - at)) nearest = i;
    });
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(times[nearest]));
    cursor.setAttribute("x2", x(times[nearest]));
    tip(text(nearest), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    tip("");
  });
}

// niceTop returns the next of 1, 2, 4 and 10 times a power of ten, so that the half is a plain number.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].find((step) => value <= step * power * 1.0001) * power;
}
