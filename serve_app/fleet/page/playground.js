// The second view: talk to any model, in any dialect, or to two side by side.
import { html, useEffect, useRef, useState } from "./preact.js";
import { MAX_SHOWN, ask } from "./answer.js";
import { DIALECTS, asCurl, asPython, withFields } from "./dialects.js";
import { number, plural, seconds } from "./format.js";

const MAX_IMAGE = 8 * 2 ** 20;
const TOOL = `[{"name": "get_weather", "description": "Get the weather of a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]`;
const NOT_JSON = "Tools must be a list of functions, and other fields an object, both as JSON.";
const FIRST = { dialect: "openai", stream: true, thinking: false, system: "", temperature: "", max_tokens: "256", tools: "", fields: "" };

function read(form) {
  const tools = form.tools.trim();
  return {
    system: form.system.trim(), stream: form.stream, thinking: form.thinking,
    temperature: form.temperature === "" ? undefined : Number(form.temperature),
    max_tokens: form.max_tokens === "" ? undefined : Number(form.max_tokens),
    tools: tools ? [JSON.parse(tools)].flat() : undefined,
  };
}

// The user's own fields of the request. Throws SyntaxError for other than a JSON object.
function ownFields(form) {
  const fields = JSON.parse(form.fields.trim() || "{}");
  if (typeof fields !== "object" || Array.isArray(fields) || !fields) throw new SyntaxError();
  return fields;
}

export function Playground({ models, secret, headers }) {
  const [form, setForm] = useState(FIRST);
  const [chosen, setChosen] = useState(["", ""]);
  const [text, setText] = useState("");
  const [images, setImages] = useState([]);
  const [turns, setTurns] = useState([]); // {text, images, answers: [Collected, …]}
  const [running, setRunning] = useState(null);
  const [note, setNote] = useState("");
  const [, draw] = useState(0);
  const frame = useRef(0);
  const names = models.map(({ name }) => name);
  const first = names.includes(chosen[0]) ? chosen[0] : names[0] || "";
  const shown = [first, ...(names.includes(chosen[1]) ? [chosen[1]] : [])];
  const dialect = DIALECTS[form.dialect];
  const url = new URL(dialect.path, document.baseURI).href;
  const set = (name) => (event) =>
    setForm({ ...form, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const changed = () => { frame.current ||= requestAnimationFrame(() => { frame.current = 0; draw((n) => n + 1); }); };

  // The conversation with one model, with `more` at its end.
  const conversation = (pane, more) => [
    ...turns.flatMap((turn) => [
      { role: "user", text: turn.text, images: turn.images },
      ...(turn.answers[pane] && turn.answers[pane].parts.length ? [{ role: "assistant", text: turn.answers[pane].parts.join("") }] : []),
    ]),
    ...(more ? [more] : []),
  ];
  const body = (pane, turns) => withFields(dialect.body(shown[pane], turns, read(form)), ownFields(form));

  const send = async (event) => {
    event.preventDefault();
    if (!text.trim() || running) return;
    setNote("");
    let bodies;
    try {
      bodies = shown.map((_, pane) => body(pane, conversation(pane, { role: "user", text, images })));
    } catch {
      return setNote(NOT_JSON);
    }
    const stop = new AbortController();
    const turn = { text, images, answers: [] };
    setTurns([...turns, turn]);
    setText(""); setImages([]); setRunning(stop);
    await Promise.all(bodies.map((one, pane) => ask({
      url, body: one, dialect, headers, signal: stop.signal,
      changed: (answer) => { turn.answers[pane] = answer; changed(); },
    })));
    setRunning(null);
  };

  const attach = async (event) => {
    const read = [...event.target.files].filter((file) => file.size <= MAX_IMAGE).map((file) => new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(file);
    }));
    setNote(read.length < event.target.files.length ? "Images may have 8 MiB." : "");
    event.target.value = "";
    setImages([...images, ...(await Promise.all(read))]);
  };

  const copy = async (pane, write, what) => {
    try {
      const more = text.trim() ? { role: "user", text, images } : null;
      let all = conversation(pane, more);
      while (all.length > 1 && all[all.length - 1].role === "assistant") all = all.slice(0, -1);
      if (!all.length) all = [{ role: "user", text: "Say hello." }];
      await navigator.clipboard.writeText(write(url, body(pane, all), !!secret));
      setNote(secret ? `Copied as ${what}. It reads the key from LLM_API_KEY.` : `Copied as ${what}.`);
    } catch (error) {
      setNote(error instanceof SyntaxError ? NOT_JSON : "The browser did not let this page copy.");
    }
  };

  return html`
    <div class="play">
      <section class="card controls" aria-label="Request">
        <label class="half">Model <${Choice} names=${names} value=${first} set=${(name) => setChosen([name, chosen[1]])} /></label>
        <label class="half">Beside it <${Choice} names=${names} value=${shown[1] || ""} none="nothing" set=${(name) => setChosen([chosen[0], name])} /></label>
        <label>Dialect <select value=${form.dialect} onChange=${set("dialect")}>
          ${Object.entries(DIALECTS).map(([name, { title }]) => html`<option value=${name}>${title}</option>`)}</select></label>
        <div class="pair">
          <label>Temperature <input type="number" min="0" max="2" step="0.1" placeholder="model's" value=${form.temperature} onInput=${set("temperature")} /></label>
          <label>Max tokens <input type="number" min="1" step="1" value=${form.max_tokens} onInput=${set("max_tokens")} /></label>
        </div>
        <div class="checks">
          <label class="row"><input type="checkbox" checked=${form.stream} onChange=${set("stream")} /> Stream</label>
          <label class="row"><input type="checkbox" checked=${form.thinking} onChange=${set("thinking")} /> Let the model think</label>
        </div>
        <label>System prompt <textarea rows="3" value=${form.system} onInput=${set("system")}></textarea></label>
        <details><summary>Tools</summary>
          <label>Functions, as JSON <textarea class="mono" rows="6" value=${form.tools} onInput=${set("tools")}></textarea></label>
          <button type="button" class="quiet" onClick=${() => setForm({ ...form, tools: TOOL })}>Fill in an example</button>
        </details>
        <details><summary>Other fields</summary>
          <label>Fields of the request, as JSON <textarea class="mono" rows="4" value=${form.fields} onInput=${set("fields")}
            placeholder=${'{"top_p": 0.9, "seed": 1}'}></textarea></label>
        </details>
      </section>
      <div>
        <div class="panes">${shown.map((model, pane) => html`
          <${Pane} key=${pane} model=${model} turns=${turns} pane=${pane} copy=${copy} />`)}</div>
        <form class="card ask" onSubmit=${send}>
          <label>Message <textarea rows="3" value=${text} onInput=${(event) => setText(event.target.value)}
            onKeyDown=${(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event); }}></textarea></label>
          <div class="row">
            <button class="primary" disabled=${!!running || !first}>Send</button>
            ${running && html`<button type="button" onClick=${() => running.abort()}>Stop</button>`}
            <label class="row attach">Attach images
              <input type="file" accept="image/*" multiple onChange=${attach} /></label>
            ${images.length > 0 && html`<span class="soft">${plural(images.length, "image")} attached</span>`}
            <span class="soft grow" role="status">${note}</span>
            ${turns.length > 0 && !running && html`<button type="button" class="quiet" onClick=${() => setTurns([])}>New conversation</button>`}
          </div>
        </form>
      </div>
    </div>`;
}

function Choice({ names, value, set, none }) {
  return html`<select value=${value} onChange=${(event) => set(event.target.value)}>
    ${none && html`<option value="">${none}</option>`}
    ${names.map((name) => html`<option value=${name}>${name}</option>`)}</select>`;
}

function Pane({ model, turns, pane, copy }) {
  const end = useRef(null);
  useEffect(() => { if (end.current) end.current.scrollTop = end.current.scrollHeight; });
  return html`
    <section class="card pane" aria-label="Conversation with ${model}">
      <h2>${model}</h2>
      <div class="turns" ref=${end} tabindex="0" role="log" aria-label="Answers of ${model}">
        ${turns.length === 0 && html`<p class="empty">Ask it something.</p>`}
        ${turns.map((turn) => html`
          <div class="turn user"><p class="who">You</p><div class="text">${turn.text}</div>
            ${turn.images.map((url) => html`<img src=${url} alt="Attached image" />`)}</div>
          ${turn.answers[pane] && html`<${Answer} answer=${turn.answers[pane]} />`}`)}
      </div>
      <div class="copies">
        <button class="quiet" onClick=${() => copy(pane, asCurl, "curl")}>Copy as curl</button>
        <button class="quiet" onClick=${() => copy(pane, asPython, "Python")}>Copy as Python</button>
      </div>
    </section>`;
}

function Answer({ answer }) {
  const tools = [...answer.tools.values()];
  return html`
    <div class="turn">
      <p class="who">Model</p>
      ${answer.thoughts && html`<div class="thinking"><span class="sr">Thinking: </span>${answer.thoughts}</div>`}
      ${answer.parts.length > 0 && html`<div class="text">${answer.parts.join("")}</div>`}
      ${answer.size > MAX_SHOWN && html`<p class="soft">… and ${number(answer.size - MAX_SHOWN)} more characters, not shown.</p>`}
      ${tools.map(({ name, input }) => html`<div class="tool mono">calls ${name}(${input})</div>`)}
      ${answer.more > 0 && html`<p class="soft">… and more calls, not shown.</p>`}
      ${answer.failed && html`<p class="failed" role="alert">${answer.failed}</p>`}
      ${!answer.ended && !answer.first && html`<p class="soft">Waiting for the first token …</p>`}
      ${answer.ended && answer.first && html`<${Speed} answer=${answer} />`}
    </div>`;
}

function Speed({ answer }) {
  const ttft = (answer.first - answer.started) / 1000;
  return html`<p class="speed">
    <span>first token <b>${seconds(ttft)}</b></span>
    ${answer.speed && html`<span><b>${number(answer.speed, 1)}</b> tokens/s</span>`}
    ${answer.tokens != null && html`<span><b>${number(answer.tokens)}</b> tokens</span>`}
    <span>in ${seconds((answer.ended - answer.started) / 1000)}</span></p>`;
}
