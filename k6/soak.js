// A constant load for a long time, to find leaks: k6 run k6/soak.js
//
//   RATE=1 HOLD=1h    arrivals per second, and duration

import { steady } from './lib/load.js';
import { script } from './lib/script.js';
import { number, seconds } from './lib/settings.js';

const test = script('soak', steady(number('RATE', 1), seconds('HOLD', '1h')));

export const options = test.options;
export const setup = test.setup;
export const handleSummary = test.summary;
export default test.run;
