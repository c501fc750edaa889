// A figure in the colours of the style sheet, in the reader's zone, and as its place says (data-log,
// data-smooth).
import { smoothed } from "./curves.js";

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Returns the figure as it is to be drawn in its place. */
export function paint(place, figure) {
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
  figure.layout.uirevision = `${place.dataset.x} ${place.dataset.log}`; // another axis, another zoom
  useZone(figure);
  smooth(figure, Number(place.dataset.smooth ?? 0));
  for (const axis of place.dataset.log ?? "") useLog(figure.layout[`${axis}axis`]);
  return figure;
}

/** Says times as the reader's clock does: plotly draws a date as it stands, whatever its zone. */
function useZone({ data, layout }) {
  for (const trace of data) {
    if (layout[`xaxis${(trace.xaxis ?? "x").slice(1)}`]?.type !== "date") continue;
    for (const part of ["x", "base"]) if (Array.isArray(trace[part])) trace[part] = trace[part].map(wallTime);
  }
  for (const axis of Object.values(layout)) {
    if (axis?.type === "date" && axis.showticklabels !== false) axis.title = { text: `time (${ZONE})` };
  }
}

function wallTime(said) {
  if (typeof said !== "string") return said; // a length
  const moment = new Date(said);
  return new Date(moment - 60000 * moment.getTimezoneOffset()).toISOString().slice(0, -1);
}

function smooth(figure, weight) {
  if (!weight) return;
  for (const trace of figure.data) {
    if (trace.customdata) trace.y = smoothed(trace.y, trace.customdata, weight);
  }
}

function useLog(axis) {
  axis.type = "log";
  if (axis.range) axis.range = axis.range[0] > 0 ? axis.range.map(Math.log10) : null;
  delete axis.rangemode;
}
