// How turns of a conversation look: text, thoughts that fold, calls of tools, stages and sources of workflows, errors, numbers.
import { h, link, seconds } from "./dom.js";
import { markdown } from "./markdown.js";
import { t } from "./words.js";

const FRAME_MS = 80; // so often at most a running turn is drawn, and a long one less often, so that drawing takes a fifth of the time at most

/** A list of turns that follows a conversation. answered: called with a call's id and the text that somebody gives as its result. */
export class TurnList {
  constructor(conversation, answered) {
    this.conversation = conversation;
    this.answered = answered;
    this.element = h("div", { class: "turns", role: "log", "aria-live": "polite", "t-aria-label": "conversation", tabindex: "0" });
    this.drawn = [];
    this.timer = null;
    this.lastDraw_ms = 0;
    this.typed = new Map(); // id of a call -> what somebody has begun to give as its result
  }

  /** Draw what has changed, soon. */
  update() {
    this.timer ??= setTimeout(() => this.draw(), Math.max(FRAME_MS, 5 * this.lastDraw_ms));
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    const began = performance.now();
    const { turns } = this.conversation;
    const atEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 80;
    while (this.drawn.length > turns.length) this.drawn.pop().element.remove();
    turns.forEach((turn, index) => {
      const old = this.drawn[index];
      if (old?.turn === turn && old.final) return;
      // What somebody has opened stays open while the turn grows, and keeps the focus.
      const summary = old?.turn === turn ? old.element.querySelector("details.thought summary") : null;
      const focused = summary !== null && summary === document.activeElement;
      const element = this.view(turn, summary?.parentElement.open);
      if (old) old.element.replaceWith(element);
      else this.element.append(element);
      if (focused) element.querySelector("details.thought summary")?.focus();
      this.drawn[index] = { turn, element, final: !["waiting", "running"].includes(turn.status) };
    });
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
    this.lastDraw_ms = performance.now() - began;
  }

  /** Draw everything anew: the language has changed. */
  redraw() {
    for (const drawn of this.drawn) drawn.final = false;
    this.draw();
  }

  view(turn, open) {
    if (turn.role === "user") return h("article", { class: "turn user", "t-aria-label": "you" }, h("p", { class: "plain" }, turn.content));
    if (turn.role === "tool") return h("article", { class: "turn tool" }, h("b", {}, `${t("result")} `), h("pre", {}, turn.content));
    return h(
      "article",
      { class: `turn model ${turn.status}`, "t-aria-label": "model", "aria-busy": String(["waiting", "running"].includes(turn.status)) },
      stages(turn.stages),
      thought(turn, open),
      h("div", { class: "text" }, markdown(turn.content, marksOf(turn))),
      turn.calls.map((call) => this.call(call, turn)),
      sources(turn.sources),
      turn.note || (turn.status === "waiting" && !turn.stages.length) ? h("p", { class: "note" }, turn.note || t("waiting")) : null,
      turn.status === "failed" ? h("p", { class: "error", role: "alert" }, turn.error.message) : null,
      numbers(turn),
    );
  }

  call(call, turn) {
    const shown = h("details", { class: "call", open: true }, h("summary", {}, `${t("calls")} `, h("code", {}, call.name)), h("pre", {}, pretty(call.arguments)));
    const answered = this.conversation.turns.some((other) => other.role === "tool" && other.id === call.id);
    if (turn.status !== "done" || answered) return shown;
    const keep = (event) => this.typed.set(call.id, event.target.value); // for when the turn is drawn anew
    const field = h("textarea", { rows: 2, "t-aria-label": "resultOfCall", "t-placeholder": "resultOfCall", oninput: keep });
    field.value = this.typed.get(call.id) ?? "";
    shown.append(field, h("button", { type: "button", t: "giveResult", onclick: () => this.answered(call.id, field.value) }));
    return shown;
  }
}

function thought(turn, open) {
  if (!turn.thought) return null;
  const thinking = turn.status === "running" && !turn.content;
  return h("details", { class: "thought", open }, h("summary", {}, t(thinking ? "thinking" : "thought")), h("p", { class: "plain" }, turn.thought));
}

function stages(all) {
  if (!all.length) return null;
  const one = ({ stage, status, detail, duration_s: took, error }) =>
    h(
      "li",
      { class: `stage ${status}` },
      h("b", {}, stage),
      ` ${t(`stage-${status}`)}`,
      took === undefined ? null : ` (${seconds(took)})`,
      detail && status === "running" ? `: ${detail}` : null,
      error ? h("span", { class: "warning" }, ` ${error}`) : null,
    );
  return h("ol", { class: "stages", "t-aria-label": "stages" }, all.map(one));
}

function sources(all) {
  const unique = all.filter((source, index) => all.findIndex((other) => other.url === source.url) === index);
  if (!unique.length) return null;
  const one = (source) => h("li", {}, link(source.url, source.title || source.url), h("small", {}, ` ${placeOf(source.url)}`));
  return h("section", { class: "sources" }, h("b", { t: "sources" }), h("ol", {}, unique.map(one)));
}

/** What marks such as "[1]" stand for: citations count characters of the text, not UTF-16 units. */
function marksOf(turn) {
  if (!turn.sources.length) return new Map();
  const characters = Array.from(turn.content);
  return new Map(turn.sources.map(({ start_index: from, end_index: to, url }) => [characters.slice(from, to).join(""), url]));
}

function numbers({ timing, usage, finish, status }) {
  const told = [];
  if (timing.first !== undefined) told.push(`${t("firstToken")} ${seconds(timing.first)}`);
  if (usage) {
    told.push(`${usage.prompt_tokens} + ${usage.completion_tokens} ${t("tokens")}`);
    const cached = usage.prompt_tokens_details?.cached_tokens;
    if (cached) told.push(`${cached} ${t("cached")}`);
    const writing = timing.total - timing.first;
    if (writing > 0 && usage.completion_tokens > 1) told.push(`${((usage.completion_tokens - 1) / writing).toFixed(1)} ${t("tokensPerSecond")}`);
  }
  if (finish && finish !== "stop") told.push(`${t("ended")} ${finish}`);
  if (status === "stopped") told.push(t("stopped"));
  return told.length ? h("footer", {}, told.join(" · ")) : null;
}

/** The host of an address of the web; any other address as it is, since it is no link. */
function placeOf(address) {
  return /^https?:/.test(address) && URL.canParse(address) ? new URL(address).host : address;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
