// Arrivals that grow step by step until the SLO breaks; reports the knee: k6 run k6/stress_test.js
//
//   RATE=1 FACTOR=1.5 STEPS=12 STEP=30s    first rate, factor between steps, number and length of steps
//
// k6 exits with 99 when the SLO is missed, which is the purpose of this test.

import exec from 'k6/execution';

import { ask, checkService } from './lib/chat.js';
import { openLoad, staircase } from './lib/load.js';
import { number, seconds } from './lib/settings.js';
import { holds, shown, summarise, trend, TREND_STATS, value } from './lib/summary.js';
import { breaking, judged, metric } from './lib/thresholds.js';

const hold = seconds('STEP', '30s');
const steps = number('STEPS', 12);
const load = openLoad(staircase(number('RATE', 1), number('FACTOR', 1.5), steps, hold));

export const options = {
  scenarios: { stress_test: load.scenario },
  thresholds: Object.assign({}, ...numbers().map((step) => breaking({ step }, (step + 1) * hold))),
  summaryTrendStats: TREND_STATS,
};

export const setup = checkService;

export default function run() {
  const elapsed = (Date.now() - exec.scenario.startTime) / 1000;
  ask({ step: String(Math.min(steps - 1, Math.floor(elapsed / hold))) });
}

export function handleSummary(data) {
  const measured = numbers().map((step) => judge(data, step)).filter((step) => step.requests);
  const broken = measured.find((step) => step.broken.length) || null;
  const good = measured.filter((step) => !broken || step.rate < broken.rate);
  const knee = broken && good.length ? good[good.length - 1].rate : null;
  return summarise(data, 'stress_test', load, { steps: measured, knee }, lines(measured, broken, knee));
}

function numbers() {
  return Array.from({ length: steps }, (_, step) => step);
}

function judge(data, step) {
  const broken = judged.filter((bound) => holds(data, metric(bound, { step }), bound) === false);
  const failed = `llm_failed{step:${step}}`;
  return {
    step,
    rate: load.points[2 * step][1],
    requests: value(data, failed, 'passes') + value(data, failed, 'fails'),
    failed: value(data, failed, 'passes'),
    ttft: trend(data, metric({ quantity: 'ttft' }, { step })),
    e2e: trend(data, metric({ quantity: 'e2e' }, { step })),
    broken: broken.map(shown),
  };
}

function lines(measured, broken, knee) {
  const head = ['rate/s', 'answered', 'failed', 'TTFT p50', 'TTFT p99', 'E2E p99'];
  return ['', head.map((name) => name.padStart(9)).join(' '), ...measured.map(line), '', verdict(broken, knee)];
}

function line(step) {
  const time = (values, key) => (values ? values[key].toFixed(3) : '-');
  const cells = [
    step.rate.toFixed(2), step.requests, step.failed,
    time(step.ttft, 'p(50)'), time(step.ttft, 'p(99)'), time(step.e2e, 'p(99)'),
  ];
  return `${cells.map((cell) => String(cell).padStart(9)).join(' ')}   ${step.broken.join(', ')}`;
}

function verdict(broken, knee) {
  if (!broken) return 'no knee: the SLO held at every rate; raise RATE, FACTOR or STEPS';
  if (knee === null) return `no knee: the first rate, ${broken.rate}/s, already broke ${broken.broken}`;
  return `knee: ${knee.toFixed(2)}/s met the SLO, ${broken.rate.toFixed(2)}/s broke ${broken.broken}`;
}
