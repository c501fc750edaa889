// A figure in the colours of the style sheet, and as its place says (data-log, data-smooth).
import { smoothed } from "./curves.js";

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
  smooth(figure, Number(place.dataset.smooth ?? 0));
  for (const axis of place.dataset.log ?? "") useLog(figure.layout[`${axis}axis`]);
  return figure;
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
