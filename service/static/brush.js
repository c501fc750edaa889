// Brushing: a box that is drawn over axes of the parallel coordinates filters the table of trials.
import { make } from "./dom.js";

const brushes = new Map(); // knob -> [low, high] of its axis

/** Hears boxes drawn in the figure; `changed` is called when the table is to be read again. */
export function wireBrush(place, changed) {
  place.on("plotly_selected", (event) => {
    if (!event?.range) return;
    const [left, right] = event.range.x;
    const ends = event.range.y.map((end) => Math.min(1, Math.max(0, end)).toFixed(4));
    place.layout.xaxis.ticktext.forEach((name, axis) => {
      if (axis >= left && axis <= right && axis < place.layout.xaxis.ticktext.length - 1) brushes.set(name, ends);
    });
    show(changed);
  });
  place.on("plotly_deselect", () => (brushes.clear(), show(changed)));
}

/** Returns what the table asks the server for. */
export const brushed = () => [...brushes].map(([name, ends]) => ["brush", `${name}:${ends.join(":")}`]);

/** Shows a button for each brushed knob, which takes the brush away. */
function show(changed) {
  const place = document.getElementById("brushes");
  place.replaceChildren(
    ...[...brushes].map(([name, [low, high]]) => {
      const part = `${Math.round(100 * low)} to ${Math.round(100 * high)} % of its axis`;
      const button = make("button", { type: "button", className: "small" }, `${name}: ${part} ✕`);
      button.setAttribute("aria-label", `Show all values of ${name} again`);
      button.addEventListener("click", () => (brushes.delete(name), show(changed)));
      return button;
    }),
  );
  changed();
}
