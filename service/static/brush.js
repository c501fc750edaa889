// Brushing: parts of axes that the reader wants alone. A box that is drawn over axes of the parallel
// coordinates, or the form beside the chips, filters the table of trials and all other plots. It is
// kept in the page's address, so that it can be linked to.
import { asked, remember } from "./address.js";
import { make } from "./dom.js";
import { number } from "./format.js";

const form = document.getElementById("brush"); // only the page of a study has one
const { axis, low, high, choice } = form?.elements ?? {};
const axes = new Map([...(axis?.options ?? [])].map((one) => [one.value, choicesOf(one)])); // name -> choices, if it has any
const brushes = new Map(asked().getAll("brush").map(parsed).filter(known)); // name -> [from, to], "" is no end

/** Shows what the address says, and follows the form; a change is told to the document as `brushed`. */
export function wireBrushes() {
  if (!form) return;
  show();
  ask();
  axis.addEventListener("change", ask);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const ends = axes.get(axis.value) ? [choice.value, choice.value] : [low.value, high.value];
    if (ends.some(Boolean)) brushes.set(axis.value, ends);
    else brushes.delete(axis.value);
    low.value = high.value = "";
    change();
  });
}

/** Hears boxes drawn in the figure: also one in which nothing can be brushed yet. */
export function hearBoxes(place) {
  place.on("plotly_selected", (event) => {
    if (!event?.range) return;
    const [left, right] = event.range.x;
    place.layout.meta.axes.forEach((one, at) => {
      const ends = at >= left && at <= right && endsOf(one, ...event.range.y);
      if (ends) brushes.set(one.name, ends);
    });
    change();
  });
  place.on("plotly_deselect", () => (brushes.clear(), change()));
}

/** Returns what the table and the plots ask the server for. */
export const brushed = () => [...brushes].map(([name, ends]) => ["brush", [name, ...ends.map(encodeURIComponent)].join(":")]);

function choicesOf(option) {
  return option.dataset.choices ? JSON.parse(option.dataset.choices) : null;
}

/** Returns the name and the ends that a brush of the address says. */
function parsed(text) {
  const [name, ...ends] = text.split(":");
  try {
    return [name, ends.map(decodeURIComponent)];
  } catch {
    return [name, []];
  }
}

/** Returns whether the server could follow it: an address can say anything. */
function known([name, ends]) {
  return ends.length === 2 && axes.has(name) && (axes.get(name) || ends.every((end) => Number.isFinite(Number(end))));
}

/** Returns the values at two places of an axis [0, 1], "" beyond its ends; null between two choices. */
function endsOf({ low: least, high: most, log, choices }, from, to) {
  if (choices) {
    const at = (i) => i / Math.max(choices.length - 1, 1);
    const inside = choices.filter((_, i) => at(i) >= from && at(i) <= to);
    return inside.length ? [inside[0], inside.at(-1)] : null;
  }
  const value = (at) => (log ? least * (most / least) ** at : least + (most - least) * at);
  const short = (at) => String(Number(value(at).toPrecision(6)));
  return [from > 0 ? short(from) : "", to < 1 ? short(to) : ""];
}

/** Asks for a choice where the axis has some, else for two numbers. */
function ask() {
  const choices = axes.get(axis.value);
  choice.replaceChildren(...(choices ?? []).map((one) => make("option", {}, one)));
  for (const field of [low, high, choice]) field.closest("label").hidden = Boolean(choices) !== (field === choice);
}

function change() {
  show();
  const query = asked();
  query.delete("brush");
  for (const [key, value] of brushed()) query.append(key, value);
  remember(query);
  document.dispatchEvent(new Event("brushed"));
}

/** Shows a button for each brush, which takes it away. */
function show() {
  const place = document.getElementById("brushes");
  place.replaceChildren(...[...brushes].map(([name, ends]) => {
    const label = [...axis.options].find((one) => one.value === name).text;
    const button = make("button", { type: "button" }, `${label}: ${said(ends)} ✕`);
    button.setAttribute("aria-label", `Show all values of ${label} again`);
    button.addEventListener("click", () => {
      brushes.delete(name);
      change();
      (place.firstChild ?? axis).focus({ preventScroll: true }); // not where a keyboard's reader is lost
    });
    return button;
  }));
}

function said(ends) {
  const [from, to] = ends.map((end) => (end && Number.isFinite(Number(end)) ? number(Number(end)) : end));
  if (from === to) return from || "any value";
  if (!from) return `up to ${to}`;
  return to ? `${from} to ${to}` : `from ${from}`;
}
