// picture.js draws the matrix of a large cluster on a canvas: a small square for each path.
// The pointer or the arrow keys choose a square, whose description is shown and read aloud.

import { element, setText, tip } from "./dom.js";

const margin = 92; // pixels for the names
const smallest = 3, largest = 16; // pixels of a square

export class Picture {
  #canvas = element("canvas", { class: "picture", tabindex: "0", role: "img" });
  #spoken = element("p", { class: "hidden", "aria-live": "polite" });
  #hint = element("p", { class: "summary" }, "Point at a square, or use the arrow keys.");
  #host;
  #data;
  #side = smallest;
  #row = -1;
  #column = -1;

  constructor(host) {
    this.#host = host;
    host.replaceChildren(this.#canvas, this.#spoken, this.#hint);
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.#canvas.addEventListener("pointerleave", () => this.#choose(-1, -1));
    this.#canvas.addEventListener("blur", () => this.#choose(-1, -1));
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#data && this.draw(this.#data)).observe(host);
  }

  // draw shows data: names, metric, cell(from, to) and describe(from, to).
  draw(data) {
    this.#data = data;
    const n = data.names.length;
    const width = this.#host.clientWidth - margin - 4;
    this.#side = Math.max(smallest, Math.min(largest, Math.floor(width / n)));
    const total = margin + n * this.#side + 2;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = total * scale;
    this.#canvas.height = total * scale;
    this.#canvas.style.width = `${total}px`;
    this.#canvas.setAttribute("aria-label", `Matrix of ${n} nodes; the summary above has the counts, the table below the paths with a fault`);
    const context = this.#canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    this.#paintCells(context);
    this.#paintNames(context);
    this.#paintChoice(context);
  }

  #paintCells(context) {
    const { names, metric, cell } = this.#data;
    const paint = painter(this.#host, metric);
    const gap = this.#side >= 6 ? 1 : 0;
    names.forEach((from, i) => names.forEach((to, j) => {
      context.fillStyle = i === j ? paint.ground : paint.colour(cell(from, to));
      context.fillRect(margin + j * this.#side, margin + i * this.#side, this.#side - gap, this.#side - gap);
    }));
  }

  // #paintNames writes as many names as there is room for.
  #paintNames(context) {
    const { names } = this.#data;
    const step = Math.ceil(11 / this.#side);
    context.fillStyle = colours(this.#host, ["faint"]).faint;
    context.font = `10px ${getComputedStyle(this.#canvas).fontFamily}`;
    context.textBaseline = "middle";
    for (let i = 0; i < names.length; i += step) {
      const at = margin + (i + 0.5) * this.#side;
      const text = short(context, names[i]);
      context.textAlign = "right";
      context.fillText(text, margin - 5, at);
      context.save();
      context.translate(at, margin - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(text, 0, 0);
      context.restore();
    }
  }

  #paintChoice(context) {
    if (this.#row < 0) return;
    const n = this.#data.names.length, side = this.#side;
    context.strokeStyle = colours(this.#host, ["ink"]).ink;
    context.lineWidth = 1;
    context.strokeRect(margin - 0.5, margin + this.#row * side - 0.5, n * side, side + 0.5);
    context.strokeRect(margin + this.#column * side - 0.5, margin - 0.5, side + 0.5, n * side);
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    const at = (pixels) => Math.floor((pixels - margin) / this.#side);
    this.#choose(at(event.clientY - box.top), at(event.clientX - box.left), event.clientX, event.clientY);
  }

  #key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = this.#data.names.length - 1;
    const inside = (i) => Math.max(0, Math.min(last, i));
    const row = inside(this.#row + step[0]), column = inside(this.#column + step[1]);
    const box = this.#canvas.getBoundingClientRect();
    this.#choose(row, column, box.left + margin + (column + 1) * this.#side, box.top + margin + (row + 1) * this.#side);
    setText(this.#spoken, this.#data.describe(this.#data.names[row], this.#data.names[column]));
  }

  // #choose marks a square and describes it at a place; outside the matrix it marks no square.
  #choose(row, column, x, y) {
    const names = this.#data.names;
    const inside = row >= 0 && column >= 0 && row < names.length && column < names.length;
    [this.#row, this.#column] = inside ? [row, column] : [-1, -1];
    tip(inside ? this.#data.describe(names[row], names[column]) : "", x, y);
    this.draw(this.#data);
  }
}

// painter returns the colours of a metric: of the state, or from low to high.
function painter(host, metric) {
  const known = colours(host, ["calm", "unknown", "degraded", "mtu", "one-way", "down", "none", "card", "low", "high"]);
  const low = parts(known.low), high = parts(known.high);
  const mix = (share) => `rgb(${low.map((v, i) => Math.round(v + (high[i] - v) * Math.max(0, Math.min(1, share)))).join(" ")})`;
  const scales = {
    rtt: (path) => path.rttP50Seconds && Math.log10(path.rttP50Seconds / 1e-4) / 3.3, // 0.1 ms to 200 ms
    loss: (path) => Math.sqrt(path.loss),
    mtu: (path) => path.mtu && (1500 - path.mtu) / 300,
  };
  return {
    ground: known.card,
    colour(path) {
      if (!path || path.state === "none") return known.none;
      const scale = scales[metric];
      if (!scale) return path.state === "up" ? known.calm : known[path.state] ?? known.unknown;
      const value = path.state === "unknown" ? undefined : scale(path);
      return value === undefined || Number.isNaN(value) ? known.unknown : mix(value);
    },
  };
}

// colours returns named colours of the style sheet as "rgb(r, g, b)": a canvas knows no names.
function colours(host, names) {
  const sample = element("i", { hidden: true });
  host.append(sample);
  const out = {};
  for (const name of names) {
    sample.style.color = `var(--${name})`;
    out[name] = getComputedStyle(sample).color;
  }
  sample.remove();
  return out;
}

// parts returns red, green and blue of "rgb(r, g, b)".
const parts = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);

// short cuts a name that is too long for the margin.
function short(context, name) {
  while (name.length > 4 && context.measureText(name).width > margin - 12) name = `${name.slice(0, -2)}…`.replace("……", "…");
  return name;
}
