// The SLO as k6's thresholds, by which a run passes or fails.

import { settings } from './settings.js';

const METRICS = { ttft: 'llm_ttft', e2e: 'llm_e2e', error_rate: 'llm_failed' };

// The bounds that k6 can judge; it does not see gaps between tokens.
export const judged = settings.slo.filter((bound) => bound.quantity in METRICS);

export function condition(bound) {
  if (bound.quantity === 'error_rate') return `rate<=${bound.limit}`;
  return `p(${bound.percentile})<=${1000 * bound.limit}`;
}

export function metric(bound, tags = {}) {
  const shown = Object.entries(tags).map(([name, value]) => `${name}:${value}`);
  return METRICS[bound.quantity] + (shown.length ? `{${shown.join(',')}}` : '');
}

// Thresholds over the whole run, and for each model and stream kind if there are several.
export function thresholds() {
  const rules = { dropped_iterations: ['count==0'] };
  for (const bound of judged) {
    for (const tags of [{}, ...kinds()]) {
      const name = metric(bound, tags);
      rules[name] = [...(rules[name] || []), condition(bound)];
    }
  }
  return rules;
}

// Thresholds for one of several steps: a missed SLO ends the run, judged from `afterS` on.
export function breaking(tags, afterS) {
  // k6 separates the figures of a step only if they have a threshold, here one that always holds.
  const rules = {};
  for (const quantity of Object.keys(METRICS)) {
    rules[metric({ quantity }, tags)] = [quantity === 'error_rate' ? 'rate>=0' : 'max>=0'];
  }
  for (const bound of judged) {
    const name = metric(bound, tags);
    const rule = { threshold: condition(bound), abortOnFail: true, delayAbortEval: `${afterS}s` };
    rules[name] = [...(rules[name] || []), rule];
  }
  return rules;
}

export function kinds() {
  const all = settings.models.flatMap((model) => settings.streams.map((stream) => ({ model, stream })));
  return all.length > 1 ? all : [];
}
