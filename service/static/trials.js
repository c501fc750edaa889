// The table of a study's trials; the server sorts, filters and cuts it.
import { getJson } from "./api.js";
import { brushed } from "./brush.js";
import { make, released, toast } from "./dom.js";
import { duration, number } from "./format.js";
import { pick, picked, room, showLink } from "./picks.js";

const ROWS = 50; // shown before "show more" is pressed
const MORE = 1000; // shown after it
const order = { sort: "number", down: true, limit: ROWS }; // as the reader wants it
let table = { rows: [], matching: 0, total: 0, order: { ...order } }; // as it is shown
let asked = 0; // how often the rows were asked for
let shown = 0; // which of the answers is shown

/** Reads the rows again and draws the table; nothing where the page has none. */
export async function drawTrials() {
  const place = document.querySelector("[data-trials]");
  if (!place) return;
  const mine = ++asked;
  const wanted = { ...order };
  const answer = await getJson(`${place.dataset.trials}?${new URLSearchParams([...Object.entries(wanted), ...brushed()])}`);
  await released();
  if (mine < shown) return; // a later answer has overtaken this one
  shown = mine;
  table = { ...answer, order: wanted };
  render(place);
}

document.addEventListener("brushed", again);

/** Asks for what the reader wants by now; until it comes the rows are dimmed. */
function again() {
  const place = document.querySelector("[data-trials]");
  const drawn = drawTrials();
  const mine = asked;
  place.setAttribute("aria-busy", "true");
  drawn.catch((error) => {
    if (mine !== asked) return; // nobody wants it any more
    Object.assign(order, table.order); // what is shown stays
    place.setAttribute("aria-busy", "false");
    toast(error.message, true);
  });
}

/** Returns the columns: what the server sorts by, heading, what a trial's cell says. */
function columns(place) {
  const { metric, page } = place.dataset;
  const plain = (key, title, show) => ({ key, title, show, n: true });
  return [
    { ...plain("number", "Trial", (t) => link(`${page}/${t.number}`, t.number)), n: false },
    { ...plain("state", "State", (t) => badge(t.state)), n: false },
    plain("value", metric, (t) => (t.best ? `★ ${number(t.value)}` : number(t.value))),
    plain("step", "Step", (t) => `${t.step} / ${t.max_step}`),
    ...JSON.parse(place.dataset.params).map((name) => plain(`param ${name}`, name, (t) => number(t.params[name]))),
    plain("took", "Took", (t) => duration(took(t))),
  ];
}

const link = (href, text) => make("a", { href }, String(text));
const badge = (state) => make("span", { className: `badge ${state.toLowerCase()}` }, state.toLowerCase());

function took(trial) {
  if (!trial.started_at) return NaN;
  return ((trial.ended_at ? Date.parse(trial.ended_at) : Date.now()) - Date.parse(trial.started_at)) / 1000;
}

function render(place) {
  const parts = columns(place);
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const drawn = make("table", { className: "rows" }, head(parts), body(place, parts));
  drawn.setAttribute("aria-label", `${table.total} trials`);
  fill(place, drawn);
  place.setAttribute("aria-busy", String(shown < asked));
  showLink(document.getElementById("compare"));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function fill(place, drawn) {
  if (!place.firstChild) place.append(make("div", { className: "scroll", tabIndex: 0 }), moreButton());
  const [scroll, more] = place.children;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Trials, scrolls sideways");
  const empty = make("p", { className: "quiet" }, "The first trial is on its way.");
  const none = make("p", { className: "quiet" }, "No trial is like that.");
  scroll.replaceChildren(table.matching ? drawn : table.total ? none : empty);
  const hidden = Math.min(table.matching, MORE) - table.rows.length;
  more.textContent = `Show ${hidden} more`;
  more.hidden = hidden <= 0;
}

function moreButton() {
  const more = make("button", { id: "show-all", type: "button" });
  more.addEventListener("click", () => {
    order.limit = MORE;
    again();
  });
  return more;
}

function head(parts) {
  const picks = make("th", { scope: "col", className: "pick" }, make("span", { className: "unseen" }, "Compare"));
  return make("thead", {}, make("tr", {}, picks, ...parts.map(heading)));
}

function heading({ key, title, n }) {
  const button = make("button", { type: "button", id: `sort ${key}` }, title);
  button.addEventListener("click", () => {
    order.down = order.sort === key && !order.down;
    order.sort = key;
    again();
  });
  const cell = make("th", { scope: "col", className: n ? "n" : "" }, button);
  const { sort, down } = table.order;
  cell.setAttribute("aria-sort", sort === key ? (down ? "descending" : "ascending") : "none");
  return cell;
}

function body(place, parts) {
  return make("tbody", {}, ...table.rows.map((trial) => row(place, parts, trial)));
}

/** Returns the cell in which a trial is chosen to be compared. */
function box({ number: own }) {
  const checked = picked().includes(own);
  const input = make("input", { type: "checkbox", id: `pick ${own}`, checked, disabled: !checked && !room() });
  input.setAttribute("aria-label", `Compare trial ${own}`);
  input.addEventListener("change", () => {
    pick(own, input.checked);
    render(document.querySelector("[data-trials]"));
  });
  return make("td", { className: "pick" }, input);
}

function row(place, parts, trial) {
  const cells = parts.map(({ show, n }) => make("td", { className: n ? "n" : "" }, show(trial)));
  const line = make("tr", { className: trial.best ? "best" : "" }, box(trial), ...cells);
  line.dataset.href = `${place.dataset.page}/${trial.number}`;
  return line;
}
