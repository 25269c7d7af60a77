// The summary of a run: a table on the terminal, and JSON in SUMMARY.

import { settings } from './settings.js';
import { judged, kinds, metric, condition } from './thresholds.js';

export const TREND_STATS = ['count', 'avg', 'p(50)', 'p(90)', 'p(95)', 'p(99)', 'max'];

// `more` is merged into the JSON; `lines` are printed below the table.
export function summarise(data, name, load, more = {}, lines = []) {
  const result = {
    tool: 'k6',
    script: name,
    base_url: settings.baseUrl,
    seconds: data.state.testRunDurationMs / 1000,
    ended: Date.now() / 1000,
    points: load.points,
    max_virtual_users: load.users,
    timeout_s: settings.timeoutS,
    requests: value(data, 'llm_failed', 'passes') + value(data, 'llm_failed', 'fails'),
    failed: value(data, 'llm_failed', 'passes'),
    error_rate: value(data, 'llm_failed', 'rate'),
    dropped: value(data, 'dropped_iterations', 'count'),
    output_tokens: value(data, 'llm_output_tokens', 'count'),
    options: options(),
    groups: groups(data),
    slo: verdicts(data),
    ...more,
  };
  const text = [...table(result), ...lines, ''].join('\n');
  return { stdout: `\n${text}\n`, [settings.summary]: JSON.stringify(result, null, 2) };
}

export function value(data, name, key) {
  const measured = data.metrics[name];
  return (measured && measured.values[key]) || 0;
}

// Quantiles in seconds; k6 keeps every value of a trend.
export function trend(data, name) {
  const measured = data.metrics[name];
  if (!measured || !measured.values.count) return null;
  const all = Object.entries(measured.values);
  return Object.fromEntries(all.map(([key, number]) => [key, key === 'count' ? number : number / 1000]));
}

function groups(data) {
  const all = [['all', {}], ...kinds().map((tags) => [label(tags), tags])];
  return all.map(([name, tags]) => ({
    name,
    ttft: trend(data, metric({ quantity: 'ttft' }, tags)),
    e2e: trend(data, metric({ quantity: 'e2e' }, tags)),
  }));
}

function label({ model, stream }) {
  return `${model} ${stream ? 'streamed' : 'whole'}`;
}

function verdicts(data) {
  return judged
    .map((bound) => ({ ...bound, met: holds(data, metric(bound), bound) }))
    .filter((bound) => bound.met !== undefined);
}

// Whether a metric met a bound; undefined without a bound or without values.
export function holds(data, name, bound) {
  const measured = data.metrics[name];
  const verdict = measured && measured.thresholds && measured.thresholds[condition(bound)];
  return verdict && verdict.ok;
}

function options() {
  const { apiKey, records, summary, slo, ...kept } = settings;
  return { ...kept, slo: slo.map(shown).join(',') };
}

function table(result) {
  if (!result.requests) return [`${result.script}: no request was sent to ${result.base_url}`];
  const rate = (result.requests - result.failed) / result.seconds;
  const columns = ['n', 'mean', 'p50', 'p90', 'p95', 'p99', 'max'];
  return [
    `${result.script}: ${result.seconds.toFixed(1)} s of open load on ${result.base_url}`,
    `${result.requests} requests, ${result.failed} failed (${(100 * result.error_rate).toFixed(2)} %), `
      + `${result.dropped} dropped; ${rate.toFixed(2)} answers/s, `
      + `${(result.output_tokens / result.seconds).toFixed(1)} tokens/s`,
    '',
    'seconds'.padEnd(34) + columns.map((name) => name.padStart(9)).join(''),
    ...result.groups.flatMap((group) => [row(`TTFT ${group.name}`, group.ttft), row(`E2E ${group.name}`, group.e2e)]),
    '',
    ...result.slo.map((bound) => `${bound.met ? 'met   ' : 'MISSED'}  ${shown(bound)}`),
    ...tooFewUsers(result),
    ...withoutRecords(result),
  ];
}

function withoutRecords(result) {
  if (settings.records) return [];
  const command = `python -m serve_app.capacity k6 run k6/${result.script}.js`;
  const alias = result.script === 'load_test' ? ' (make load)' : '';
  return [`no records: ${command}${alias} keeps one per request and checks the generator`];
}

function tooFewUsers(result) {
  const needed = Math.ceil(Math.max(...result.points.map(([, rate]) => rate)) * result.timeout_s);
  if (!result.dropped || result.max_virtual_users >= needed) return [];
  return [
    `INVALID: ${result.dropped} arrivals were dropped for want of a virtual user: there were ${result.max_virtual_users}, `
      + `and ${needed} may arrive within the time-out; raise MAX_VUS or shorten TIMEOUT_S`,
  ];
}

function row(name, values) {
  if (!values) return `${name.padEnd(34)}        0`;
  const [count, ...times] = TREND_STATS.map((key) => values[key]);
  return name.padEnd(34) + String(count).padStart(9) + times.map((time) => time.toFixed(4).padStart(9)).join('');
}

export function shown(bound) {
  if (bound.quantity === 'error_rate') return `error_rate=${100 * bound.limit}%`;
  return `${bound.quantity}_p${bound.percentile}=${bound.limit}s`;
}
