// Wires a page: what it shows says by data attributes what it can do.
//   body[data-events]   changes are pushed from here       [data-live]    swapped on a change
//   [data-figure]       a plot, drawn from here            [data-trials]  the table of trials
//   [data-options]      how a plot is drawn                [data-save]    saves a plot
//   [data-act]          a button that posts there          [data-copy]    copies that element's text
//   [data-send]         a form that is sent there as JSON  [data-opens]   opens that dialog
import { wireActions } from "./actions.js";
import { wireBrushes } from "./brush.js";
import { localise, tick } from "./format.js";
import { follow } from "./live.js";
import { drawFigures, growCurves, mayMiss, watchFigures } from "./plots.js";
import { wireFilter } from "./filter.js";
import { wireDraft } from "./draft.js";
import { wireForms } from "./forms.js";
import { wireOptions } from "./options.js";
import { wireSaving } from "./save.js";
import { drawTrials } from "./trials.js";
import { rememberRegions, swapRegions } from "./regions.js";

const NAMES = { live: "live", polling: "live, by polling", lost: "disconnected, retrying" };

function tell(state) {
  if (state !== "live") mayMiss();
  const sign = document.getElementById("live");
  if (sign.dataset.state === state) return;
  sign.dataset.state = state;
  sign.textContent = NAMES[state];
}

let fresh = true; // the page is as it was sent

async function refresh() {
  if (!fresh) await swapRegions();
  fresh = false;
  localise(document);
  await Promise.all([drawTrials(), drawFigures()]);
}

rememberRegions();
localise(document);
watchFigures();
wireBrushes();
wireOptions();
setInterval(tick, 1000);
let study; // the study's state, as the last event told it

/** Takes in a pushed change; the first may tell of the state that the page was sent in. */
function hear(told) {
  growCurves(told);
  const sent = document.body.dataset.revision; // of the page; asked for once
  const known = sent === String(told.revision);
  const turned = study ? study !== told.state : sent && !known;
  study = told.state;
  delete document.body.dataset.revision;
  if (turned) showParts(); // not only when the figures may be drawn again
  return !known || told.trials.length > 0;
}

/** Shows at once what somebody has done; figures follow as after any change. */
const showParts = () => swapRegions().then(() => localise(document)).catch(() => {}).finally(() => void now());

const { events } = document.body.dataset;
const now = events ? follow(events, refresh, tell, hear) : () => {};
wireActions(showParts);
wireForms(showParts);
wireDraft();
wireSaving();
wireFilter(now);
