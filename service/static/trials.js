// The sortable table of a study's trials.
import { getJson } from "./api.js";
import { make } from "./dom.js";
import { duration, number } from "./format.js";

const PAGE = 1000; // trials per request
const PAGES = 10; // more are not asked for
const ROWS = 50; // shown before "show all" is pressed
const order = { key: "number", down: true };
let all = false;
let trials = [];
let leader = null; // the best complete trial

/** Reads the trials again and draws the table; nothing where the page has none. */
export async function drawTrials() {
  const place = document.querySelector("[data-trials]");
  if (!place) return;
  trials = await readTrials(place.dataset.trials);
  render(place);
}

async function readTrials(url) {
  const found = [];
  let cursor = "";
  for (let page = 0; page < PAGES && cursor !== null; page += 1) {
    const query = new URLSearchParams({ limit: PAGE, ...(cursor && { cursor }) });
    const { items, next } = await getJson(`${url}?${query}`);
    found.push(...items);
    cursor = next;
  }
  return found;
}

/** Returns the columns: key, heading, what a trial is sorted by, what its cell says. */
function columns(place) {
  const { metric, page } = place.dataset;
  const plain = (key, title, value, show = number) => ({ key, title, value, show, n: true });
  return [
    { ...plain("number", "Trial", (t) => t.number), show: (_, t) => link(`${page}/${t.number}`, t.number), n: false },
    { ...plain("state", "State", (t) => t.state), show: (state) => badge(state), n: false },
    plain("value", metric, value, (v, t) => (t === leader ? `★ ${number(v)}` : number(v))),
    plain("step", "Step", (t) => t.step, (step, t) => `${step} / ${t.max_step}`),
    ...JSON.parse(place.dataset.params).map((name) => plain(`param ${name}`, name, (t) => t.params[name] ?? null)),
    plain("took", "Took", took, duration),
  ];
}

const value = (trial) => (typeof trial.value === "number" ? trial.value : null);

/** Returns the best complete trial, the earliest of equals; undefined before there is one. */
function best(place) {
  const sign = place.dataset.direction === "minimize" ? 1 : -1;
  const complete = trials.filter((t) => t.state === "COMPLETE" && value(t) !== null);
  return complete.sort((a, b) => sign * (a.value - b.value) || a.number - b.number)[0];
}

const link = (href, text) => make("a", { href }, String(text));
const badge = (state) => make("span", { className: `badge ${state.toLowerCase()}` }, state.toLowerCase());

function took(trial) {
  if (!trial.started_at) return null;
  return ((trial.ended_at ? Date.parse(trial.ended_at) : Date.now()) - Date.parse(trial.started_at)) / 1000;
}

function render(place) {
  leader = best(place);
  const shown = columns(place);
  const by = shown.find((column) => column.key === order.key) ?? shown[0];
  const sorted = [...trials].sort((a, b) => compare(by.value(a), by.value(b)) || a.number - b.number);
  const rows = all ? sorted : sorted.slice(0, ROWS);
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const table = make("table", { className: "rows" }, head(place, shown), body(place, shown, rows));
  table.setAttribute("aria-label", `${trials.length} trials`);
  fill(place, table, sorted.length - rows.length);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function fill(place, table, hidden) {
  if (!place.firstChild) place.append(make("div", { className: "scroll", tabIndex: 0 }), moreButton(place));
  const [scroll, more] = place.children;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Trials, scrolls sideways");
  const empty = make("p", { className: "quiet" }, "The first trial is on its way.");
  scroll.replaceChildren(trials.length ? table : empty);
  more.textContent = `Show ${hidden} more`;
  more.hidden = !hidden;
}

function moreButton(place) {
  const more = make("button", { id: "show-all", type: "button" });
  more.addEventListener("click", () => {
    all = true;
    render(place);
  });
  return more;
}

/** Returns the order of two values: numbers by size, text by letters, nothing always last. */
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  const both = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return order.down ? -both : both;
}

function head(place, shown) {
  return make("thead", {}, make("tr", {}, ...shown.map((column) => heading(place, column))));
}

function heading(place, { key, title, n }) {
  const button = make("button", { type: "button", id: `sort ${key}` }, title);
  button.addEventListener("click", () => {
    order.down = order.key === key && !order.down;
    order.key = key;
    render(place);
  });
  const cell = make("th", { scope: "col", className: n ? "n" : "" }, button);
  cell.setAttribute("aria-sort", order.key === key ? (order.down ? "descending" : "ascending") : "none");
  return cell;
}

function body(place, shown, rows) {
  return make("tbody", {}, ...rows.map((trial) => row(place, shown, trial)));
}

function row(place, shown, trial) {
  const cells = shown.map(({ value, show, n }) => make("td", { className: n ? "n" : "" }, show(value(trial), trial)));
  const line = make("tr", { className: trial === leader ? "best" : "" }, ...cells);
  line.dataset.href = `${place.dataset.page}/${trial.number}`;
  return line;
}
