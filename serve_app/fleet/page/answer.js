// Sends one request of the playground and collects its answer.
import { events, problem } from "./dialects.js";

export const MAX_SHOWN = 200000; // characters of one answer
const MAX_CALLS = 50; // tool calls of one answer,
const MAX_CALL = 20000; // and characters of one
const MAX_PROBLEM = 2000;

// Collects an answer piece by piece. What a model wrote stays text.
class Collected {
  constructor(changed) {
    Object.assign(this, { parts: [], size: 0, thoughts: "", tools: new Map(), more: 0, tokens: null, failed: "", started: performance.now(),
      first: null, ended: null, changed });
  }
  begin() { this.first ??= performance.now(); }
  text(piece) {
    if (!piece) return;
    this.begin();
    const text = String(piece);
    if (this.size < MAX_SHOWN) this.parts.push(text.slice(0, MAX_SHOWN - this.size));
    this.size += text.length;
  }
  think(piece) {
    if (!piece) return;
    this.begin();
    this.thoughts += String(piece).slice(0, MAX_SHOWN - this.thoughts.length);
  }
  tool(index, name, input) {
    this.begin();
    const at = index ?? this.tools.size;
    if (this.tools.size === MAX_CALLS && !this.tools.has(at)) { this.more += 1; return; }
    const was = this.tools.get(at) || { name: "", input: "" };
    this.tools.set(at, { name: was.name || String(name || "").slice(0, 200), input: (was.input + (input || "")).slice(0, MAX_CALL) });
  }
  count(tokens) { this.tokens = tokens ?? this.tokens; }
  end() { this.ended = performance.now(); }
  get speed() {
    const generating = (this.ended - this.first) / 1000;
    return this.tokens > 1 && generating > 0.005 ? (this.tokens - 1) / generating : null;
  }
}

export async function ask({ url, body, dialect, headers, signal, changed }) {
  const answer = new Collected(changed);
  changed(answer);
  try {
    const response = await fetch(url, {
      method: "POST", body: JSON.stringify(body), signal, headers: { "content-type": "application/json", ...headers },
    });
    if (!response.ok) {
      const words = problem(await response.json().catch(() => ({})));
      answer.failed = `${response.status}: ${words.slice(0, MAX_PROBLEM) || "no explanation"}`;
    } else if (body.stream) {
      for await (const event of events(response.body)) {
        if (problem(event)) answer.failed = problem(event).slice(0, MAX_PROBLEM);
        else dialect.read(event, answer);
        changed(answer);
      }
    } else {
      dialect.read(await response.json(), answer);
    }
  } catch (error) {
    answer.failed = error.name === "AbortError" ? "Stopped." : "The connection broke off.";
  }
  answer.end();
  changed(answer);
  return answer;
}
