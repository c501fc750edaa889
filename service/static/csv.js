// What a plot shows as CSV: a line for each point, columns named as the plot's axes are.
// Where an axis has no title the figure names its column in layout.meta.columns; a trace whose points
// are only places on the paper has its values, by trial, in meta.rows.

/** Returns a drawn plot as CSV; gaps are left out. */
export function csv({ data, layout }) {
  const rows = data.flatMap((trace) => rowsOf(trace, layout));
  const columns = [...new Set(rows.flatMap(Object.keys))].filter((name) => rows.some((row) => cell(row[name])));
  return [columns.map(cell), ...rows.map((row) => columns.map((name) => cell(row[name])))].map(String).join("\n");
}

const moment = (time) => new Date(time).toISOString(); // of the reader's clock, as the plot says it

function cell(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function rowsOf(trace, layout) {
  const across = nameOf("x", trace.xaxis ?? "x", layout);
  const up = nameOf("y", trace.yaxis ?? "y", layout);
  if (trace.meta?.aside) return []; // lines of the paper
  if (trace.meta?.rows) return places(trace, layout.xaxis.ticktext);
  if (trace.z) return means(trace, across, up);
  if (trace.base) return spans(trace, up);
  const axis = layout[`xaxis${(trace.xaxis ?? "x").slice(1)}`];
  return points(axis?.type === "date" ? { ...trace, x: trace.x.map(moment) } : trace, across, up);
}

/** Returns what an axis shows; null for one that is hidden: what stands on it stands for no value. */
function nameOf(letter, id, layout) {
  const axis = layout[`${letter}axis${id.slice(1)}`] ?? {};
  if (axis.visible === false) return null;
  const said = layout.meta?.columns?.[letter] ?? axis.title?.text;
  return said ?? (axis.matches ? nameOf(letter, axis.matches, layout) : letter);
}

function points({ name: series, x, y, customdata }, across, up) {
  const rows = x.map((at, i) => ({ series, trial: customdata?.[i], [across]: at, ...(up && { [up]: y[i] }) }));
  return rows.filter((row) => cell(row[across]));
}

/** Returns the bars of a timeline; one that grows has no end yet. */
function spans({ name: series, base, x, y, text, customdata, meta }, up) {
  const end = (i) => (meta.role === "running" ? "" : moment(Date.parse(base[i]) + x[i]));
  return x.map((_, i) => ({ series, trial: customdata[i], [up]: y[i], start: moment(base[i]), end: end(i), text: text[i] }));
}

/** Returns the cells of a contour; `name` says what their means are of. */
function means({ name, x, y, z }, across, up) {
  const rows = y.flatMap((high, row) => x.map((at, i) => ({ series: "mean", [across]: at, [up]: high, [name]: z[row][i] })));
  return rows.filter((row) => cell(row[name]));
}

function places({ name: series, meta }, columns) {
  return meta.rows.map(([trial, ...values]) => ({ series, trial, ...Object.fromEntries(columns.map((column, i) => [column, values[i]])) }));
}
