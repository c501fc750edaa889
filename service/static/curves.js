// Learning curves: a trace holds the curves of all trials of one role, a gap between two of them.

const PART = { step: 0, tokens: 2, seconds: 3 }; // of a point as events tell it

/** Adds new points of running trials to the figure; returns whether there were any. */
export function grown(figure, trials, x = "step") {
  const trace = figure.data.find((found) => found.meta?.role === "running");
  if (!trace) return false;
  let changed = false;
  for (const { number, state, points } of trials) {
    if (state === "RUNNING") changed = added(trace, number, points, PART[x]) || changed;
  }
  return changed;
}

function added(trace, number, points, part) {
  const end = trace.customdata.lastIndexOf(number);
  const last = end < 0 ? -Infinity : trace.x[end];
  const fresh = points.filter((point) => point[1] !== null && point[part] > last);
  if (!fresh.length) return false;
  const gap = end < 0 ? [null] : [];
  const at = end < 0 ? trace.x.length : end + 1;
  trace.x.splice(at, 0, ...fresh.map((point) => point[part]), ...gap);
  trace.y.splice(at, 0, ...fresh.map((point) => point[1]), ...gap);
  trace.showlegend = true;
  trace.customdata.splice(at, 0, ...fresh.map(() => number), ...gap);
  return true;
}

/** Returns the values as an exponential moving average within each trial, unbiased at its start. */
export function smoothed(values, numbers, weight) {
  let [mean, mass, trial] = [0, 0, null];
  return values.map((value, index) => {
    if (value === null) return null;
    if (numbers[index] !== trial) [mean, mass, trial] = [0, 0, numbers[index]];
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}
