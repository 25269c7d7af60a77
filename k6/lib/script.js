// The common part of all scripts but the stress test: one open load, judged over the whole run.
// SHAPE replaces a script's own shape.

import { ask, checkService } from './chat.js';
import { given, openLoad } from './load.js';
import { summarise, TREND_STATS } from './summary.js';
import { thresholds } from './thresholds.js';

export function script(name, points) {
  const load = openLoad(given() || points);
  return {
    options: {
      scenarios: { [name]: load.scenario },
      thresholds: thresholds(),
      summaryTrendStats: TREND_STATS,
    },
    setup: checkService,
    run: () => ask(),
    summary: (data) => summarise(data, name, load),
  };
}
