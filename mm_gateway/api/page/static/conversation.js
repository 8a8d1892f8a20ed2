// One conversation with a model: what was said, how the next request looks, and how its stream changes the last turn.
import { events, request } from "./api.js";

const WORKFLOW_PREFIX = "mm-orch/";

/** A turn of the model, empty. status: waiting, running, done, stopped or failed. */
function newReply() {
  return { role: "assistant", content: "", thought: "", calls: [], stages: [], sources: [], status: "waiting", note: "", timing: {} };
}

export class Conversation {
  constructor() {
    this.turns = [];
    this.running = null;
  }

  /** The body of a request that asks for what comes next. fields: of the body, beside model and messages. system: instructions, or "". */
  body(model, { fields = {}, system = "" } = {}) {
    const messages = system ? [{ role: "system", content: system }] : [];
    this.turns.forEach((turn, index) => {
      const next = this.turns[index + 1];
      if (isEmpty(turn) || (turn.role === "user" && next !== undefined && isEmpty(next))) return; // a failed turn, and what asked for it
      messages.push(message(turn));
    });
    const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...fields };
    if (model.startsWith(WORKFLOW_PREFIX)) body.workflow = { events: true, ...fields.workflow };
    return body;
  }

  say(text) {
    this.turns.push({ role: "user", content: text });
  }

  answerCall(id, text) {
    this.turns.push({ role: "tool", id, content: text });
  }

  /** Calls of the last reply that nobody has answered. */
  openCalls() {
    const reply = this.turns.findLast((turn) => turn.role === "assistant");
    return (reply?.calls ?? []).filter(({ id }) => !this.turns.some((turn) => turn.role === "tool" && turn.id === id));
  }

  /** Ask for the next turn; `changed` is called whenever something of it has come. Ends without raising: the turn says how it went. */
  async next(body, changed) {
    const turn = newReply();
    this.turns.push(turn);
    this.running = new AbortController();
    const started = performance.now();
    changed();
    try {
      const response = await request("/v1/chat/completions", { body, signal: this.running.signal });
      for await (const event of events(response)) {
        if (event.comment !== undefined) turn.note = event.comment;
        else take(turn, event.data, (performance.now() - started) / 1000);
        changed();
      }
      turn.status = "done";
    } catch (error) {
      turn.status = error.name === "AbortError" ? "stopped" : "failed";
      turn.error = error;
    }
    turn.note = "";
    turn.timing.total = (performance.now() - started) / 1000;
    this.running = null;
    changed();
  }

  stop() {
    this.running?.abort();
  }

  clear() {
    this.stop();
    this.turns = [];
  }
}

function isEmpty(turn) {
  return turn.role === "assistant" && !["waiting", "running"].includes(turn.status) && !turn.content && !turn.calls.length;
}

function message(turn) {
  if (turn.role === "user") return { role: "user", content: turn.content };
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.id, content: turn.content };
  const calls = turn.calls.map(({ id, name, arguments: given }) => ({ id, type: "function", function: { name, arguments: given } }));
  return {
    role: "assistant",
    content: turn.content || null,
    ...(turn.thought ? { reasoning_content: turn.thought } : {}),
    ...(calls.length ? { tool_calls: calls } : {}),
  };
}

function take(turn, chunk, elapsed) {
  if (chunk.usage) turn.usage = chunk.usage;
  for (const choice of chunk.choices ?? []) {
    const delta = choice.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    if (thought || delta.content || delta.tool_calls) {
      turn.status = "running";
      turn.note = "";
      turn.timing.first ??= elapsed;
    }
    turn.thought += thought;
    turn.content += delta.content ?? delta.refusal ?? "";
    for (const piece of delta.tool_calls ?? []) takeCall(turn.calls, piece);
    for (const { url_citation: cited } of delta.annotations ?? []) if (cited) turn.sources.push(cited);
    if (delta.workflow) takeStage(turn, delta.workflow);
    if (choice.finish_reason) turn.finish = choice.finish_reason;
  }
}

function takeCall(calls, piece) {
  const call = (calls[piece.index] ??= { id: "", name: "", arguments: "" });
  call.id = piece.id ?? call.id;
  call.name = piece.function?.name ?? piece.custom?.name ?? call.name;
  call.arguments += piece.function?.arguments ?? piece.custom?.input ?? "";
}

function takeStage(turn, event) {
  if (event.status === "completed") {
    for (const source of event.sources ?? []) {
      if (!turn.sources.some((known) => known.url === source.url)) turn.sources.push(source);
    }
    return;
  }
  const known = turn.stages.find((stage) => stage.stage === event.stage);
  if (known) Object.assign(known, event);
  else turn.stages.push(event);
}
