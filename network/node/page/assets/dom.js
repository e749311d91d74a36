// dom.js makes elements. Text is always set as text, never as markup: names come from other nodes.

const svgNamespace = "http://www.w3.org/2000/svg";

// element returns an HTML element with attributes and children; children are nodes or text.
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

// drawing returns an SVG element with attributes and children.
export function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(svgNamespace, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// byId returns the element of the page with an id.
export const byId = (id) => document.getElementById(id);

// setText changes a text only when it differs, so that a screen reader repeats nothing.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// tip shows a text beside the pointer or a focused element; without a text it hides.
export function tip(text, x = 0, y = 0) {
  const box = byId("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  box.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - height - 8))}px`;
}
