// A steady load, a sudden peak, and how the service recovers: k6 run k6/spike.js
//
//   RATE=1 PEAK=10 BEFORE=30s HOLD=15s AFTER=1m    arrivals per second, and durations

import { spike } from './lib/load.js';
import { script } from './lib/script.js';
import { number, seconds } from './lib/settings.js';

const times = [seconds('BEFORE', '30s'), seconds('HOLD', '15s'), seconds('AFTER', '1m')];
const test = script('spike', spike(number('RATE', 1), number('PEAK', 10), ...times));

export const options = test.options;
export const setup = test.setup;
export const handleSummary = test.summary;
export default test.run;
