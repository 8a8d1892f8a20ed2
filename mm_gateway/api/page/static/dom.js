// Elements made without HTML: whatever text comes in stays text, so that nothing a model or a server says can become markup.
import { t } from "./words.js";

const SVG_TAGS = new Set(["svg", "g", "path", "polyline", "line", "text", "rect"]);

/**
 * An element. Attributes that begin with "on" are listeners, `t` and `t-NAME` are keys of words.js for its text and its attribute
 * NAME (they follow the language), true and false switch an attribute, null and undefined leave it out. Children are nodes or texts.
 */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "t" || name.startsWith("t-")) element.setAttribute(`data-${name}`, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  translateOne(element);
  return element;
}

/** Say everything below a node in the language of now. */
export function translate(root) {
  translateOne(root);
  for (const element of root.querySelectorAll("*")) translateOne(element);
}

function translateOne(element) {
  for (const { name, value } of [...element.attributes]) {
    if (name === "data-t") element.textContent = t(value);
    else if (name.startsWith("data-t-")) element.setAttribute(name.slice("data-t-".length), t(value));
  }
}

/**
 * Have these rows in the body of a table; `data-row` says which is which. Cells that are as before keep their elements: what is drawn
 * anew between the press and the release of a button would lose the click, and the focus.
 */
export function showRows(body, rows) {
  const old = new Map([...body.rows].map((row) => [row.dataset.row, row]));
  const names = new Set(rows.map((row) => row.dataset.row));
  for (const [name, row] of old) if (!names.has(name)) row.remove();
  rows.forEach((row, index) => {
    const known = old.get(row.dataset.row);
    const shown = known?.cells.length === row.cells.length ? known : row;
    if (shown === known) [...row.cells].forEach((cell, at) => known.cells[at].isEqualNode(cell) || known.cells[at].replaceWith(cell));
    else known?.remove();
    if (body.rows[index] !== shown) body.insertBefore(shown, body.rows[index] ?? null);
  });
}

/** A link to an address from elsewhere; one that is not of the web is shown, and leads nowhere. */
export function link(address, ...children) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !["http:", "https:"].includes(url.protocol)) return h("span", { title: address }, ...children);
  return h("a", { href: url.href, title: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

/** A button that copies what `text()` says. */
export function copyButton(text) {
  const button = h("button", { type: "button", class: "quiet", t: "copy", onclick: copy });
  async function copy() {
    const done = await toClipboard(text());
    button.textContent = t(done ? "copied" : "copyFailed");
    setTimeout(() => translate(button), 1500);
  }
  return button;
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without TLS have no clipboard of their own, except on this machine.
    const area = h("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A number of bytes in words. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = count > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(count) / 10)) : 0;
  return `${(count / 1024 ** power).toLocaleString(undefined, { maximumFractionDigits: power ? 1 : 0 })} ${units[power]}`;
}

/** Seconds in words. */
export function seconds(count) {
  if (count < 1) return `${Math.round(count * 1000)} ms`;
  return count < 90 ? `${count.toFixed(1)} s` : `${Math.floor(count / 60)} min ${Math.round(count % 60)} s`;
}
