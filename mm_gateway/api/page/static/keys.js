// The reader's keys: the dialog that asks for them, and what the operator's key opens.
import { json, key, setKey } from "./api.js";
import { h } from "./dom.js";
import { t } from "./words.js";

/** changed: called after keys were given or taken back. */
export class KeyDialog {
  constructor(changed) {
    this.changed = changed;
    // No form of a browser's memory: keys are not passwords of this site, and must not outlive the tab.
    const field = (name) => h("input", { type: "password", name, autocomplete: "off", spellcheck: "false" });
    this.client = field("client");
    this.admin = field("admin");
    this.element = h(
      "dialog",
      { "aria-labelledby": "keys-title" },
      h(
        "form",
        { onsubmit: (event) => this.save(event) },
        h("h2", { id: "keys-title", t: "keysTitle" }),
        h("p", { t: "keysAbout" }),
        h("label", {}, h("span", { t: "clientKey" }), this.client),
        h("label", {}, h("span", { t: "adminKey" }), this.admin),
        h("div", { class: "buttons" }, h("button", { type: "submit", class: "main", t: "save" }), h("button", { type: "button", t: "close", onclick: () => this.element.close() })),
      ),
    );
  }

  open() {
    if (this.element.open) return;
    this.client.value = key("client");
    this.admin.value = key("admin");
    this.element.showModal();
    this.client.focus();
  }

  save(event) {
    event.preventDefault();
    setKey("client", this.client.value.trim());
    setKey("admin", this.admin.value.trim());
    this.element.close();
    this.changed();
  }
}

/** Whether the operator's endpoints are open to this tab. */
export class Operator {
  constructor() {
    this.tried = ""; // the key that `refusal` is about
    this.refusal = null; // the status that it was refused with
  }

  /** Asks once for each key; without one they are closed. */
  async isOpen() {
    const own = key("admin");
    if (this.tried !== own) {
      this.refusal = null;
      try {
        if (own) await json("/admin/requests", { kind: "admin" });
      } catch (error) {
        if (![401, 403].includes(error.status)) throw error;
        this.refusal = error.status;
      }
      this.tried = own;
    }
    return own !== "" && this.refusal === null;
  }

  /** What the reader is told where they are closed; "" where they are open. */
  hint() {
    if (this.refusal !== null) return t(this.refusal === 403 ? "adminOff" : "adminRefused");
    return this.tried ? "" : t("adminNeeded");
  }
}
