// The gateway's API: requests with the reader's keys, errors in its words, streams as events.

const KEYS = { client: "mm-gateway.key", admin: "mm-gateway.admin-key" };

/** Keys live in this tab alone, and end with it. */
export function key(kind) {
  return sessionStorage.getItem(KEYS[kind]) ?? "";
}

export function setKey(kind, value) {
  if (value) sessionStorage.setItem(KEYS[kind], value);
  else sessionStorage.removeItem(KEYS[kind]);
}

/** status: of HTTP; 0 where no answer came. message: the server's own. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * A response that is no error.
 * options: method; body, sent as JSON; signal; kind: which key goes with it, "client" or "admin".
 */
export async function request(path, { method, body, signal, kind = "client" } = {}) {
  const headers = {};
  // A header holds no other characters; what is typed into the dialog may.
  if (key(kind)) headers.authorization = `Bearer ${key(kind).replace(/[^\x21-\x7e]/g, "")}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, String(error.message));
  }
  if (!response.ok) throw new ApiError(response.status, errorMessage(await response.text(), response.status));
  return response;
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

/** A model's id as part of a path; ids may hold slashes, which stay. */
export function inPath(id) {
  return id.split("/").map(encodeURIComponent).join("/");
}

/** The events of a stream: {data: JSON} or {comment: text}, until `[DONE]`. */
export async function* events(response) {
  let buffered = "";
  const decoder = new TextDecoder();
  for await (const piece of chunks(response.body)) {
    buffered += decoder.decode(piece, { stream: true });
    const blocks = buffered.split("\n\n");
    buffered = blocks.pop();
    for (const block of blocks) {
      for (const line of block.split("\n")) {
        if (line.startsWith(":")) yield { comment: line.slice(1).trim() };
        else if (line === "data: [DONE]") return;
        else if (line.startsWith("data: ")) {
          const data = JSON.parse(line.slice("data: ".length));
          if (data.error) throw new ApiError(response.status, String(data.error.message));
          yield { data };
        }
      }
    }
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.releaseLock();
  }
}

function errorMessage(text, status) {
  try {
    return String(JSON.parse(text).error.message);
  } catch {
    return text.slice(0, 500) || `HTTP ${status}`;
  }
}
