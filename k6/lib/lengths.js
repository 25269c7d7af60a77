// Lengths from a distribution, and texts of n words. Equal seeds give equal prompts.

const WORDS = (
  'time year people way day man thing woman life child world school state family student group '
  + 'country problem hand part place case week company system program question work government '
  + 'number night point home water room mother area money story fact month lot right study book '
  + 'eye job word business issue side kind head house service friend father power hour game line'
).split(' ');

// Numbers in [0, 1): mulberry32.
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// `100`, `fixed:100` or `lognormal:median=200,p95=800[,max=4000]` as a function of a generator.
export function distribution(given) {
  const fixed = /^(?:fixed:)?(\d+)$/.exec(given);
  if (fixed) return () => Math.max(1, Number(fixed[1]));
  const match = /^lognormal:median=([\d.]+),p95=([\d.]+)(?:,max=([\d.]+))?$/.exec(given);
  if (!match) throw new Error(`${given} is not a distribution of lengths; write 100 or lognormal:median=200,p95=800,max=4000`);
  const [median, p95, max] = [Number(match[1]), Number(match[2]), Number(match[3] || Infinity)];
  const sigma = Math.log(p95 / median) / 1.6448536269514722;
  return (rng) => Math.max(1, Math.round(Math.min(max, median * Math.exp(sigma * normal(rng)))));
}

export function words(count, rng) {
  const chosen = new Array(count);
  for (let i = 0; i < count; i += 1) chosen[i] = WORDS[Math.floor(rng() * WORDS.length)];
  return chosen.join(' ');
}

function normal(rng) {
  return Math.sqrt(-2 * Math.log(1 - rng())) * Math.cos(2 * Math.PI * rng());
}
