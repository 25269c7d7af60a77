// One chat request: sent, judged, measured and written down.

import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Rate, Trend } from 'k6/metrics';

import { dialects, message, parse, readEnd } from './dialects.js';
import { distribution, random, words } from './lengths.js';
import { settings } from './settings.js';

const metrics = {
  ttft: new Trend('llm_ttft', true),
  e2e: new Trend('llm_e2e', true),
  failed: new Rate('llm_failed'),
  outputTokens: new Counter('llm_output_tokens'),
};

const promptTokens = distribution(settings.promptTokens);
const answerTokens = distribution(settings.answerTokens);
const TIMED_OUT = 1050;
const CUT = 'context canceled'; // by the end of the run

// Each model in each dialect, streamed and whole: they take turns.
const kinds = settings.models.flatMap((model) =>
  settings.dialects.flatMap((name) => settings.streams.map((stream) => [model, name, stream])));

// Before the load: one sentence instead of a thousand failed requests.
export function checkService() {
  const unknown = settings.dialects.filter((name) => !dialects[name]);
  if (unknown.length) {
    exec.test.abort(`there is no dialect ${unknown}; there are: ${Object.keys(dialects)}`);
  } else if (http.get(`${settings.baseUrl}/`, { timeout: '10s' }).status === 0) {
    exec.test.abort(`nothing answers at ${settings.baseUrl}: start it (make run), or set BASE_URL`);
  }
}

// `tags` go to every metric, beside model, dialect and stream kind.
export function ask(tags = {}) {
  const intended = Date.now(); // k6 starts an iteration when it is due, or drops it
  const asked = question(exec.scenario.iterationInTest);
  const started = Date.now();
  const response = http.post(settings.baseUrl + asked.dialect.path, asked.body, {
    headers: headers(),
    timeout: `${Math.round(1000 * settings.timeoutS)}ms`,
    redirects: 0,
    tags: { name: asked.dialect.path, ...asked.tags, ...tags },
  });
  const seen = observe(asked, response, started - intended);
  measure(seen, { ...asked.tags, ...tags });
  if (settings.records) console.log(JSON.stringify(record(asked, seen, intended, started)));
}

function question(number) {
  const rng = random(settings.seed * 1000003 + number);
  const [model, name, stream] = kinds[number % kinds.length];
  const dialect = dialects[name];
  const [prompt, answer] = [promptTokens(rng), answerTokens(rng)];
  const messages = [{ role: 'user', content: words(prompt, rng) }];
  const body = JSON.stringify({ model, messages, stream, ...dialect.limits(answer, stream) });
  const tags = { model, dialect: name, stream: String(stream) };
  return { dialect, stream, body, prompt, answer, tags };
}

function headers() {
  const key = settings.apiKey ? { Authorization: `Bearer ${settings.apiKey}` } : {};
  return { 'Content-Type': 'application/json', ...key };
}

// Milliseconds from the intended start. `blocked` holds the time to connect. The service sends its
// headers with the first token, so that the first byte is the first token.
function observe(asked, response, late) {
  const { blocked, sending, waiting, receiving } = response.timings;
  const began = waiting > 0 && (response.status === 200 || Boolean(response.body));
  const first = late + blocked + sending + waiting;
  const end = response.status === 200 ? readEnd(asked.dialect, asked.stream, response.body || '') : {};
  const error = end.error || response.error || message(parse(response.body));
  return {
    ...end,
    error,
    status: response.status,
    outcome: outcome(response, began, end.whole),
    first: asked.stream && began ? first : null,
    ended: first + receiving,
  };
}

function outcome(response, began, whole) {
  if (response.error === CUT) return 'cancelled';
  if (response.error_code === TIMED_OUT) return 'timeout';
  if (response.status === 0) return began ? 'truncated' : 'transport';
  if (response.status === 429 || response.status === 503) return 'rejected';
  if (response.status < 200 || response.status >= 300) return 'error';
  return whole ? 'ok' : 'truncated';
}

function measure(seen, tags) {
  if (seen.outcome === 'cancelled') return;
  const ok = seen.outcome === 'ok';
  metrics.failed.add(!ok, tags);
  if (!ok) return;
  if (seen.first !== null) metrics.ttft.add(seen.first, tags);
  metrics.e2e.add(seen.ended, tags);
  metrics.outputTokens.add(seen.outputTokens || 0, tags);
}

// As serve_app/capacity/results/request_records.py has it, in seconds; `scenario_start` goes when it is read.
function record(asked, seen, intended, started) {
  return {
    scenario_start: exec.scenario.startTime / 1000,
    intended: intended / 1000,
    started: started / 1000,
    first: seen.first === null ? null : (intended + seen.first) / 1000,
    ended: (intended + seen.ended) / 1000,
    outcome: seen.outcome,
    status: seen.status,
    prompt_tokens: seen.promptTokens,
    output_tokens: seen.outputTokens,
    asked_prompt_tokens: asked.prompt,
    asked_output_tokens: asked.answer,
    model: asked.tags.model,
    dialect: asked.tags.dialect,
    stream: asked.stream,
    error: seen.error.slice(0, 200),
  };
}
