// What the gateway is doing: charts of the last minutes, requests that run and that have ended, loads and evictions.
import { json } from "./api.js";
import { chart, clock } from "./chart.js";
import { bytes, h, seconds, showRows } from "./dom.js";
import { t } from "./words.js";

const SPAN_S = 300;

export class Activity {
  constructor(operator) {
    this.operator = operator;
    this.samples = []; // [{now, output, running, waiting}] as they were asked for
    this.firstTokens = new Map(); // id of a request -> [time, seconds]
    this.hint = h("p", { class: "hint" });
    this.charts = h("div", { class: "charts" });
    this.running = h("tbody");
    this.recent = h("tbody");
    this.events = h("ul", { class: "events" });
    this.shown = h(
      "div",
      { hidden: true },
      this.charts,
      section("runningRequests", table(["state", "model", "endpoint", "key", "since", "took", "tokens", "actions"], this.running)),
      section("recentRequests", table(["state", "model", "endpoint", "key", "since", "took", "firstToken", "tokens"], this.recent)),
      section("events", this.events),
    );
    this.element = h("section", {}, this.hint, this.shown);
  }

  async refresh() {
    const open = await this.operator.isOpen();
    this.hint.textContent = this.operator.hint();
    this.shown.hidden = !open;
    if (!open) return;
    const [requests, events] = await Promise.all([this.sample(), json("/admin/events", { kind: "admin" })]);
    this.drawCharts(requests.now);
    this.drawRequests(requests);
    this.events.replaceChildren(...events.data.map(eventRow));
    if (!events.data.length) this.events.append(h("li", { t: "noEvents" }));
  }

  /** Ask for the requests, and remember what the charts show; also while another view is open. */
  async sample() {
    const requests = await json("/admin/requests", { kind: "admin" });
    this.remember(requests);
    return requests;
  }

  remember({ now, running, recent, totals }) {
    const waiting = running.filter(({ state }) => state !== "running").length;
    this.samples.push({ now, output: totals.output_tokens, running: running.length - waiting, waiting });
    this.samples = this.samples.filter((sample) => sample.now > now - SPAN_S - 10);
    for (const { id, arrived_at: arrived, time_to_first_token_s: first } of [...running, ...recent]) {
      if (first !== null) this.firstTokens.set(id, [arrived + first, first]);
    }
    for (const [id, [time]] of this.firstTokens) if (time < now - SPAN_S) this.firstTokens.delete(id);
  }

  drawCharts(now) {
    const pace = this.samples.slice(1).map((sample, index) => {
      const before = this.samples[index];
      // A count may be put right at a request's end, and then it is smaller than before.
      return [sample.now, Math.max(0, sample.output - before.output) / Math.max(0.001, sample.now - before.now)];
    });
    const of = (name) => this.samples.map((sample) => [sample.now, sample[name]]);
    this.charts.replaceChildren(
      chart(t("throughput"), [{ name: "", points: pace }], now - SPAN_S, now),
      chart(t("firstTokens"), [{ name: "", points: [...this.firstTokens.values()].sort(([a], [b]) => a - b), dots: true }], now - SPAN_S, now),
      chart(t("atWork"), [{ name: t("running"), points: of("running") }, { name: t("queued"), points: of("waiting") }], now - SPAN_S, now),
    );
  }

  drawRequests({ running, recent }) {
    const none = (word) => [h("tr", { "data-row": "" }, h("td", { colspan: 8, t: word }))];
    showRows(this.running, running.length ? running.map((entry) => requestRow(entry, null, this.cancelButton(entry))) : none("noneRunning"));
    showRows(this.recent, recent.length ? recent.map((entry) => requestRow(entry, entry.time_to_first_token_s)) : none("noneRecent"));
  }

  cancelButton({ id, model, state }) {
    const cancel = async (event) => {
      event.target.disabled = true; // until the next answer, which does not have it any more, or does and lets one try again
      // One that has ended by itself meanwhile is gone from the list as well.
      await json(`/admin/requests/${encodeURIComponent(id)}`, { method: "DELETE", kind: "admin" }).catch(() => {});
      await this.refresh().catch(() => {});
    };
    return h("button", { type: "button", t: "cancel", "aria-label": `${t("cancel")} ${model} ${id}`, disabled: state === "arriving", onclick: cancel });
  }
}

/** A row of either table. firstToken: its seconds, in the table that shows them. */
function requestRow(entry, firstToken, button) {
  const cell = (label, ...children) => h("td", { "data-label": t(label) }, children);
  const ended = entry.error || (entry.client_gone ? t("clientGone") : entry.status >= 400 ? `HTTP ${entry.status}` : t(`request-${entry.state}`));
  const failed = entry.error || entry.client_gone || entry.status >= 400;
  const tokens = cell("tokens", `${entry.prompt_tokens} + ${entry.output_tokens}`);
  return h(
    "tr",
    { "data-row": entry.id, title: entry.id },
    cell("state", h("span", { class: failed ? "state failed" : `state ${entry.state}` }, ended)),
    cell("model", entry.model || "–"),
    cell("endpoint", h("code", {}, entry.endpoint || "–")),
    cell("key", entry.key || "–"),
    cell("since", clock(entry.arrived_at)),
    cell("took", seconds(entry.duration_s)),
    button ? [tokens, h("td", {}, button)] : [cell("firstToken", firstToken === null ? "–" : seconds(firstToken)), tokens],
  );
}

function eventRow(event) {
  const why = event.reason === null ? null : `: ${t(`reason-${event.reason}`)}${event.room_for === null ? "" : ` ${t("roomFor")} ${event.room_for}`}`;
  const told = [event.bytes === null ? null : bytes(event.bytes), event.seconds === null ? null : seconds(event.seconds), event.from_host ? t("fromHost") : null, event.device];
  return h(
    "li",
    { class: event.kind },
    h("time", {}, clock(event.time)),
    " ",
    h("b", {}, event.model),
    ` ${t(`event-${event.kind}`)}`,
    why,
    h("small", {}, ` ${told.filter(Boolean).join(" · ")}`),
    event.error ? h("span", { class: "error" }, ` ${event.error}`) : null,
  );
}

function table(heads, body) {
  return h("div", { class: "wide rows" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", t: head })))), body));
}

function section(title, ...children) {
  return h("section", {}, h("h2", { t: title }), children);
}
