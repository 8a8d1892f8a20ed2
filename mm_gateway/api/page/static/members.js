// The members of a group: how they do, and for the operator drain and resume.
import { h } from "./dom.js";
import { t } from "./words.js";

/**
 * The list of a group's members, null for any other model. open: whether the admin endpoints are. busy: member -> the action that is
 * not done yet, errors: member -> what came of the last one. act(member, action): asks for one.
 */
export function members(model, { open, busy, errors, act }) {
  if (!Array.isArray(model.details.members)) return null;
  return h("ul", { class: "members", "aria-label": `${t("members")} ${model.id}` }, model.details.members.map((member) => one(model.id, member)));

  function one(group, { id, health, draining, running, failures, last_failure: failure }) {
    const action = draining ? "resume" : "drain";
    const told = [`${running} ${t("running")}`, failures ? `${failures} ${t("failures")}` : null].filter(Boolean).join(", ");
    return h(
      "li",
      { "data-member": id },
      h("span", { class: "name" }, id),
      h("span", { class: `state ${health}` }, t(`health-${health}`)),
      draining ? h("span", { class: "badge" }, t("drained")) : null,
      h("small", {}, told),
      open
        ? h("button", {
            type: "button",
            t: action,
            "data-focus": `${group}\nmember\n${id}`,
            "aria-label": `${t(action)} ${id}`,
            disabled: busy.get(id) === action,
            onclick: () => act(id, action),
          })
        : null,
      failure && health !== "healthy" ? h("small", { class: "why" }, failure) : null,
      errors.has(id) ? h("p", { class: "error", role: "alert" }, errors.get(id)) : null,
    );
  }
}
