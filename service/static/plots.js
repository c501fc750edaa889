// Draws plotly figures from the server, in the page's colours; plotly.js is loaded when first needed.
// What is on the screen is drawn first and kept fresh; the rest once, and again when it is scrolled to.
import { getVersioned } from "./api.js";
import { brushed, hearBoxes } from "./brush.js";
import { grown } from "./curves.js";
import { paint } from "./paint.js";

const PANEL = 230; // width of a panel that can still be read [px]
const NEAR = 300; // what comes so close to the screen is drawn again [px]
const DARK = matchMedia("(prefers-color-scheme: dark)");
const COARSE = matchMedia("(pointer: coarse)");
const CONFIG = {
  displaylogo: false,
  showSendToCloud: false, // nothing leaves for another host
  displayModeBar: COARSE.matches ? false : "hover",
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
const figures = new Map(); // element -> {version, body: the figure as it came, revision: of the study}
const stale = new Set(); // elements that are off the screen and were not drawn again
let revision = null; // of the study, as the last event said; null: events may have been missed
let loading = null;

/** Draws the figures that are on the screen; then, in no hurry, those that were never drawn. */
export async function drawFigures() {
  const places = [...document.querySelectorAll("[data-figure]")];
  const due = places.filter(isDue);
  const others = places.filter((place) => !due.includes(place));
  others.filter((place) => place.data).forEach((place) => stale.add(place)); // before a scroll could be missed
  await Promise.all(due.map(refresh));
  drawFirst(others.filter((place) => !place.data));
}

async function drawFirst(places) {
  for (const place of places) await idle().then(() => refresh(place)).catch(() => stale.add(place)); // a redraw comes
}

const idle = () => new Promise((done) => (window.requestIdleCallback ?? setTimeout)(done));

/** Draws again when the reader changes between light and dark, brushes, or scrolls to what is stale. */
export function watchFigures() {
  document.addEventListener("brushed", () => drawFigures().catch(() => {})); // the next redraw tries again
  DARK.addEventListener("change", () => [...figures.keys()].forEach((place) => draw(place, true)));
  const observer = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting && stale.delete(e.target)).forEach((e) => refresh(e.target).catch(() => stale.add(e.target))),
    { rootMargin: `${NEAR}px` },
  );
  document.querySelectorAll("[data-figure]").forEach((place) => observer.observe(place));
}

/** Adds what an event says to the learning curves, without asking for them again. */
export function growCurves(told) {
  if (brushed().length) return mayMiss(); // the server knows which trials are shown
  revision = told.more ? null : told.revision;
  const place = document.getElementById("curves");
  const found = figures.get(place);
  if (found && grown(found.body, told.trials ?? [], place.dataset.x) && place.data) draw(place, true);
}

/** Says that events may be missed: from now on figures are asked for again. */
export function mayMiss() {
  revision = null;
}

/** Asks for a figure and draws it. */
export async function refresh(place) {
  await Promise.all([loadPlotly(), fetchFigure(place)]);
  await draw(place);
}

/** Draws a figure again as it is. */
export function redraw(place) {
  if (figures.has(place)) draw(place, true);
}

/** Returns whether it is on the screen; one that is drawn, whether nobody will hear it come near. */
function isDue(place) {
  const { top, bottom } = place.getBoundingClientRect();
  const margin = place.data ? NEAR : 0;
  return top < innerHeight + margin && bottom > -margin;
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

/** Asks for the figure; one that events keep up to date only when the state of a trial changed. */
async function fetchFigure(place) {
  const known = figures.get(place);
  const address = addressOf(place);
  const kept = place.id === "curves" && known?.address === address;
  if (kept && revision !== null && revision === known.revision) return;
  const asked = revision;
  const { version, body } = await getVersioned(address);
  if (address !== addressOf(place)) return fetchFigure(place); // the reader wants another by now
  if (version && known?.version === version && known?.address === address) known.revision = asked;
  else figures.set(place, { version, body, address, revision: asked, drawn: false });
}

function addressOf(place) {
  const columns = Math.max(1, Math.min(8, Math.floor(place.clientWidth / PANEL)));
  const axis = place.dataset.x ? [["x", place.dataset.x]] : [];
  const brushes = place.id === "parallel" ? [] : brushed(); // where they are drawn all lines stay
  const query = new URLSearchParams([["columns", columns], ...axis, ...brushes]);
  const address = place.dataset.figure;
  return `${address}${address.includes("?") ? "&" : "?"}${query}`;
}

async function draw(place, again = false) {
  const found = figures.get(place);
  if (found.drawn && !again) return;
  found.drawn = true;
  const { data, layout } = paint(place, structuredClone(found.body));
  if (COARSE.matches) layout.dragmode = false; // a finger scrolls the page
  const first = !place.data;
  place.style.minHeight = `${layout.height}px`;
  await window.Plotly.react(place, data, layout, CONFIG);
  if (first) place.on("plotly_click", open);
  if (first && place.id === "parallel") hearBoxes(place);
}

function open({ points }) {
  const number = points[0]?.customdata;
  if (Number.isInteger(number)) location.assign(`${location.pathname}/trials/${number}`);
}
