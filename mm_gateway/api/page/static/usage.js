// What keys have used: requests, tokens and money by key, model or day.
import { json } from "./api.js";
import { h } from "./dom.js";
import { t } from "./words.js";

const MAX_AGE_MS = 10000; // sums of days do not change by the second
const GROUPS = ["key", "key,model", "model", "day"];
const PERIODS = [["days-1", 0], ["days-7", 6], ["days-30", 29], ["always", null]];
const NUMBERS = ["requests", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"];

export class Usage {
  constructor(operator) {
    this.operator = operator;
    this.askedAt = -Infinity;
    this.group = choice("groupedBy", GROUPS.map((group) => [group, `by-${group}`]), () => this.askAnew());
    this.period = choice("period", PERIODS.map(([name]) => [name, name]), () => this.askAnew());
    this.period.select.value = "days-30";
    this.table = h("div", { class: "wide rows" });
    this.hint = h("p", { class: "hint" });
    this.shown = h("div", { hidden: true }, h("div", { class: "choices" }, this.group.element, this.period.element), this.table);
    this.element = h("section", {}, this.hint, this.shown);
  }

  async refresh() {
    const open = await this.operator.isOpen();
    this.hint.textContent = this.operator.hint();
    this.shown.hidden = !open;
    if (!open || performance.now() - this.askedAt < MAX_AGE_MS) return;
    const group = this.group.select.value;
    const [, days] = PERIODS.find(([name]) => name === this.period.select.value);
    const start = days === null ? "" : `&start=${new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10)}`;
    const { data } = await json(`/admin/usage?group_by=${encodeURIComponent(group)}${start}`, { kind: "admin" });
    this.askedAt = performance.now();
    this.draw(group.split(","), data);
  }

  askAnew() {
    this.askedAt = -Infinity;
    this.refresh().catch(() => {}); // the next one tells what is wrong
  }

  redraw() {
    this.askAnew();
  }

  draw(names, rows) {
    if (!rows.length) {
      this.table.replaceChildren(h("p", { t: "noUsage" }));
      return;
    }
    const costs = rows.some(({ cost }) => cost > 0);
    const numbers = costs ? [...NUMBERS, "cost"] : NUMBERS;
    const sum = Object.fromEntries(numbers.map((name) => [name, rows.reduce((total, row) => total + row[name], 0)]));
    const cells = (row) => numbers.map((name) => h("td", { class: "number", "data-label": t(name) }, number(row[name])));
    const line = (row) => h("tr", {}, names.map((name) => h("th", { scope: "row" }, row[name] || "–")), cells(row));
    this.table.replaceChildren(
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, t(name))), numbers.map((name) => h("th", { scope: "col", class: "number" }, t(name))))),
        h("tbody", {}, rows.map(line)),
        h("tfoot", {}, h("tr", {}, h("th", { scope: "row", colspan: names.length }, t("total")), cells(sum))),
      ),
    );
  }
}

function choice(label, options, changed) {
  const select = h("select", { onchange: changed }, options.map(([value, word]) => h("option", { value, t: word })));
  return { select, element: h("label", {}, h("span", { t: label }), select) };
}

function number(value) {
  return value.toLocaleString(undefined, { maximumFractionDigits: 4 });
}
