// A request as it is sent, for a shell and for Python. Whatever stands in it is quoted: pasted, it runs as it is and as nothing else.

/** A command for POSIX shells. keyed: whether the gateway asks for a key, which is taken from the environment. */
export function curl(body, origin, keyed) {
  const key = keyed ? ` -H "Authorization: Bearer $MM_GATEWAY_KEY"` : "";
  return `curl -N ${shell(`${origin}/v1/chat/completions`)} -H 'Content-Type: application/json'${key} \\\n  -d ${shell(JSON.stringify(body))}`;
}

function shell(text) {
  // Inside '…' nothing but ' itself ends the text; NUL cannot stand in an argument, and JSON writes it as \u0000.
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const KNOWN = new Set(["model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "seed", "reasoning_effort", "tools"]);

/** A program for the openai package; fields that it does not know go through its `extra_body`. */
export function python(body, origin, keyed) {
  const fields = Object.entries(body).filter(([name]) => KNOWN.has(name));
  const further = Object.fromEntries(Object.entries(body).filter(([name]) => !KNOWN.has(name)));
  if (Object.keys(further).length) fields.push(["extra_body", further]);
  const key = keyed ? `os.environ["MM_GATEWAY_KEY"]` : `"none"`;
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${origin}/v1`)}, api_key=${key})`,
    "stream = client.chat.completions.create(",
    ...fields.map(([name, value]) => `    ${name}=${literal(value)},`),
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "print()",
  ].join("\n");
}

/** A JSON value as Python writes it. JSON's strings are Python's too, once what ends a line or is no text is escaped. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") {
    return JSON.stringify(value).replace(/[\x7f-\x9f\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`).join(", ")}}`;
  return String(value);
}
