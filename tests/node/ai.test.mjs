// The AI SDK with its default OpenAI provider, which uses the Responses API. BASE_URL: as before.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { CITIES, QUESTION, sunny } from "./shots.mjs";

const openai = createOpenAI({ baseURL: `${process.env.BASE_URL}/v1`, apiKey: "none" });
const model = openai("smollm2:135m");
// Nothing is kept by the service: the SDK must send items themselves, not references to them.
const providerOptions = { openai: { store: false } };
const common = { model, providerOptions, temperature: 0, maxRetries: 0 };
const weather = tool({
  description: "Weather in a city",
  inputSchema: z.object({ city: z.string().max(20) }),
  execute: async ({ city }) => sunny(city),
});
const SHOTS = CITIES.flatMap((city, number) => {
  const call = { toolCallId: `call_${number}`, toolName: "weather" };
  const output = { type: "text", value: sunny(city) };
  return [
    { role: "user", content: `Weather in ${city}?` },
    { role: "assistant", content: [{ type: "tool-call", ...call, input: { city } }] },
    { role: "tool", content: [{ type: "tool-result", ...call, output }] },
    { role: "assistant", content: `It is sunny in ${city}.` },
  ];
});
const asked = { messages: [...SHOTS, QUESTION], tools: { weather }, maxOutputTokens: 60 };

test("a conversation goes on over several turns", async () => {
  const messages = [{ role: "user", content: "Say hello." }];
  for (const next of ["And again?", "Thank you."]) {
    const { text, response } = await generateText({ ...common, messages, maxOutputTokens: 8 });
    assert.ok(text);
    messages.push(...response.messages, { role: "user", content: next });
  }
});

test("an assistant's turn may be plain text", async () => {
  const messages = [
    { role: "user", content: "Say hello." },
    { role: "assistant", content: "Hello!" },
    { role: "user", content: "Again." },
  ];
  const { text, finishReason } = await generateText({ ...common, messages, maxOutputTokens: 8 });
  assert.ok(text);
  assert.equal(finishReason, "length");
});

test("a stream brings its text in pieces and its usage at the end", async () => {
  const result = streamText({ ...common, prompt: "Say hello.", maxOutputTokens: 8 });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  assert.equal(await result.text, pieces.join(""));
  assert.equal((await result.usage).outputTokens, 8);
});

test("a tool is called, run and answered", async () => {
  const { steps, text } = await generateText({
    ...common,
    ...asked,
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "none" : "required" }),
  });
  assert.equal(steps.length, 2);
  assert.match(String(steps[0].toolResults[0].output), /^Sunny in /);
  assert.ok(text);
});

test("a tool's call is streamed", async () => {
  const result = streamText({ ...common, ...asked, toolChoice: "required" });
  const calls = await result.toolCalls;
  assert.equal(typeof calls[0].input.city, "string");
});

test("an object of a schema is generated", async () => {
  const schema = z.object({ name: z.string().max(20), age: z.number().int() });
  const prompt = "Invent a person as JSON.";
  const { output } = await generateText({ ...common, prompt, output: Output.object({ schema }), maxOutputTokens: 100 });
  assert.ok(Number.isInteger(output.age));
});
