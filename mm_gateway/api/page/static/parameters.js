// The parameters of a request as a form; what is left empty is not sent, so that the model's own settings count.
import { h } from "./dom.js";
import { t } from "./words.js";

const NUMBERS = [
  ["temperature", { min: 0, max: 2, step: "any" }],
  ["top_p", { min: 0, max: 1, step: "any" }],
  ["max_tokens", { min: 1, step: 1 }],
  ["seed", { step: 1 }],
];
const EFFORTS = ["", "none", "minimal", "low", "medium", "high", "xhigh"];

export class Parameters {
  /** changed: called after each change. */
  constructor(changed) {
    this.numbers = new Map(NUMBERS.map(([name, range]) => [name, h("input", { type: "number", name, ...range })]));
    this.effort = h("select", { name: "reasoning_effort" }, EFFORTS.map((effort) => h("option", { value: effort }, effort || "–")));
    this.system = h("textarea", { name: "system", rows: 2 });
    this.tools = h("textarea", { name: "tools", rows: 4, spellcheck: "false", placeholder: '[{"type": "function", "function": {"name": …}}]' });
    this.further = h("textarea", { name: "further", rows: 2, spellcheck: "false", placeholder: '{"logprobs": true}' });
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    const field = (label, input, translated = false) => h("label", {}, translated ? h("span", { t: label }) : h("code", {}, label), input);
    this.element = h(
      "details",
      { class: "parameters" },
      h("summary", { t: "parameters" }),
      h(
        "div",
        { class: "fields" },
        [...this.numbers].map(([name, input]) => field(name, input)),
        field("reasoning_effort", this.effort),
        h("div", { class: "full" }, field("system", this.system, true), field("tools", this.tools, true), field("further", this.further, true)),
      ),
      this.error,
    );
    this.element.addEventListener("input", changed);
  }

  /** {fields, system} as Conversation.body takes them; null where a field is not what it should be, which is shown then. */
  read() {
    this.error.hidden = true;
    try {
      const fields = {};
      for (const [name, input] of this.numbers) {
        if (!input.checkValidity()) throw new InvalidField(input, name, input.validationMessage);
        if (input.value !== "") fields[name] = Number(input.value);
      }
      if (this.effort.value) fields.reasoning_effort = this.effort.value;
      const tools = parsed(this.tools, "tools", Array.isArray);
      if (tools?.length) fields.tools = tools;
      const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
      return { fields: { ...fields, ...parsed(this.further, "further", isObject) }, system: this.system.value };
    } catch (error) {
      if (!(error instanceof InvalidField)) throw error;
      this.error.textContent = `${error.field}: ${error.message}`;
      this.error.hidden = false;
      this.invalid = error.input;
      return null;
    }
  }

  /** Lead to the field that `read` found wrong. */
  show() {
    this.element.open = true;
    this.invalid?.focus();
  }
}

class InvalidField extends Error {
  constructor(input, field, message) {
    super(message);
    this.input = input;
    this.field = field;
  }
}

function parsed(input, name, fits) {
  if (!input.value.trim()) return undefined;
  try {
    const value = JSON.parse(input.value);
    if (fits(value)) return value;
  } catch (error) {
    throw new InvalidField(input, t(name), error.message);
  }
  throw new InvalidField(input, t(name), t("wrongJson"));
}
