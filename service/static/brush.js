// Brushing: a box that is drawn over axes of the parallel coordinates filters the table of trials and
// all other plots. It is kept in the page's address, so that it can be linked to.
import { asked, remember } from "./address.js";
import { make } from "./dom.js";

const BRUSH = /^(\w+):(-?\d{1,2}(?:\.\d{1,9})?):(-?\d{1,2}(?:\.\d{1,9})?)$/;
const said = asked().getAll("brush").map((text) => BRUSH.exec(text)).filter(Boolean);
const brushes = new Map(said.map(([, name, ...ends]) => [name, ends])); // knob -> [low, high] of its axis

/** Shows what the address says; a change is told to the document as `brushed`. */
export function wireBrushes() {
  if (document.getElementById("brushes")) show();
}

/** Hears boxes drawn in the figure: also in one where nothing can be brushed yet. */
export function hearBoxes(place) {
  place.on("plotly_selected", (event) => {
    if (!event?.range) return;
    const [left, right] = event.range.x;
    const ends = event.range.y.map((end) => Math.min(1, Math.max(0, end)).toFixed(4));
    place.layout.xaxis.ticktext.forEach((name, axis) => {
      if (axis >= left && axis <= right && axis < place.layout.xaxis.ticktext.length - 1) brushes.set(name, ends);
    });
    change();
  });
  place.on("plotly_deselect", () => (brushes.clear(), change()));
}

/** Returns what the table and the plots ask the server for. */
export const brushed = () => [...brushes].map(([name, ends]) => ["brush", `${name}:${ends.join(":")}`]);

function change() {
  show();
  const query = asked();
  query.delete("brush");
  for (const [key, value] of brushed()) query.append(key, value);
  remember(query);
  document.dispatchEvent(new Event("brushed"));
}

/** Shows a button for each brushed knob, which takes the brush away. */
function show() {
  const place = document.getElementById("brushes");
  place.replaceChildren(
    ...[...brushes].map(([name, [low, high]]) => {
      const part = `${Math.round(100 * low)} to ${Math.round(100 * high)} % of its axis`;
      const button = make("button", { type: "button", className: "small" }, `${name}: ${part} ✕`);
      button.setAttribute("aria-label", `Show all values of ${name} again`);
      button.addEventListener("click", () => (brushes.delete(name), change()));
      return button;
    }),
  );
}
