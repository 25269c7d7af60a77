// Small charts of 90 values. They are drawn in units of values and stretched by the browser.
import { html, useState } from "./preact.js";
import { time } from "./format.js";

const HEIGHT = 40;

function top(values) {
  const highest = Math.max(0, ...values.filter((value) => value != null));
  if (!highest) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((value) => value >= highest);
}

// One path for each run of known values.
function runs(values) {
  const lines = [];
  values.forEach((value, x) => {
    if (value == null) return;
    if (x === 0 || values[x - 1] == null) lines.push([]);
    lines[lines.length - 1].push([x, value]);
  });
  return lines;
}

const y = (value, max) => HEIGHT - (HEIGHT * value) / max;
const line = (run, max) => "M" + run.map(([x, value]) => `${x} ${y(value, max).toFixed(2)}`).join("L");

function Lines({ lines, max }) {
  return lines.map(({ values, color, fills }) =>
    runs(values).map((run) => {
      const path = run.length > 1 ? line(run, max) : `${line(run, max)}h.4`;
      const [first, last] = [run[0][0], run[run.length - 1][0]];
      return html`
        ${fills && html`<path class="area ${color}" d="${path}L${last} ${HEIGHT}L${first} ${HEIGHT}Z" />`}
        <path class="stroke ${color}" d=${path} />`;
    }));
}

function Bars({ bars, max }) {
  return bars[0].values.map((_, x) => {
    let height = 0;
    return bars.map(({ values, color }) => {
      if (!values[x]) return null;
      height += values[x];
      const size = (HEIGHT * values[x]) / max;
      return html`<rect class=${color} x=${x - 0.38} width=".76" y=${y(height, max)} height=${size} />`;
    });
  });
}

const Legend = ({ shown }) => html`<span class="legend">
  ${shown.filter(({ name }) => name).map(({ name, color }) => html`<span class=${color}><i></i>${name}</span>`)}</span>`;

export function Chart({ title, big, unit, series, lines, bars, show }) {
  const [at, setAt] = useState(null);
  const shown = lines || bars;
  const count = shown[0].values.length;
  const values = bars ? shown[0].values.map((_, x) => bars.reduce((sum, bar) => sum + bar.values[x], 0)) : null;
  const max = Math.max(values ? 4 : 0, top(values || lines.flatMap((one) => one.values)));
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    setAt(Math.max(0, Math.min(count - 1, Math.round(((event.clientX - box.left) / box.width) * (count - 1)))));
  };
  const words = at == null ? "" : shown
    .filter((one) => one.values[at] || lines)
    .map((one) => `${one.name ? `${one.name} ` : ""}${show(one.values[at])}`).join(" · ") || show(0);
  return html`
    <figure class="card chart">
      <h2>${title}</h2>
      <p class="big">${big}${unit && html`<small>${unit}</small>`}</p>
      ${at != null && html`<span class="at">${time(series.end - (count - at) * series.step_s)} · ${words}</span>`}
      <div class="plot"><span class="max" aria-hidden="true">${show(max)}</span>
      <svg viewBox="0 0 ${count - 1} ${HEIGHT}" preserveAspectRatio="none" role="img"
        aria-label="${title}, last 15 minutes, highest ${show(max)}"
        onPointerMove=${point} onPointerLeave=${() => setAt(null)}>
        <line class="roof" x1="0" x2=${count - 1} y1="0" y2="0" />
        <line class="base" x1="0" x2=${count - 1} y1=${HEIGHT} y2=${HEIGHT} />
        ${bars ? html`<${Bars} bars=${bars} max=${max} />` : html`<${Lines} lines=${lines} max=${max} />`}
        ${at != null && html`<line class="cross" x1=${at} x2=${at} y1="0" y2=${HEIGHT} />`}
      </svg></div>
      <div class="axis"><span>−15 min</span>
        <${Legend} shown=${shown} /><span>now</span></div>
    </figure>`;
}
