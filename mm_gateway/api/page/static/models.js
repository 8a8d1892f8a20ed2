// The models: state, memory, progress of a load, members of groups, and for the operator load, unload, pins, drain and resume.
import { inPath, json } from "./api.js";
import { bytes, h, showRows } from "./dom.js";
import { members } from "./members.js";
import { t } from "./words.js";

/** operator: says whether the admin endpoints are open. */
export class Models {
  constructor(catalog, operator) {
    this.catalog = catalog;
    this.operator = operator;
    this.busy = new Map(); // id -> the action that was asked for and is not done yet
    this.errors = new Map();
    this.memory = h("p", { class: "memory" });
    this.rows = h("tbody");
    this.hint = h("p", { class: "hint" });
    const heads = ["model", "state", "memory", "context", "requests", "actions"];
    this.element = h(
      "section",
      {},
      this.hint,
      this.memory,
      h("div", { class: "wide rows" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", t: head })))), this.rows)),
    );
  }

  /** Ask and draw; called again and again while the view is open. */
  async refresh() {
    const open = await this.operator.isOpen();
    let models;
    if (open) {
      const reply = await json("/admin/models", { kind: "admin" });
      models = reply.data;
      this.memory.textContent = reply.memory.map(told).join(" · ");
    } else {
      models = await this.catalog.refreshed();
      this.memory.textContent = "";
    }
    this.hint.textContent = this.operator.hint();
    this.draw(models, open);
  }

  draw(models, open) {
    // Whoever moves by the keyboard stays where the button was whose cell is drawn anew: Load becomes Unload.
    const focused = this.rows.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    const none = h("tr", { "data-row": "" }, h("td", { colspan: 6, t: "noModels" }));
    showRows(this.rows, models.length ? models.map((model) => this.row(model, open)) : [none]);
    if (focused !== undefined && !this.rows.contains(document.activeElement)) {
      [...this.rows.querySelectorAll("button")].find((button) => button.dataset.focus === focused)?.focus();
    }
  }

  row(model, open) {
    const { id, state, details, context_length: context, backend } = model;
    const { running = 0, waiting = 0 } = details.requests ?? {};
    const loading = state === "loading";
    const share = details.fraction;
    const label = h("span", { class: `state ${state}` }, stateInWords(state));
    return h(
      "tr",
      { "data-row": id },
      h("th", { scope: "row" }, h("span", { class: "name" }, id), h("small", {}, [backend, details.model_name === id ? null : details.model_name].filter(Boolean).join(" · "))),
      h(
        "td",
        { "data-label": t("state") },
        label,
        details.pinned ? h("span", { class: "badge" }, t("pinned")) : null,
        loading ? h("progress", { max: 1, value: share ?? null, "aria-label": `${t("loading")} ${id}` }) : null,
        loading && details.progress ? h("small", {}, String(details.progress)) : null,
        backend === "local" && this.errors.has(id) ? h("p", { class: "error", role: "alert" }, this.errors.get(id)) : null,
        members(model, { open, busy: this.busy, errors: this.errors, act: (member, action) => this.act(member, action) }),
      ),
      h("td", { "data-label": t("memory") }, details.footprint_bytes ? bytes(details.footprint_bytes) : "–", details.device ? h("small", {}, ` ${details.device}`) : null),
      h("td", { "data-label": t("context") }, context ? context.toLocaleString() : "–"),
      h("td", { "data-label": t("requests") }, ["local", "group"].includes(backend) ? `${running} ${t("running")}, ${waiting} ${t("queued")}` : "–"),
      h("td", {}, backend === "local" && open ? h("div", { class: "buttons" }, this.actions(model)) : null),
    );
  }

  actions({ id, state, details }) {
    const inMemory = ["ready", "busy", "loading"].includes(state);
    const offered = [inMemory ? "unload" : "load", details.pinned ? "unpin" : "pin"];
    return offered.map((action) =>
      h("button", {
        type: "button",
        t: action,
        "data-focus": `${id}\n${action === offered[0] ? 0 : 1}`,
        "aria-label": `${t(action)} ${id}`,
        disabled: this.busy.get(id) === action,
        onclick: () => this.act(id, action),
      }),
    );
  }

  async act(id, action) {
    this.errors.delete(id);
    this.busy.set(id, action);
    const done = json(`/admin/models/${inPath(id)}/${action}`, { method: "POST", kind: "admin" });
    this.refresh().catch(() => {}); // the next one tells what is wrong
    try {
      await done;
    } catch (error) {
      this.errors.set(id, error.message);
    }
    this.busy.delete(id);
    await this.refresh().catch(() => {});
  }
}

function told({ device, used_bytes: used, budget_bytes: budget }) {
  return `${device}: ${bytes(used)}${budget === null ? ` ${t("taken")}` : ` ${t("of")} ${bytes(budget)}`}`;
}

function stateInWords(state) {
  const words = t(`state-${state}`);
  return words === `state-${state}` ? state : words;
}
