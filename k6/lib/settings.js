// All parameters, from the environment or from `k6 run -e NAME=value …`.

const SLO = 'ttft_p99=2s,e2e_p99=60s,error_rate=1%';

export const settings = {
  baseUrl: text('BASE_URL', 'http://127.0.0.1:8000').replace(/\/+$/, ''),
  apiKey: text('API_KEY', ''),
  // One or several, separated by commas; requests rotate over them.
  models: list('MODEL', 'smollm2:135m'),
  dialects: list('DIALECT', 'openai'),
  streams: list('STREAM', 'true').map((word) => word === 'true'),
  promptTokens: text('PROMPT_TOKENS', 'lognormal:median=60,p95=240,max=1000'),
  answerTokens: text('ANSWER_TOKENS', 'lognormal:median=40,p95=120,max=400'),
  timeoutS: seconds('TIMEOUT_S', '120'),
  seed: number('SEED', 0),
  // k6 sees only whole bodies, so it judges only ttft, e2e and error_rate.
  slo: bounds(text('SLO', SLO)),
  // Virtual users; by default as many as arrivals within the time-out, at most 1,000.
  maxVUs: number('MAX_VUS', 0),
  summary: text('SUMMARY', 'k6-summary.json'),
  // One line of JSON per request on the console; `python -m serve_app.capacity k6` collects them.
  records: text('RECORDS', '') !== '',
};

export function text(name, fallback) {
  return __ENV[name] || fallback;
}

export function number(name, fallback) {
  const value = Number(text(name, fallback));
  if (Number.isNaN(value) || value < 0) throw new Error(`${name} is not a number: ${text(name, '')}`);
  return value;
}

// 90, 90s, 1.5m, 1h or 500ms as seconds.
export function seconds(name, fallback) {
  return duration(text(name, fallback), name);
}

function duration(given, name) {
  const match = /^([\d.]+)(ms|s|m|h)?$/.exec(given);
  if (!match) throw new Error(`${name} is not a duration: ${given}; write 90, 30s, 5m or 1h`);
  return Number(match[1]) * { ms: 0.001, s: 1, m: 60, h: 3600 }[match[2] || 's'];
}

function list(name, fallback) {
  return text(name, fallback).split(',').map((word) => word.trim()).filter(Boolean);
}

// ttft_p99=2s,e2e_p95=30s,error_rate=1% as [{quantity, percentile, limit}], seconds and shares.
function bounds(given) {
  return given.split(',').filter(Boolean).map((part) => {
    const match = /^(ttft|e2e|itl|tpot)_p([\d.]+)=([\d.]+(?:ms|s))$/.exec(part.trim());
    if (match) {
      return { quantity: match[1], percentile: Number(match[2]), limit: duration(match[3], part) };
    }
    const share = /^error_rate=([\d.]+)(%?)$/.exec(part.trim());
    if (!share) throw new Error(`SLO: ${part} is not a bound; write ttft_p99=2s or error_rate=1%`);
    return { quantity: 'error_rate', limit: Number(share[1]) / (share[2] ? 100 : 1) };
  });
}
