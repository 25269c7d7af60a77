// The last two views: the models, and who used what.
import { html, useEffect, useState } from "./preact.js";
import { bytes, number, plural } from "./format.js";

export function Models({ doc }) {
  const counts = Object.fromEntries(doc.pools.map(({ name, replicas }) => [name, replicas.length]));
  return html`
    <section class="card" aria-label="Models">
      <h2>${plural(doc.models.length, "model")}</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Table of models"><table>
        <thead><tr><th>Model</th><th>Pool</th><th>Loaded in</th><th class="n">Parameters</th><th class="n">Size</th>
          <th class="n">Context</th><th>Can</th></tr></thead>
        <tbody>${doc.models.map((model) => html`
          <tr key=${model.pool + model.name}>
            <td><b>${model.name}</b></td>
            <td>${model.pool}</td>
            <td class="nowrap">${loaded(model, counts[model.pool])}</td>
            <td class="n">${[model.parameter_size, model.quantization].filter(Boolean).join(" · ") || "–"}</td>
            <td class="n">${bytes(model.size)}</td>
            <td class="n">${context(model)}</td>
            <td>${model.capabilities.map((name) => html`<span class="tag">${name}</span>`)}</td>
          </tr>`)}</tbody></table></div>
      ${doc.aliases.length > 0 && html`<p class="aliases soft">Aliases: ${doc.aliases.map(({ name, models }, i) => html`
        ${i > 0 && ", "}<b>${name}</b> for ${models.join(", then ")}`)}</p>`}
    </section>`;
}

const loaded = ({ loaded_in }, count) =>
  loaded_in.length ? `${loaded_in.length} of ${plural(count, "replica")}` : "no replica";

function context({ context_length, trained_context_length: trained }) {
  const now = number(context_length || null);
  return trained && trained !== context_length ? html`${now} <span class="soft">of ${number(trained)}</span>` : now;
}

const DAYS = { 1: "today", 7: "7 days", 30: "30 days" };

export function Keys({ headers }) {
  const [days, setDays] = useState(7);
  const [page, setPage] = useState({ data: null, problem: "" });
  const hasKeys = Boolean(headers.authorization); // else nobody's use is counted
  useEffect(() => {
    if (!hasKeys) return;
    let stopped = false;
    fetch(`admin/usage?by=key,group,model&days=${days}`, { headers, cache: "no-store" })
      .then(async (answer) => {
        const body = await answer.json();
        if (!stopped) setPage(answer.ok ? { data: body.data, problem: "" } : { data: null, problem: body.error.message });
      })
      .catch(() => { if (!stopped) setPage({ data: null, problem: "the service does not answer" }); });
    return () => { stopped = true; };
  }, [days, headers.authorization]);
  return html`
    <section class="card" aria-label="Keys">
      <div class="pool-head"><h2>Use by key and model</h2>
        <label class="row why">Since <select value=${days} onChange=${(event) => setDays(Number(event.target.value))}>
          ${Object.entries(DAYS).map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select></label></div>
      ${!hasKeys ? html`<p class="empty">Use is counted by key, and this service has no keys.</p>`
        : page.problem ? html`<p class="empty">${page.problem}</p>`
        : !page.data ? html`<p class="empty">Loading …</p>`
        : page.data.length === 0 ? html`<p class="empty">No key has used a model in this time.</p>`
        : html`<${Use} rows=${page.data} />`}
    </section>`;
}

function Use({ rows }) {
  const sorted = [...rows].sort((a, b) => b.generated_tokens - a.generated_tokens);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Table of use"><table>
      <thead><tr><th>Key</th><th>Group</th><th>Model</th><th class="n">Requests</th><th class="n">Prompt tokens</th>
        <th class="n">from cache</th><th class="n">Generated tokens</th></tr></thead>
      <tbody>${sorted.map((row) => html`
        <tr key=${row.key + row.model}><td><b>${row.key}</b></td><td>${row.group || "–"}</td><td>${row.model}</td>
          <td class="n">${number(row.requests)}</td><td class="n">${number(row.prompt_tokens)}</td>
          <td class="n">${number(row.cached_tokens)}</td><td class="n">${number(row.generated_tokens)}</td></tr>`)}
      </tbody></table></div>`;
}
