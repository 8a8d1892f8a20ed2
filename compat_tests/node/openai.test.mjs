// openai-node against a gateway whose address is in GATEWAY.

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Hello!" }];
const Weather = z.object({ city: z.enum(["Ems", "Wien"]), days: z.int().min(1).max(9) });
const REAL = ["gpt2", "llama", "qwen2"];

for (const model of ["mock", "hub/remote", ...REAL]) {
  test(`${model}: a stream holds what comes whole`, async () => {
    const options = { model, messages, max_tokens: 12, temperature: 0 };
    const whole = await client.chat.completions.create(options);
    const stream = await client.chat.completions.create({ ...options, stream: true, stream_options: { include_usage: true } });
    let text = "";
    let usage = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
    assert.equal(whole._request_id.slice(0, 4), "req_");
  });
}

test("the stream helper emits events and accumulates", async () => {
  const seen = [];
  const stream = client.chat.completions.stream({ model: "llama", messages, max_tokens: 8, temperature: 0 });
  stream.on("content", (delta) => seen.push(delta));
  assert.equal(await stream.finalContent(), seen.join(""));
});

for (const model of REAL) {
  test(`${model}: parse gives an object, streamed too`, async () => {
    const options = { model, messages, max_tokens: 130, response_format: zodResponseFormat(Weather, "weather") };
    const reply = await client.chat.completions.parse(options);
    Weather.parse(reply.choices[0].message.parsed);
    const final = await client.chat.completions.stream(options).finalChatCompletion();
    Weather.parse(final.choices[0].message.parsed);
  });

  test(`${model}: required tools stream as they come whole`, async () => {
    const tools = [zodFunction({ name: "weather", parameters: Weather, description: "Weather of a city" })];
    const options = { model, messages, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 130, seed: 1 };
    const [call] = (await client.chat.completions.create(options)).choices[0].message.tool_calls;
    Weather.parse(JSON.parse(call.function.arguments));
    const final = await client.chat.completions.stream(options).finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    assert.equal(final.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
    assert.deepEqual(final.choices[0].message.tool_calls[0].function.parsed_arguments, JSON.parse(call.function.arguments));
  });
}

test("runTools calls the function and goes on with its result", async () => {
  const called = [];
  const weather = (args) => {
    called.push(args);
    return "sunny";
  };
  const runner = client.chat.completions.runTools(
    {
      model: "qwen2",
      messages,
      max_tokens: 130,
      tool_choice: { type: "function", function: { name: "weather" } },
      tools: [zodFunction({ name: "weather", parameters: Weather, function: weather, description: "Weather of a city" })],
    },
    { maxChatCompletions: 2 },
  );
  const result = await runner.finalFunctionToolCallResult();
  assert.equal(result, "sunny");
  Weather.parse(called[0]);
});

test("completions, log-probabilities, several prompts", async () => {
  const reply = await client.completions.create({ model: "gpt2", prompt: ["Hello", "Once"], max_tokens: 4, temperature: 0, logprobs: 2 });
  assert.equal(reply.choices.length, 2);
  assert.equal(reply.choices[1].logprobs.tokens.length, 4);
  const chat = await client.chat.completions.create({ model: "llama", messages, max_tokens: 3, logprobs: true, top_logprobs: 2 });
  assert.equal(chat.choices[0].logprobs.content[0].top_logprobs.length, 2);
});

test("embeddings in both encodings", async () => {
  const input = ["Hello", "Once upon a time"];
  const decoded = await client.embeddings.create({ model: "llama", input }); // asks for base64, and decodes it
  const floats = await client.embeddings.create({ model: "llama", input, encoding_format: "float" });
  assert.equal(decoded.data.length, 2);
  decoded.data[1].embedding.forEach((value, index) => assert.ok(Math.abs(value - floats.data[1].embedding[index]) < 1e-6));
});

for (const model of ["mock", "hub/remote", "llama"]) {
  test(`${model}: a response streams as it comes whole, and is followed`, async () => {
    const options = { model, input: "Hello", max_output_tokens: 12, temperature: 0 };
    const whole = await client.responses.create(options);
    const stream = client.responses.stream(options);
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(text, whole.output_text);
    assert.equal(final.output_text, whole.output_text);
    const next = await client.responses.create({ ...options, input: "And then?", previous_response_id: whole.id });
    assert.equal(next.previous_response_id, whole.id);
    assert.ok(next.usage.input_tokens > whole.usage.input_tokens);
  });
}

test("a response is parsed, and calls what it has to", async () => {
  const options = { model: "qwen2", input: "Weather?", max_output_tokens: 140 };
  const parsed = await client.responses.parse({ ...options, text: { format: zodTextFormat(Weather, "weather") } });
  Weather.parse(parsed.output_parsed);
  const tools = [zodResponsesFunction({ name: "weather", parameters: Weather, description: "Weather of a city" })];
  const called = await client.responses.parse({ ...options, tools, tool_choice: "required", parallel_tool_calls: false });
  const [call] = called.output.filter((item) => item.type === "function_call");
  Weather.parse(call.parsed_arguments);
  const results = [{ type: "function_call_output", call_id: call.call_id, output: "sunny" }];
  const answered = await client.responses.create({ ...options, input: results, previous_response_id: called.id });
  assert.ok(answered.output_text.length > 0);
});

test("models are listed and retrieved", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("mock") && ids.includes("hub/remote"));
  assert.equal((await client.models.retrieve("hub/remote")).id, "hub/remote");
});

test("raw responses carry the headers", async () => {
  const { data, response, request_id } = await client.chat.completions.create({ model: "mock", messages }).withResponse();
  assert.ok(data.choices.length === 1 && response.headers.get("openai-processing-ms") !== null);
  assert.equal(request_id, response.headers.get("x-request-id"));
});

const ERRORS = [
  ["400", OpenAI.BadRequestError],
  ["401", OpenAI.AuthenticationError],
  ["403", OpenAI.PermissionDeniedError],
  ["404", OpenAI.NotFoundError],
  ["409", OpenAI.ConflictError],
  ["422", OpenAI.UnprocessableEntityError],
  ["429", OpenAI.RateLimitError],
  ["500", OpenAI.InternalServerError],
  ["503", OpenAI.InternalServerError],
];
for (const [name, kind] of ERRORS) {
  test(`error ${name} is ${kind.name}`, async () => {
    for (const stream of [false, true]) {
      const failing = client.chat.completions.create({ model: "mock", stream, messages: [{ role: "user", content: `!mock error=${name}` }] });
      await assert.rejects(failing, (error) => error.constructor === kind && error.status === Number(name) && error.requestID.startsWith("req_"));
    }
  });
}

test("an error in mid-stream is thrown after the text", async () => {
  let text = "";
  const stream = await client.chat.completions.create({ model: "mock", stream: true, messages: [{ role: "user", content: "!mock error=500 after=3" }] });
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  }, OpenAI.APIError);
  assert.equal(text.split(" ").length, 3);
});

test("timeouts, aborts and a server that is not there", async () => {
  const hang = { model: "mock", messages: [{ role: "user", content: "!mock error=hang" }] };
  await assert.rejects(client.chat.completions.create(hang, { timeout: 200 }), OpenAI.APIConnectionTimeoutError);
  await assert.rejects(client.chat.completions.create(hang, { signal: AbortSignal.timeout(200) }), OpenAI.APIUserAbortError);
  const nowhere = new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: "none", maxRetries: 0 });
  await assert.rejects(nowhere.models.list(), OpenAI.APIConnectionError);
  const stream = await client.chat.completions.create({ model: "slow", messages, stream: true });
  for await (const _ of stream) break; // leaving the loop aborts the request
  assert.ok(stream.controller.signal.aborted);
});
