// Saves a plot as it stands on the page: a picture (PNG, SVG) or its points (CSV).
import { make, toast } from "./dom.js";

const SCALE = 2; // pixels of a PNG for one of the page

/** Hears clicks on [data-save]: the kind of file; data-of is the id of the plot. */
export function wireSaving() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-save]");
    if (button) save(document.getElementById(button.dataset.of), button.dataset.save);
  });
}

async function save(place, kind) {
  if (!place.data) return toast("The plot is not drawn yet.", true);
  const name = `${location.pathname.split("/").pop()}-${place.id}.${kind}`;
  if (kind === "csv") return download(name, `data:text/csv;charset=utf-8,${encodeURIComponent(csv(place.data))}`);
  const background = getComputedStyle(place.closest(".card")).backgroundColor;
  const layout = { ...place.layout, paper_bgcolor: background, plot_bgcolor: background };
  const { clientWidth: width, clientHeight: height } = place;
  const size = { format: kind, width, height, scale: kind === "png" ? SCALE : 1 };
  download(name, await window.Plotly.toImage({ data: place.data, layout }, size));
}

function download(name, href) {
  make("a", { href, download: name }).click();
}

/** Returns the points of all traces, a line each; gaps are left out. */
function csv(traces) {
  const cell = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = traces.filter(({ z }) => !z).flatMap(({ name, x, y, customdata }) =>
    [...(x ?? [])].map((at, i) => [name, customdata?.[i], at, y[i]].map((value) => cell(String(value ?? "")))),
  );
  return [["series", "trial", "x", "y"], ...lines.filter((line) => line[3] !== "")].map(String).join("\n");
}
