// The first view: what the fleet is doing this second.
import { html } from "./preact.js";
import { Chart } from "./charts.js";
import { duration, number, percent, plural, rate, seconds, time } from "./format.js";

const DENSE = 24;
const GOOD = new Set(["HEALTHY", "UPDATING", "UPSCALING", "DOWNSCALING"]);
const BAD = [
  ["client_error", "caller's mistake", "c3"], ["rejected", "no room", "c5"], ["upstream_error", "engine", "c4"],
  ["timeout", "time-out", "c7"], ["internal_error", "service", "c2"], ["cancelled", "disconnected", "c6"],
];

export function Fleet({ doc, now }) {
  return html`
    <${History} history=${doc.history} />
    <${Charts} doc=${doc} />
    <${Facts} doc=${doc} />
    ${doc.pools.map((pool) => html`<${Pool} key=${pool.name} pool=${pool} now=${now} />`)}
    ${doc.gateways.length > 0 && html`<${Gateways} gateways=${doc.gateways} now=${now} />`}
    <div class="two">
      <${Queue} doc=${doc} />
      <${Errors} errors=${doc.errors} now=${now} />
    </div>
    <p class="next">Pods, images and bytes pulled are Kubernetes' to know: <code>${doc.next_step}</code> shows them.</p>`;
}

function History({ history }) {
  const words = [];
  if (history.gone) {
    const last = history.last_gone_at ? `, the last at ${time(history.last_gone_at)},` : "";
    words.push(`The history of ${plural(history.gone, "replica")} that left${last} is gone: charts show less than there was.`);
  }
  if (history.silent) {
    words.push(`${plural(history.silent, "replica")} did not answer just now; ` +
      "the last known state is shown.");
  }
  return words.map((sentence) => html`<p class="banner" role="status">${sentence}</p>`);
}

function Charts({ doc }) {
  const { series, now } = doc;
  const bad = BAD.map(([outcome, name, color]) => ({ name, color, values: series.outcomes[outcome] }))
    .filter(({ values }) => values && values.some(Boolean));
  const failed = bad.reduce((sum, { values }) => sum + values.reduce((a, b) => a + b, 0), 0);
  return html`
    <section class="charts" aria-label="Last 15 minutes">
      <${Chart} title="Requests" big=${rate(now.requests_per_s)} unit="per second" series=${series} show=${rate}
        lines=${[{ values: series.requests_per_s, color: "c1", fills: true }]} />
      <${Chart} title="Time to first token" big=${seconds(now.ttft_p50_s)}
        unit="median · ${seconds(now.ttft_p95_s)} p95" series=${series} show=${seconds}
        lines=${[
          { name: "p95", values: series.ttft_p95_s, color: "c3" },
          { name: "median", values: series.ttft_p50_s, color: "c2", fills: true },
        ]} />
      <${Chart} title="Tokens generated" big=${rate(now.tokens_per_s)} unit="per second" series=${series} show=${rate}
        lines=${[{ values: series.tokens_per_s, color: "c2", fills: true }]} />
      <${Chart} title="Requests that failed" big=${number(failed)} unit="in 15 minutes" series=${series} show=${number}
        bars=${bad.length ? bad : [{ values: series.outcomes.timeout, color: "c4" }]} />
    </section>`;
}

function Facts({ doc }) {
  const { now } = doc;
  const part = now.slots ? Math.min(1, now.busy / now.slots) : 0;
  const facts = [
    ["Replicas ready", html`${now.ready} <small>of ${now.replicas}</small>`],
    ["Slots busy", html`${now.busy} <small>of ${now.slots}</small>
      <span class="meter"><i class=${part === 1 ? "full" : ""} style="width:${100 * part}%"></i></span>`],
    ["Waiting", number(now.waiting)],
    ["Prompt from cache", percent(now.cached_share)],
    ["Models", number(doc.models.length)],
    ["Topology", doc.service.topology],
  ];
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Pool({ pool, now }) {
  const { scaling, replicas } = pool;
  return html`
    <section class="card pool" aria-label="Pool ${pool.name}">
      <div class="pool-head">
        <h2>${pool.name}</h2>
        <span class="models">${names(pool.models)}</span>
        <span class="why">${scaling.why}</span>
      </div>
      <div class="scale">
        <${Pips} scaling=${scaling} replicas=${replicas} />
        <span><b>${scaling.running}</b> running</span>
        <span><b>${scaling.target}</b> target${held(scaling.pending, now)}</span>
        <span class="soft">${scaling.min === scaling.max ? `fixed at ${scaling.max}` : `${scaling.min} to ${scaling.max}`}</span>
        <span><b>${pool.busy}</b> busy</span>
        <span><b>${pool.waiting}</b> waiting</span>
        ${pool.start_s != null && html`<span class="soft">a start takes about ${duration(pool.start_s)}</span>`}
      </div>
      ${pool.message && html`<p class=${GOOD.has(pool.status) ? "soft" : "message"}>${pool.message}</p>`}
      ${scaling.explanation && html`<${Explanation} of=${scaling.explanation} now=${now} />`}
      ${advices(pool).map((advice) => html`<p class="advice soft">${advice}</p>`)}
      ${replicas.length
        ? html`<ul class="tiles ${replicas.length > DENSE ? "dense" : ""}">
            ${replicas.map((replica) => html`<${Tile} key=${replica.id} replica=${replica} pool=${pool} now=${now} dense=${replicas.length > DENSE} />`)}</ul>`
        : html`<p class="asleep">No replica runs. The next request starts one${
            pool.start_s == null ? "" : `, which takes about ${duration(pool.start_s)}`}.</p>`}
    </section>`;
}

const names = (models) => (models.length > 4 ? `${models.slice(0, 3).join(", ")} and ${models.length - 3} more` : models.join(", "));

// What the policy `ahead` would do in the shadow, and the last change of its target.
function Explanation({ of: { policy, target, sentence, changes }, now }) {
  const change = changes.find(({ before, target: after }) => before !== after);
  return html`
    ${policy === "shadow" && html`<p class="soft">Policy ahead, in the shadow: ${plural(target, "replica")}, ${sentence}</p>`}
    ${change && html`<p class="soft">${duration(now - change.at)} ago from ${change.before} to ${change.target}: ${change.sentence}</p>`}`;
}

const advices = ({ advice, replicas }) => [...new Set([advice, ...replicas.map((replica) => replica.advice)])].filter(Boolean);

// The change of the target that Serve's delay holds back.
const held = (change, now) => change
  ? html` <span class="soft">${change.direction} ${change.due > now ? `in ${duration(change.due - now)}` : "now"}</span>` : "";

// One mark for each replica: running, on the way, leaving; empty up to the maximum.
function Pips({ scaling, replicas }) {
  const leaving = replicas.filter(({ state }) => state === "draining").length;
  const due = replicas.length - leaving - scaling.running;
  const room = Math.max(0, Math.min(scaling.max, 40) - replicas.length);
  const marks = [
    ...Array(Math.min(scaling.running, 80)).fill("on"), ...Array(Math.max(0, due)).fill("due"),
    ...Array(leaving).fill("off"), ...Array(room).fill(""),
  ];
  return html`<span class="pips" aria-hidden="true">${marks.map((mark) => html`<i class="pip ${mark}"></i>`)}</span>`;
}

function Tile({ replica, pool, now, dense }) {
  const { state, engine } = replica;
  const works = state === "ready" || state === "draining" || state === "engine away";
  return html`
    <li class="tile ${state.replaceAll(" ", "-")}">
      <div class="state"><b>${state}</b><span class="soft">${duration(now - replica.since)}</span></div>
      ${works && html`<${Slots} replica=${replica} />`}
      ${works && html`<div class="pairs">
        <span><b>${rate(replica.tokens_per_s)}</b> tok/s</span>
        ${!dense && html`<span><b>${percent(replica.cached_share)}</b> cached</span>`}</div>`}
      ${works || html`<p class="note">${progress(replica)}</p>`}
      ${state === "engine away" && !dense && html`<p class="note">${engine.detail || "The engine does not answer."}</p>`}
      ${!dense && pool.models.length > 1 && html`<${Memory} replica=${replica} />`}
      <div class="foot"><span class="mono">${replica.id}</span>
        <span>${engine ? `${engine.kind} · ` : ""}${duration(now - replica.started_at)} old</span></div>
    </li>`;
}

// The models in a replica's memory.
function Memory({ replica }) {
  const { loaded, loading } = replica;
  const words = (loaded || []).map(({ name, calls }) => (calls ? `${name} (${plural(calls, "call")})` : name));
  return html`
    ${words.length > 0 && html`<p class="note">${names(words)}</p>`}
    ${loading && html`<p class="note">Loading ${loading.name}${loading.waiting ? `, for ${plural(loading.waiting, "call")}` : ""}.</p>`}`;
}

function progress({ state, engine, ready_in_s }) {
  const step = state === "waiting for a worker" ? "No node has room yet."
    : engine && engine.phase ? `Phase: ${engine.phase}.` : "The process starts.";
  if (ready_in_s == null) return step;
  return `${step} ${ready_in_s > 0 ? `Ready in about ${duration(ready_in_s)}.` : "It takes longer than earlier starts."}`;
}

function Slots({ replica }) {
  const cells = Math.min(replica.slots, 16);
  const busy = Math.round((cells * Math.min(replica.busy, replica.slots)) / replica.slots);
  return html`
    <div class="slots">
      ${Array.from({ length: cells }, (_, i) => html`<i class=${i < busy ? "busy" : ""} aria-hidden="true"></i>`)}
      <span>${replica.busy}/${replica.slots}</span>
      ${replica.waiting > 0 && html`<span class="queued">+${replica.waiting}</span>`}
      <span class="sr">${replica.busy} of ${plural(replica.slots, "slot")} busy, ${replica.waiting} waiting</span>
    </div>`;
}

function Gateways({ gateways, now }) {
  return html`
    <section class="card" aria-label="Gateways">
      <h2>Gateways</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Table of gateways"><table>
        <thead><tr><th>Gateway</th><th>State</th><th class="n">Waiting</th><th class="n">Age</th></tr></thead>
        <tbody>${gateways.map((gateway) => html`
          <tr><td class="mono">${gateway.id}</td><td>${gateway.state}</td>
            <td class="n">${number(gateway.waiting)}</td><td class="n">${duration(now - gateway.started_at)}</td></tr>`)}
        </tbody></table></div>
    </section>`;
}

function Queue({ doc }) {
  return html`
    <section class="card" aria-label="Queue">
      <h2>Queue</h2>
      ${doc.queue.length
        ? html`<div class="scroll" tabindex="0" role="region" aria-label="Table of the queue"><table>
            <thead><tr><th>Priority</th><th>Key</th><th>Group</th><th class="n">Waiting</th></tr></thead>
            <tbody>${doc.queue.map((flow) => html`<tr><td>${flow.priority}</td><td>${flow.key || "everybody"}</td>
              <td>${flow.group || "–"}</td><td class="n">${number(flow.waiting)}</td></tr>`)}</tbody></table></div>`
        : html`<p class="empty">Nobody waits.</p>`}
    </section>`;
}

function Errors({ errors, now }) {
  return html`
    <section class="card" aria-label="Last errors">
      <h2>Last errors</h2>
      ${errors.length
        ? html`<ul class="errors">${errors.map((error) => html`
          <li key=${error.kind + error.model + error.outcome}>
            <div class="head">
              <b class="kind-${error.status < 400 ? 5 : String(error.status)[0]}">${error.status >= 400 ? error.status : ""} ${error.kind}</b>
              ${error.status >= 200 && error.status < 400 && html`<span>within an answer</span>`}
              ${error.count > 1 && html`<span>${number(error.count)} times</span>`}
              ${error.model && html`<span class="soft-inline">${error.model}</span>`}
              ${error.key && html`<span>key ${error.key}</span>`}
              <span class="soft">${duration(now - error.at)} ago</span></div>
            ${error.sentence && html`<p>${error.sentence}</p>`}
            <p class="advice soft">${error.advice}</p>
          </li>`)}</ul>`
        : html`<p class="empty">None since the replicas started.</p>`}
    </section>`;
}
