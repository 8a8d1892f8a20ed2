// Puts the page together: views behind their addresses (#models …), the language, the keys, and asking again while somebody looks.
import { Activity } from "./activity.js";
import { key } from "./api.js";
import { Catalog } from "./catalog.js";
import { h, translate } from "./dom.js";
import { KeyDialog, Operator } from "./keys.js";
import { Models } from "./models.js";
import { Playground } from "./playground.js";
import { Usage } from "./usage.js";
import { language, setLanguage, t } from "./words.js";

const REFRESH_MS = 1000;

const catalog = new Catalog();
const operator = new Operator();
const views = {
  playground: new Playground("playground", 1, catalog),
  compare: new Playground("compare", 2, catalog),
  models: new Models(catalog, operator),
  activity: new Activity(operator),
  usage: new Usage(operator),
};
const keys = new KeyDialog(start);
const problem = h("p", { class: "error banner", role: "alert", hidden: true });
const tabs = Object.keys(views).map((name) => h("a", { href: `#${name}`, t: name }));
const main = h("main", { id: "content", tabindex: "-1" }, problem, Object.values(views).map((view) => view.element));

document.body.append(
  h("a", { class: "skip", href: "#content", t: "skip", onclick: skip }),
  h(
    "header",
    {},
    h("h1", {}, "mm_gateway"),
    h("nav", { "t-aria-label": "views" }, tabs, h("a", { href: "/schema", t: "api" })),
    h("button", { type: "button", class: "quiet", t: "keys", onclick: () => keys.open() }),
    h("button", { type: "button", class: "quiet", t: "language", onclick: switchLanguage }),
  ),
  main,
  keys.element,
);

let view = views.playground;
let refreshing = false;

function skip(event) {
  event.preventDefault(); // its address is no view
  main.focus();
}

function open() {
  const name = location.hash.slice(1);
  view = Object.hasOwn(views, name) ? views[name] : views.playground;
  for (const other of Object.values(views)) other.element.hidden = other !== view;
  for (const tab of tabs) {
    if (views[tab.hash.slice(1)] === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  view.show?.();
  refresh();
}

/** Ask for what the open view shows, unless nobody looks or the last answer is not there yet. */
async function refresh() {
  if (refreshing || document.hidden) return;
  refreshing = true;
  try {
    if (view !== views.activity && (await operator.isOpen())) await views.activity.sample();
    await view.refresh?.();
    show(null);
  } catch (error) {
    show(error);
  } finally {
    refreshing = false;
  }
}

/** The list of models, which every view needs; a key that it asks for is asked of the reader. */
async function start() {
  try {
    await catalog.refresh();
    show(null);
  } catch (error) {
    show(error);
    if (error.status === 401) keys.open();
  }
  await refresh();
}

function show(error) {
  problem.hidden = error === null;
  if (error === null) return;
  problem.textContent = error.status === 0 ? `${t("unreachable")} ${error.message}` : error.status === 401 && key("client") ? `${t("keyRefused")} ${error.message}` : error.message;
}

function switchLanguage() {
  setLanguage(language() === "en" ? "zh" : "en");
  document.documentElement.lang = language();
  translate(document.body);
  for (const each of Object.values(views)) each.redraw?.();
  refresh();
}

document.documentElement.lang = language();
addEventListener("hashchange", open);
addEventListener("keydown", (event) => event.key === "Escape" && !keys.element.open && view.stop?.());
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, REFRESH_MS);
open();
start();
