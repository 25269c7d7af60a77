// Numbers, durations and sizes as people read them.

export const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

export const rate = (value) => number(value, value < 10 ? 1 : 0);

export const percent = (value) => (value == null ? "–" : `${Math.round(100 * value)} %`);

export function seconds(value) {
  if (value == null) return "–";
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  return value < 10 ? `${value.toFixed(1)} s` : duration(value);
}

export function duration(value) {
  const s = Math.max(0, Math.round(value));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

export function bytes(value) {
  if (!value) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  const step = Math.min(Math.floor(Math.log10(value) / 3), 4);
  return `${(value / 1000 ** step).toPrecision(3)} ${units[step]}`;
}

export const time = (at) =>
  new Date(1000 * at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
