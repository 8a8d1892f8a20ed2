// Conversations with models: one, or two side by side that are told the same.
import { key } from "./api.js";
import { Conversation } from "./conversation.js";
import { copyButton, h } from "./dom.js";
import { Parameters } from "./parameters.js";
import { curl, python } from "./snippets.js";
import { TurnList } from "./turns.js";

/** A view of `count` panes under one composer. catalog: what models there are. name: of the view, in the ids of its elements. */
export class Playground {
  constructor(name, count, catalog) {
    this.panes = Array.from({ length: count }, (_, index) => new Pane(`${name}-${index}`, index, catalog, () => this.nextIn(index)));
    this.parameters = new Parameters(() => this.showCode());
    this.text = h("textarea", { class: "say", rows: 3, "t-aria-label": "say", "t-placeholder": "sayHint", onkeydown: (event) => this.onKey(event), oninput: () => this.showCode() });
    this.sendButton = h("button", { type: "submit", class: "main", t: "send" });
    this.stopButton = h("button", { type: "button", t: "stop", disabled: true, onclick: () => this.stop() });
    this.clearButton = h("button", { type: "button", class: "quiet", t: "clear", onclick: () => this.clear() });
    this.curl = h("pre", { tabindex: "0" });
    this.python = h("pre", { tabindex: "0" });
    this.code = h(
      "details",
      { class: "as-code", ontoggle: () => this.showCode() },
      h("summary", { t: "code" }),
      [["curl", this.curl], ["Python", this.python]].map(([label, shown]) =>
        h("figure", { class: "code" }, h("figcaption", {}, h("span", {}, label), copyButton(() => shown.textContent)), shown),
      ),
    );
    this.element = h(
      "section",
      { class: "playground" },
      h("div", { class: `panes panes-${count}` }, this.panes.map((pane) => pane.element)),
      h(
        "form",
        { class: "composer", onsubmit: (event) => this.onSubmit(event) },
        this.text,
        h("div", { class: "buttons" }, this.sendButton, this.stopButton, this.clearButton),
        this.parameters.element,
        this.code,
      ),
    );
    for (const pane of this.panes) pane.select.addEventListener("change", () => this.showCode());
  }

  show() {
    this.text.focus();
  }

  onKey(event) {
    // While an input method composes a word, Enter is the word's.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.sendButton.click();
    }
  }

  onSubmit(event) {
    event.preventDefault();
    const text = this.text.value;
    if (this.isRunning() || !text.trim()) return;
    if (this.panes.some((pane) => !pane.select.value)) return; // the list of models is not there yet: what was typed stays
    const options = this.parameters.read();
    if (options === null) {
      this.parameters.show();
      return;
    }
    this.text.value = "";
    for (const pane of this.panes) pane.conversation.say(text);
    this.ask(this.panes, options);
  }

  /** A tool's result has come in one pane, which asks for what follows. */
  nextIn(index) {
    const options = this.parameters.read();
    if (options === null) this.parameters.show();
    else if (!this.isRunning()) this.ask([this.panes[index]], options);
  }

  async ask(panes, options) {
    const asked = panes.map((pane) => pane.ask(options));
    this.showButtons();
    this.showCode();
    await Promise.all(asked);
    this.showButtons();
    this.showCode();
    this.text.focus();
  }

  stop() {
    for (const pane of this.panes) pane.conversation.stop();
  }

  clear() {
    for (const pane of this.panes) {
      pane.conversation.clear();
      pane.turns.draw();
    }
    this.showCode();
    this.text.focus();
  }

  isRunning() {
    return this.panes.some((pane) => pane.conversation.running !== null);
  }

  showButtons() {
    this.sendButton.disabled = this.isRunning();
    this.stopButton.disabled = !this.isRunning();
  }

  /** The request that Send would send; while one runs, or after it, the last one. */
  showCode() {
    if (!this.code.open) return;
    const options = this.parameters.read();
    const [pane] = this.panes;
    if (options === null) return;
    const body = this.text.value.trim() || !pane.asked ? pane.bodyWith(this.text.value, options) : pane.asked;
    this.curl.textContent = curl(body, location.origin, key("client") !== "");
    this.python.textContent = python(body, location.origin, key("client") !== "");
  }

  redraw() {
    for (const pane of this.panes) pane.turns.redraw();
    this.showCode();
  }
}

/** One conversation and the model that it is with. asked: the body of its last request. */
class Pane {
  constructor(name, index, catalog, next) {
    this.asked = null;
    this.conversation = new Conversation();
    this.turns = new TurnList(this.conversation, (id, text) => {
      this.conversation.answerCall(id, text);
      this.turns.redraw();
      if (this.conversation.openCalls().length === 0) next();
    });
    this.select = h("select", { id: `model-${name}` });
    this.element = h("div", { class: "pane" }, h("div", { class: "pane-head" }, h("label", { for: this.select.id, t: "model" }), this.select), this.turns.element);
    catalog.follow((models, preferred) => this.fill(models, preferred[index] ?? preferred[0]));
  }

  fill(models, preferred) {
    const chosen = this.select.value;
    this.select.replaceChildren(...models.map(({ id }) => h("option", { value: id }, id)));
    if (models.some(({ id }) => id === chosen)) this.select.value = chosen;
    else if (preferred) this.select.value = preferred;
  }

  bodyWith(text, options) {
    const would = new Conversation();
    would.turns = [...this.conversation.turns, { role: "user", content: text }];
    return would.body(this.select.value, options);
  }

  ask(options) {
    this.asked = this.conversation.body(this.select.value, options);
    return this.conversation.next(this.asked, () => this.turns.update());
  }
}
