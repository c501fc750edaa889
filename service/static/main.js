// Wires a page: what it shows says by data attributes what it can do.
//   body[data-events]   changes are pushed from here       [data-live]    swapped on a change
//   [data-figure]       a plot, drawn from here            [data-trials]  the table of trials
//   [data-act]          a button that posts there          [data-copy]    copies that element's text
import { wireActions } from "./actions.js";
import { localise, tick } from "./format.js";
import { follow } from "./live.js";
import { drawFigures, watchTheme } from "./plots.js";
import { drawTrials } from "./trials.js";
import { swapRegions } from "./regions.js";

const NAMES = { live: "live", polling: "live, by polling", lost: "disconnected, retrying" };

function tell(state) {
  const sign = document.getElementById("live");
  if (sign.dataset.state === state) return;
  sign.dataset.state = state;
  sign.textContent = NAMES[state];
}

async function refresh() {
  await swapRegions();
  localise(document);
  await Promise.all([drawTrials(), drawFigures()]);
}

localise(document);
watchTheme();
setInterval(tick, 1000);
const now = follow(document.body.dataset.events, refresh, tell);
wireActions(now);
