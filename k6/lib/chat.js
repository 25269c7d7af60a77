// One chat request: send, classify, measure and record it.

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
const CANCELLED = 'context canceled'; // by the end of the run

// Requests rotate over all models, dialects and stream kinds.
const kinds = settings.models.flatMap((model) =>
  settings.dialects.flatMap((name) => settings.streams.map((stream) => [model, name, stream])));

// Checks the service before the load, to fail with one message instead of many requests.
export function checkService() {
  const unknown = settings.dialects.filter((name) => !dialects[name]);
  if (unknown.length) {
    exec.test.abort(`unknown dialect ${unknown}; use ${Object.keys(dialects)}`);
  } else if (http.get(`${settings.baseUrl}/`, { timeout: '10s' }).status === 0) {
    exec.test.abort(`no service answers at ${settings.baseUrl}; start one (make run) or set BASE_URL`);
  }
}

// `tags` are added to every metric, beside model, dialect and stream kind.
export function ask(tags = {}) {
  const intended = Date.now(); // k6 starts an iteration when it is due, or drops it
  const request = nextRequest(exec.scenario.iterationInTest);
  const started = Date.now();
  const response = http.post(settings.baseUrl + request.dialect.path, request.body, {
    headers: headers(),
    timeout: `${Math.round(1000 * settings.timeoutS)}ms`,
    redirects: 0,
    tags: { name: request.dialect.path, ...request.tags, ...tags },
  });
  const result = observe(request, response, started - intended);
  measure(result, { ...request.tags, ...tags });
  if (settings.records) console.log(JSON.stringify(record(request, result, intended, started)));
}

function nextRequest(number) {
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

// Times in milliseconds from the intended start. `blocked` contains the time to connect. The service
// sends its headers with the first token, so the first byte is the first token.
function observe(request, response, late) {
  const { blocked, sending, waiting, receiving } = response.timings;
  const began = waiting > 0 && (response.status === 200 || Boolean(response.body));
  const first = late + blocked + sending + waiting;
  const end = response.status === 200 ? readEnd(request.dialect, request.stream, response.body || '') : {};
  const error = end.error || response.error || message(parse(response.body));
  return {
    ...end,
    error,
    status: response.status,
    outcome: outcome(response, began, end.whole),
    first: request.stream && began ? first : null,
    ended: first + receiving,
  };
}

function outcome(response, began, whole) {
  if (response.error === CANCELLED) return 'cancelled';
  if (response.error_code === TIMED_OUT) return 'timeout';
  if (response.status === 0) return began ? 'truncated' : 'transport';
  if (response.status === 429 || response.status === 503) return 'rejected';
  if (response.status < 200 || response.status >= 300) return 'error';
  return whole ? 'ok' : 'truncated';
}

function measure(result, tags) {
  if (result.outcome === 'cancelled') return;
  const ok = result.outcome === 'ok';
  metrics.failed.add(!ok, tags);
  if (!ok) return;
  if (result.first !== null) metrics.ttft.add(result.first, tags);
  metrics.e2e.add(result.ended, tags);
  metrics.outputTokens.add(result.outputTokens || 0, tags);
}

// A record of serve_app/capacity/results/request_records.py, in seconds; its reader ignores
// `scenario_start`.
function record(request, result, intended, started) {
  return {
    scenario_start: exec.scenario.startTime / 1000,
    intended: intended / 1000,
    started: started / 1000,
    first: result.first === null ? null : (intended + result.first) / 1000,
    ended: (intended + result.ended) / 1000,
    outcome: result.outcome,
    status: result.status,
    prompt_tokens: result.promptTokens,
    output_tokens: result.outputTokens,
    asked_prompt_tokens: request.prompt,
    asked_output_tokens: request.answer,
    model: request.tags.model,
    dialect: request.tags.dialect,
    stream: request.stream,
    error: result.error.slice(0, 200),
  };
}
