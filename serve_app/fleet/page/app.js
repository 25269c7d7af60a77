// The frame: which view, which key, and the document, requested once a second or as the service asks.
import { html, render, useEffect, useRef, useState } from "./preact.js";
import { duration, time } from "./format.js";
import { Fleet } from "./fleet.js";
import { Playground } from "./playground.js";
import { Keys, Models } from "./tables.js";

const EVERY_MS = 1000;
const VIEWS = { fleet: "Fleet", playground: "Playground", models: "Models", keys: "Keys" };
const KEY = "fleet-admin-key";

const remembered = () => sessionStorage.getItem(KEY) || "";
const headers = (key) => (key ? { authorization: `Bearer ${key}` } : {});
const view = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "fleet");

async function sentence(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the service answered ${answer.status}`;
  }
}

// With many viewers the service asks for a longer pause before the next poll.
const pause = (answer) => Math.min(60_000, 1000 * Number(answer.headers.get("poll-after")) || 0);

// Asks for the document until the page is closed; asks nothing while it is hidden.
function useDocument(key) {
  const [state, setState] = useState({ doc: null, problem: "", refused: "", age: 0 });
  const last = useRef({ doc: null, etag: "" });
  useEffect(() => {
    let timer, asking = false, stopped = false;
    last.current = { doc: null, etag: "" };
    const ask = async () => {
      if (document.hidden || asking) return;
      let next = EVERY_MS * (0.9 + 0.2 * Math.random()); // no two in step
      asking = true;
      try {
        const requestHeaders = { ...headers(key), ...(last.current.etag ? { "if-none-match": last.current.etag } : {}) };
        const answer = await fetch("admin/fleet", { headers: requestHeaders, cache: "no-store", signal: AbortSignal.timeout(5000) });
        next = Math.max(next, pause(answer));
        await take(answer);
      } catch {
        if (!stopped) setState((was) => ({ ...was, problem: "The service does not answer" }));
      }
      asking = false;
      later(next);
    };
    const take = async (answer) => {
      if (stopped) return;
      if (answer.status === 401 || answer.status === 403) {
        const refused = await sentence(answer);
        stopped = true;
        setState({ doc: null, problem: "", refused, status: answer.status, age: 0 });
      } else if (answer.status === 304 || answer.ok) {
        const age = Number(answer.headers.get("age") || 0);
        if (answer.ok) {
          const doc = await answer.json();
          if (doc.collecting && last.current.doc && !last.current.doc.collecting) return restart();
          last.current = { doc, etag: answer.headers.get("etag"), skew: Date.now() / 1000 - age - doc.at };
        }
        setState({ ...last.current, problem: "", refused: "", seenAt: Date.now(), age });
      } else {
        const problem = await sentence(answer);
        setState((was) => ({ ...was, problem: `The service answers: ${problem}` }));
      }
    };
    // A new collector begins: what was last known stays on the page.
    const restart = () => setState((was) => ({ ...was, problem: "", age: (Date.now() - was.seenAt) / 1000 }));
    // During a long pause ages go on.
    const later = (ms) => {
      if (stopped) return;
      timer = ms < 1.5 * EVERY_MS ? setTimeout(ask, ms) : setTimeout(() => {
        setState((was) => ({ ...was }));
        later(ms - EVERY_MS);
      }, EVERY_MS);
    };
    const awake = () => { clearTimeout(timer); ask(); };
    document.addEventListener("visibilitychange", awake);
    ask();
    return () => { stopped = true; clearTimeout(timer); document.removeEventListener("visibilitychange", awake); };
  }, [key]);
  return state;
}

function App() {
  const [key, setKey] = useState(remembered);
  const [shown, setShown] = useState(view);
  const state = useDocument(key);
  useEffect(() => {
    const follow = () => setShown(view());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => { document.title = `${VIEWS[shown]} · scalable-llm-inference`; }, [shown]);
  const enter = (entered) => {
    if (entered) sessionStorage.setItem(KEY, entered); else sessionStorage.removeItem(KEY);
    setKey(entered);
  };
  const { doc, refused } = state;
  return html`
    <header class="top"><div class="bar">
      <h1><img src="ui/icon.svg" alt="" />scalable-llm-inference</h1>
      <nav aria-label="Views">${Object.entries(VIEWS).map(([name, title]) => html`
        <a href="#${name}" aria-current=${name === shown ? "page" : undefined}>${title}</a>`)}</nav>
      <${Live} state=${state} />
      ${key && doc && html`<button class="quiet" onClick=${() => enter("")}>Forget key</button>`}
    </div></header>
    <main>
      ${refused ? html`<${SignIn} refused=${refused} status=${state.status} wrong=${!!key} enter=${enter} />`
        : !doc || doc.collecting ? html`<p class="loading" role="status">${state.problem || "Gathering the state of the fleet …"}</p>`
        : html`<${Shown} name=${shown} state=${state} secret=${key} headers=${headers(key)} />`}
    </main>`;
}

function Shown({ name, state, secret, headers: sent }) {
  const { doc } = state;
  const now = Date.now() / 1000 - state.skew; // on the service's clock
  const lost = state.problem && html`<p class="banner" role="alert">${state.problem}. Below is the state of
    ${" "}${time(state.seenAt / 1000)}; this page tries again every second.</p>`;
  const late = !state.problem && state.age > 10 && html`<p class="banner" role="status">
    Serve's controller does not answer: below is the state of ${duration(state.age)} ago.</p>`;
  return html`${lost}${late}
    <div hidden=${name !== "playground"}><${Playground} models=${[...doc.models, ...doc.aliases]} secret=${secret} headers=${sent} /></div>
    ${name === "fleet" && html`<${Fleet} doc=${doc} now=${now} />`}
    ${name === "models" && html`<${Models} doc=${doc} />`}
    ${name === "keys" && html`<${Keys} headers=${sent} />`}`;
}

function Live({ state }) {
  if (!state.doc) return html`<span class="live"><i class="dot"></i>${state.problem ? "away" : "not connected"}</span>`;
  return state.problem
    ? html`<span class="live" role="status"><i class="dot bad"></i>connection lost</span>`
    : html`<span class="live"><i class="dot ok"></i>live</span>`;
}

function SignIn({ refused, status, wrong, enter }) {
  const [typed, setTyped] = useState("");
  if (status === 403 && !wrong) return html`<p class="card sign-in">${refused}</p>`;
  const send = (event) => { event.preventDefault(); if (typed.trim()) enter(typed.trim()); };
  return html`
    <form class="card sign-in" onSubmit=${send}>
      <h2>This service has keys</h2>
      <p class="soft">The fleet is for keys with <code>admin: true</code>. The key stays in this tab, until it is closed.</p>
      ${wrong && html`<p class="wrong" role="alert">That key does not open this page: ${status === 401 ? "it is no valid key" : refused}.</p>`}
      <label>Admin key
        <input type="password" autocomplete="off" value=${typed} onInput=${(e) => setTyped(e.target.value)} /></label>
      <button class="primary">Show the fleet</button>
    </form>`;
}

render(html`<${App} />`, Object.assign(document.getElementById("app"), { textContent: "" }));
