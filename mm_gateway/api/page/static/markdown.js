// Markdown as models write it, turned into elements: headings, lists, quotes, tables, code, bold, italic, links. HTML in it stays text.
import { copyButton, h, link } from "./dom.js";

/**
 * Nodes for a text. marks: text such as "[1]" -> address that it stands for.
 * Every pattern is bounded or anchored: a hostile text takes time by its length, not by its square.
 */
export function markdown(text, marks = new Map()) {
  const lines = text.split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^ {0,3}(```+|~~~+)\s*([\w+#.-]{0,40})/.exec(line);
    if (fence) {
      let end = at + 1;
      while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
      nodes.push(codeBlock(lines.slice(at + 1, end).join("\n"), fence[2]));
      at = end + 1;
      continue;
    }
    if (!line.trim()) {
      at += 1;
      continue;
    }
    const heading = /^(#{1,6})\s+(\S.*)$/.exec(line);
    if (heading) {
      // The page's own headings end at the second level.
      nodes.push(h(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2], marks)));
      at += 1;
      continue;
    }
    const kind = kindOf(line);
    let end = at + 1;
    while (end < lines.length && lines[end].trim() && kindOf(lines[end]) === kind && !/^(#{1,6}\s| {0,3}(```|~~~))/.test(lines[end])) end += 1;
    nodes.push(block(kind, lines.slice(at, end), marks));
    at = end;
  }
  return nodes;
}

function kindOf(line) {
  if (/^\s{0,12}[-*+]\s+\S/.test(line)) return "ul";
  if (/^\s{0,12}\d{1,9}[.)]\s+\S/.test(line)) return "ol";
  if (/^\s{0,3}>/.test(line)) return "quote";
  return /^\s{0,3}\|/.test(line) ? "table" : "p";
}

function block(kind, lines, marks) {
  switch (kind) {
    case "ul":
      return h("ul", {}, lines.map((line) => h("li", {}, inline(line.replace(/^\s*[-*+]\s+/, ""), marks))));
    case "ol": {
      const start = Number(/\d+/.exec(lines[0])[0]);
      return h("ol", { start }, lines.map((line) => h("li", {}, inline(line.replace(/^\s*\d+[.)]\s+/, ""), marks))));
    }
    case "quote":
      return h("blockquote", {}, inline(lines.map((line) => line.replace(/^\s*>\s?/, "")).join("\n"), marks));
    case "table":
      return table(lines, marks);
    default:
      return h("p", {}, inline(lines.join("\n"), marks));
  }
}

function table(lines, marks) {
  const rows = lines.map((line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim()));
  const headed = rows.length > 1 && rows[1].every((cell) => /^:?-+:?$/.test(cell));
  const body = headed ? rows.slice(2) : rows;
  const row = (cells, tag) => h("tr", {}, cells.map((cell) => h(tag, {}, inline(cell, marks))));
  return h("div", { class: "wide" }, h("table", {}, headed ? h("thead", {}, row(rows[0], "th")) : null, h("tbody", {}, body.map((cells) => row(cells, "td")))));
}

function codeBlock(code, language) {
  return h("figure", { class: "code" }, h("figcaption", {}, h("span", {}, language), copyButton(() => code)), h("pre", { tabindex: "0" }, h("code", {}, code)));
}

const INLINE =
  /(`{1,3})([^`\n]{1,2000})\1|\*\*([^*\n]{1,1000})\*\*|\*([^*\s][^*\n]{0,500})\*|\[([^[\]\n]{1,300})\]\((https?:\/\/[^\s()]{1,2000})\)|(\[\d{1,3}\])/g;

function inline(text, marks) {
  const nodes = [];
  let last = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, , code, bold, italic, label, address, mark] = found;
    if (mark !== undefined && !marks.has(mark)) continue;
    nodes.push(text.slice(last, found.index));
    last = found.index + whole.length;
    if (code !== undefined) nodes.push(h("code", {}, code));
    else if (bold !== undefined) nodes.push(h("strong", {}, bold));
    else if (italic !== undefined) nodes.push(h("em", {}, italic));
    else if (address !== undefined) nodes.push(link(address, label));
    else nodes.push(h("sup", {}, link(marks.get(mark), mark)));
  }
  nodes.push(text.slice(last));
  return nodes;
}
