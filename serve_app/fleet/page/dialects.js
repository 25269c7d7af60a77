// How each dialect writes a chat request, and reads an answer, whole or as a stream.

const parse = (text, otherwise) => { try { return JSON.parse(text); } catch { return otherwise; } };
const bare = (url) => url.slice(url.indexOf(",") + 1);
const kind = (url) => url.slice(5, url.indexOf(";"));
const given = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== ""));

const functions = (tools) => tools && tools.map((tool) => tool.function || tool);
const nested = (tools) => tools && functions(tools).map((one) => ({ type: "function", function: one }));

// `turns`: {role, text, images}. `o`: {system, stream, thinking, temperature, max_tokens, tools}.
export const DIALECTS = {
  openai: {
    title: "OpenAI chat",
    path: "v1/chat/completions",
    body: (model, turns, o) => given({
      model,
      messages: [
        ...(o.system ? [{ role: "system", content: o.system }] : []),
        ...turns.map(({ role, text, images }) => ({
          role,
          content: images && images.length
            ? [{ type: "text", text }, ...images.map((url) => ({ type: "image_url", image_url: { url } }))]
            : text,
        })),
      ],
      stream: o.stream, stream_options: o.stream ? { include_usage: true } : undefined,
      temperature: o.temperature, max_tokens: o.max_tokens,
      reasoning_effort: o.thinking ? "medium" : undefined,
      tools: nested(o.tools),
    }),
    read(event, answer) {
      const choice = (event.choices || [])[0] || {};
      const message = choice.delta || choice.message || {};
      answer.text(message.content);
      answer.think(message.reasoning || message.reasoning_content);
      (message.tool_calls || []).forEach((call, i) =>
        answer.tool(call.index ?? i, call.function.name, call.function.arguments));
      if (event.usage) answer.count(event.usage.completion_tokens);
    },
  },
  responses: {
    title: "OpenAI responses",
    path: "v1/responses",
    body: (model, turns, o) => given({
      model, instructions: o.system,
      input: turns.map(({ role, text, images }) => ({
        role,
        content: images && images.length
          ? [{ type: "input_text", text }, ...images.map((url) => ({ type: "input_image", image_url: url }))]
          : text,
      })),
      stream: o.stream, temperature: o.temperature, max_output_tokens: o.max_tokens,
      reasoning: o.thinking ? { effort: "medium" } : undefined,
      tools: o.tools && functions(o.tools).map((one) => ({ type: "function", ...one })),
    }),
    read(event, answer) {
      const { type, delta, item } = event;
      if (type === "response.output_text.delta") answer.text(delta);
      if (/^response\.reasoning(_summary)?_text\.delta$/.test(type)) answer.think(delta);
      if (type === "response.output_item.added" && item.type === "function_call") answer.tool(event.output_index, item.name, "");
      if (type === "response.function_call_arguments.delta") answer.tool(event.output_index, "", delta);
      if (event.output) event.output.forEach((one, i) => item_(one, i, answer)); // whole
      const { usage } = event.response || event;
      if (usage) answer.count(usage.output_tokens);
    },
  },
  ollama: {
    title: "Ollama chat",
    path: "api/chat",
    body: (model, turns, o) => given({
      model,
      messages: [
        ...(o.system ? [{ role: "system", content: o.system }] : []),
        ...turns.map(({ role, text, images }) =>
          ({ role, content: text, ...(images && images.length ? { images: images.map(bare) } : {}) })),
      ],
      stream: o.stream,
      think: o.thinking || undefined,
      options: given({ temperature: o.temperature, num_predict: o.max_tokens }),
      tools: nested(o.tools),
    }),
    read(event, answer) {
      const message = event.message || {};
      answer.text(message.content);
      answer.think(message.thinking);
      (message.tool_calls || []).forEach((call) =>
        answer.tool(undefined, call.function.name, JSON.stringify(call.function.arguments)));
      if (event.eval_count) answer.count(event.eval_count);
    },
  },
  anthropic: {
    title: "Anthropic messages",
    path: "v1/messages",
    body: (model, turns, o) => given({
      model, system: o.system, stream: o.stream, temperature: o.temperature, max_tokens: o.max_tokens || 1024,
      messages: turns.map(({ role, text, images }) => ({
        role,
        content: images && images.length
          ? [...images.map((url) => ({ type: "image", source: { type: "base64", media_type: kind(url), data: bare(url) } })),
             { type: "text", text }]
          : text,
      })),
      thinking: o.thinking ? { type: "enabled", budget_tokens: 1024 } : undefined,
      tools: o.tools && functions(o.tools).map(({ name, description, parameters, input_schema }) =>
        given({ name, description, input_schema: input_schema || parameters })),
    }),
    read(event, answer) {
      (event.content || []).forEach((block, i) => block_(block, i, answer));
      if (event.content_block) block_(event.content_block, event.index, answer);
      if (event.delta) {
        answer.text(event.delta.text);
        answer.think(event.delta.thinking);
        if (event.delta.partial_json) answer.tool(event.index, "", event.delta.partial_json);
      }
      if (event.usage && event.usage.output_tokens) answer.count(event.usage.output_tokens);
    },
  },
};

function item_(item, index, answer) {
  (item.content || []).forEach((part) => answer.text(part.text));
  (item.summary || []).forEach((part) => answer.think(part.text));
  if (item.type === "function_call") answer.tool(index, item.name, item.arguments);
}

function block_(block, index, answer) {
  answer.text(block.text);
  answer.think(block.thinking);
  if (block.type === "tool_use") {
    const input = block.input && Object.keys(block.input).length ? JSON.stringify(block.input) : "";
    answer.tool(index, block.name, input);
  }
}

// Yields the JSON values of a stream: server-sent events, or one value a line.
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value || (done ? "\n" : ""))).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const text = line.startsWith("data:") ? line.slice(5) : line.startsWith("{") ? line : "";
      const event = text && parse(text, null);
      if (event) yield event;
    }
    if (done) return;
  }
}

// The sentence of an error, which the dialects send as an object, a string, or an event of its own.
export function problem(event) {
  const error = event.error || (event.response && event.response.error) || (event.type === "error" && event);
  if (!error) return "";
  return typeof error === "string" ? error : String(error.message || JSON.stringify(error));
}

// A request with fields of the user's own, which may also replace some or join `options`.
export const withFields = (body, fields) => ({
  ...body, ...fields,
  ...(body.options && fields && fields.options ? { options: { ...body.options, ...fields.options } } : {}),
});

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl(url, body, hasKey) {
  const key = hasKey ? ' \\\n  -H "Authorization: Bearer $LLM_API_KEY"' : "";
  return `curl -N ${quoted(url)} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d ${quoted(JSON.stringify(body))}`;
}

export function asPython(url, body, hasKey) {
  const key = hasKey ? ', "Authorization": "Bearer " + os.environ["LLM_API_KEY"]' : "";
  return `import json
import os
import urllib.request

body = ${literal(body, "")}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(body).encode(),
    headers={"Content-Type": "application/json"${key}},
)
with urllib.request.urlopen(request) as answer:
    for line in answer:
        print(line.decode(), end="", flush=True)
`;
}

// A value as Python writes it. A string of JSON is one of Python too.
function literal(value, indent) {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const parts = list
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`);
  if (!parts.length) return list ? "[]" : "{}";
  const [open, close] = list ? "[]" : "{}";
  return `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}`;
}
