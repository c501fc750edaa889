// Draws plotly figures from the server, in the page's colours; plotly.js is loaded when first needed.
import { getJson } from "./api.js";

const PANEL = 230; // width of a panel that can still be read [px]
const DARK = matchMedia("(prefers-color-scheme: dark)");
const COARSE = matchMedia("(pointer: coarse)");
const CONFIG = {
  displaylogo: false,
  showSendToCloud: false, // nothing leaves for another host
  displayModeBar: COARSE.matches ? false : "hover",
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
const figures = new Map(); // element -> the figure as it came
let loading = null;

/** Draws every figure of the page; a redraw keeps the reader's zoom. */
export async function drawFigures() {
  const places = [...document.querySelectorAll("[data-figure]")];
  if (!places.length) return;
  await Promise.all([loadPlotly(), ...places.map(fetchFigure)]);
  for (const place of places) await draw(place);
}

/** Draws again when the reader changes between light and dark. */
export function watchTheme() {
  DARK.addEventListener("change", () => [...figures.keys()].forEach(draw));
}

function loadPlotly() {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = document.body.dataset.plotly;
    script.onload = done;
    script.onerror = () => {
      loading = null;
      failed(new Error("plotly.js cannot be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

async function fetchFigure(place) {
  const columns = Math.max(1, Math.min(8, Math.floor(place.clientWidth / PANEL)));
  figures.set(place, await getJson(`${place.dataset.figure}?columns=${columns}`));
}

async function draw(place) {
  const { data, layout } = paint(structuredClone(figures.get(place)));
  if (COARSE.matches) layout.dragmode = false; // a finger scrolls the page
  const first = !place.data;
  place.style.minHeight = `${layout.height}px`;
  await window.Plotly.react(place, data, layout, CONFIG);
  if (first && place.closest("[id=history],[id=curves],[id=slices]")) place.on("plotly_click", open);
}

function open({ points }) {
  const number = points[0]?.customdata;
  if (Number.isInteger(number)) location.assign(`${location.pathname}/trials/${number}`);
}

/** Returns the figure in the colours of the style sheet. */
function paint(figure) {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
  for (const trace of figure.data) {
    const own = colour(`plot-${trace.meta?.role}`);
    for (const part of [trace.marker, trace.line]) if (own && part) part.color = own;
  }
  const { layout } = figure.layout.template;
  layout.font.color = colour("quiet");
  layout.font.family = getComputedStyle(document.body).fontFamily;
  layout.xaxis.gridcolor = layout.yaxis.gridcolor = colour("grid");
  layout.hoverlabel = { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } };
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("accent") };
  return figure;
}
