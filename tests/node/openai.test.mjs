// OpenAI's own Node SDK and its helpers. BASE_URL: a service whose model has tools.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CITIES, QUESTION, sunny } from "./shots.mjs";

const client = new OpenAI({ baseURL: `${process.env.BASE_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = "smollm2:135m";
const Person = z.object({ name: z.string().max(20), age: z.number().int() });
const TOOL = {
  type: "function",
  name: "get_weather",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string", maxLength: 20 } },
    required: ["city"],
    additionalProperties: false,
  },
};

const SHOTS = CITIES.flatMap((city, number) => [
  { role: "user", content: `Weather in ${city}?` },
  { type: "function_call", call_id: `call_${number}`, name: "get_weather", arguments: JSON.stringify({ city }) },
  { type: "function_call_output", call_id: `call_${number}`, output: sunny(city) },
  { role: "assistant", content: `It is sunny in ${city}.` },
]);

test("responses.create answers with text", async () => {
  const response = await client.responses.create({ model, input: "Say hello.", temperature: 0, max_output_tokens: 8 });
  assert.ok(response.output_text);
  assert.equal(response.incomplete_details?.reason, "max_output_tokens");
});

test("responses.stream gathers the answer that it streamed", async () => {
  const stream = client.responses.stream({ model, input: "Say hello.", temperature: 0, max_output_tokens: 8 });
  let text = "";
  let sequence = 0;
  for await (const event of stream) {
    assert.equal(event.sequence_number, sequence++);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  const final = await stream.finalResponse();
  assert.ok(text);
  assert.equal(final.output_text, text);
});

test("responses.parse gives the object of a schema", async () => {
  const response = await client.responses.parse({
    model,
    input: "Invent a person as JSON.",
    temperature: 0,
    max_output_tokens: 100,
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.ok(Number.isInteger(response.output_parsed.age));
});

test("a function is called, and its result answered", async () => {
  const input = [...SHOTS, QUESTION];
  const common = { model, tools: [TOOL], temperature: 0, max_output_tokens: 60 };
  const stream = client.responses.stream({ ...common, input, tool_choice: "required" });
  const called = await stream.finalResponse();
  const call = called.output.find((item) => item.type === "function_call");
  assert.equal(typeof JSON.parse(call.arguments).city, "string");
  const output = { type: "function_call_output", call_id: call.call_id, output: sunny("Paris") };
  const next = [...input, ...called.output, output];
  const answer = await client.responses.create({ ...common, input: next, tool_choice: "none" });
  assert.ok(answer.output_text);
});
