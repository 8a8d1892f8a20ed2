// The Vercel AI SDK against a gateway whose address is in GATEWAY, through both of its providers for servers like OpenAI's.

import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, Output, RetryError, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = `${process.env.GATEWAY}/v1`;
const compatible = createOpenAICompatible({ name: "gateway", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true });
const official = createOpenAI({ baseURL, apiKey: "none" });
const PROVIDERS = [
  ["openai-compatible", (model) => compatible.chatModel(model)],
  ["openai", (model) => official.chat(model)],
  ["openai's default, responses", (model) => official(model)],
];
const Weather = z.object({ city: z.enum(["Ems", "Wien"]), days: z.int().min(1).max(9) });
const REAL = ["gpt2", "llama", "qwen2"];
const prompt = "What is the weather?";
// One call a turn: random weights would call until their tokens are spent, and a call that is cut off is not run.
const oneCall = { openai: { parallelToolCalls: false }, gateway: { parallel_tool_calls: false } };
const limits = { maxOutputTokens: 140, maxRetries: 0, seed: 1 };

for (const [provider, chat] of PROVIDERS) {
  for (const name of ["mock", "hub/remote", "llama"]) {
    test(`${provider}, ${name}: a stream holds what comes whole`, async () => {
      const options = { model: chat(name), system: "Be brief.", prompt, temperature: 0, ...limits, maxOutputTokens: 12 };
      const whole = await generateText(options);
      const stream = streamText(options);
      let text = "";
      for await (const piece of stream.textStream) text += piece;
      assert.equal(text, whole.text);
      assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
      assert.ok(whole.usage.outputTokens > 0 && whole.usage.inputTokens > 0);
      assert.equal(await stream.finishReason, whole.finishReason);
    });
  }

  for (const name of REAL) {
    test(`${provider}, ${name}: objects follow their schema, whole and streamed`, async () => {
      const options = { model: chat(name), prompt, ...limits };
      Weather.parse((await generateText({ ...options, output: Output.object({ schema: Weather }) })).output);
      Weather.parse((await generateObject({ ...options, schema: Weather })).object);
      const stream = streamText({ ...options, output: Output.object({ schema: Weather }) });
      let partials = 0;
      for await (const _ of stream.partialOutputStream) partials += 1;
      assert.ok(partials > 1);
      Weather.parse(await stream.output);
      const choice = Output.choice({ options: ["red", "green"] });
      assert.ok(["red", "green"].includes((await generateText({ ...options, output: choice })).output));
    });

    test(`${provider}, ${name}: required tools are run, whole and streamed`, async () => {
      const asked = [];
      const tools = {
        weather: tool({
          description: "Weather of a city",
          inputSchema: Weather,
          execute: async (input) => {
            asked.push(input);
            return { sky: "clear" };
          },
        }),
      };
      const options = { model: chat(name), prompt, tools, toolChoice: "required", providerOptions: oneCall, ...limits };
      const whole = await generateText(options);
      assert.equal(whole.finishReason, "tool-calls");
      assert.deepEqual(whole.toolResults.map((result) => result.output), [{ sky: "clear" }]);
      const stream = streamText({ ...options, toolChoice: { type: "tool", toolName: "weather" } });
      const parts = [];
      for await (const part of stream.fullStream) parts.push(part.type);
      assert.ok(parts.filter((type) => type === "tool-input-delta").length > 1);
      assert.ok(parts.includes("tool-call") && parts.includes("tool-result"));
      asked.forEach((input) => Weather.parse(input));
    });
  }

  test(`${provider}: an answer follows the results of the tools`, async () => {
    const weather = tool({ description: "Weather", inputSchema: Weather, execute: async () => "clear" });
    const result = await generateText({
      model: chat("qwen2"),
      prompt,
      tools: { weather },
      providerOptions: oneCall,
      stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
      ...limits,
    });
    assert.equal(result.steps.length, 2);
    assert.ok(result.steps[0].toolResults.length > 0 && result.text.length > 0);
  });

  for (const [name, status, retryable] of [["400", 400, false], ["404", 404, false], ["429", 429, true], ["503", 503, true], ["context", 400, false]]) {
    test(`${provider}: error ${name} is an APICallError of status ${status}`, async () => {
      const failing = { model: chat("mock"), prompt: `!mock error=${name}`, maxRetries: 0 };
      await assert.rejects(generateText(failing), (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.equal(error.statusCode, status);
        assert.equal(error.isRetryable, retryable);
        assert.ok(JSON.parse(error.responseBody).error.message === error.message);
        return true;
      });
    });
  }

  test(`${provider}: retries are made, and told`, async () => {
    await assert.rejects(generateText({ model: chat("mock"), prompt: "!mock error=503", maxRetries: 1 }), (error) => {
      assert.ok(RetryError.isInstance(error), String(error));
      assert.equal(error.errors.length, 2);
      return true;
    });
  });

  test(`${provider}: an error in mid-stream follows the text`, async () => {
    const stream = streamText({ model: chat("mock"), prompt: "!mock error=500 after=3", maxRetries: 0, onError: () => {} });
    let text = "";
    let failed = null;
    for await (const part of stream.fullStream) {
      if (part.type === "text-delta") text += part.text;
      if (part.type === "error") failed = part.error;
    }
    assert.equal(text.split(" ").length, 3);
    assert.ok(failed !== null);
  });

  test(`${provider}: an abort ends the request`, async () => {
    const model = chat("mock");
    await assert.rejects(generateText({ model, prompt: "!mock error=hang", abortSignal: AbortSignal.timeout(200), maxRetries: 0 }));
  });
}

test("completions through both providers", async () => {
  for (const model of [compatible.completionModel("gpt2"), official.completion("gpt2")]) {
    const options = { model, prompt: "Once upon a time", temperature: 0, ...limits, maxOutputTokens: 6 };
    const whole = await generateText(options);
    let text = "";
    for await (const piece of streamText(options).textStream) text += piece;
    assert.equal(text, whole.text);
  }
});

test("embeddings through both providers", async () => {
  const values = ["Hello", "Once upon a time"];
  const [ours, theirs] = await Promise.all(
    [compatible.embeddingModel("llama"), official.embedding("llama")].map((model) => embedMany({ model, values })),
  );
  assert.equal(ours.embeddings.length, 2);
  assert.ok(ours.embeddings[0].length === 64 && ours.usage.tokens > 0);
  ours.embeddings[1].forEach((value, index) => assert.ok(Math.abs(value - theirs.embeddings[1][index]) < 1e-6));
});
