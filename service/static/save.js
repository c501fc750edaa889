// Saves a plot as it stands on the page: a picture (PNG, SVG) or its points (CSV).
import { csv } from "./csv.js";
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
  if (kind === "csv") return download(name, `data:text/csv;charset=utf-8,${encodeURIComponent(csv(place))}`);
  const background = getComputedStyle(place.closest(".card")).backgroundColor;
  const layout = { ...place.layout, paper_bgcolor: background, plot_bgcolor: background };
  const { clientWidth: width, clientHeight: height } = place;
  const size = { format: kind, width, height, scale: kind === "png" ? SCALE : 1 };
  download(name, await window.Plotly.toImage({ data: place.data, layout }, size));
}

function download(name, href) {
  make("a", { href, download: name }).click();
}
