// Open loads: arrivals per second over time, whatever the server does.

import { settings, text } from './settings.js';

const UNIT_S = 1000; // k6 counts whole arrivals per time unit: this unit allows 0.001/s

// All virtual users are created before the start, because k6 drops arrivals while it creates one.
const MAX_USERS = 1000; // 0.15 MiB and 2 ms each; MAX_VUS allows more

// `points` are [second, arrivals per second] in order, linear in between; two at one second are a jump.
export function openLoad(points) {
  const peak = Math.max(...points.map(([, rate]) => rate));
  const users = settings.maxVUs || Math.min(MAX_USERS, Math.ceil(peak * settings.timeoutS) + 1);
  return {
    points,
    users,
    scenario: {
      executor: 'ramping-arrival-rate',
      timeUnit: `${UNIT_S}s`,
      startRate: Math.round(points[0][1] * UNIT_S),
      stages: points.slice(1).map(([at, rate], i) => ({
        duration: `${Math.round(1000 * (at - points[i][0]))}ms`,
        target: Math.round(rate * UNIT_S),
      })),
      preAllocatedVUs: users,
      maxVUs: users,
      gracefulStop: `${Math.ceil(settings.timeoutS) + 5}s`, // waits for the last answers
    },
  };
}

export function ramp(rate, up, hold, down) {
  return [[0, 0], [up, rate], [up + hold, rate], [up + hold + down, 0]];
}

export function spike(base, peak, before, hold, after) {
  const over = before + hold;
  return [[0, base], [before, base], [before, peak], [over, peak], [over, base], [over + after, base]];
}

export function steady(rate, hold) {
  return [[0, rate], [hold, rate]];
}

// Rates that grow by a factor, held for equal times.
export function staircase(start, factor, steps, hold) {
  const points = [];
  for (let i = 0; i < steps; i += 1) {
    const rate = start * factor ** i;
    points.push([i * hold, rate], [(i + 1) * hold, rate]);
  }
  return points;
}

// SHAPE=points:0s=1,30s=6,… as points; null when it is not set.
export function given() {
  const shape = text('SHAPE', '');
  if (!shape) return null;
  if (!shape.startsWith('points:')) throw new Error(`SHAPE can't be ${shape}; write points:0s=1,30s=6,…`);
  const points = shape.slice('points:'.length).split(',').map((part) => {
    const [at, rate] = part.split('=');
    return [Number(at.replace(/s$/, '')), Number(rate)];
  });
  if (points.flat().some(Number.isNaN)) throw new Error(`SHAPE can't be parsed: ${shape}; write points:0s=1,30s=6,…`);
  return points;
}

