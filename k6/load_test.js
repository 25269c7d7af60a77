// An open load that ramps up, holds and ramps down: k6 run k6/load_test.js
//
//   RATE=2 RAMP_UP=30s HOLD=1m RAMP_DOWN=30s    highest arrivals per second, and durations
//   BASE_URL, MODEL, API_KEY, …                 see lib/settings.js

import { ramp } from './lib/load.js';
import { script } from './lib/script.js';
import { number, seconds } from './lib/settings.js';

const test = script(
  'load_test',
  ramp(number('RATE', 2), seconds('RAMP_UP', '30s'), seconds('HOLD', '1m'), seconds('RAMP_DOWN', '30s')),
);

export const options = test.options;
export const setup = test.setup;
export const handleSummary = test.summary;
export default test.run;
