// Sliders of a knob's range: on a log scale where the knob is searched on one.
const PLACES = 400; // of a slider, as its max says
const DECADES = 3; // below and above the range that the page came with

/** Ties the sliders [data-slide] of each knob to its fields [data-end]. */
export function wireSliders(form) {
  form.querySelectorAll("[data-knob]").forEach(wireSlider);
}

/** Does so for one knob. */
export function wireSlider(knob) {
  const ends = [...knob.querySelectorAll("[data-end]")];
  if (!ends.length) return;
  const first = ends.map((end) => Number(end.value));
  const place = () => ends.forEach((end, i) => show(knob, i, Number(end.value), first));
  place();
  knob.addEventListener("input", (event) => {
    const which = event.target.dataset.slide;
    if (which === undefined) return place();
    ends[which].value = short(at(knob, Number(event.target.value), first), knob);
    event.target.setAttribute("aria-valuetext", ends[which].value);
  });
}

const isLog = (knob) => knob.dataset.mode === "log";

/** Returns the ends of the slider's own scale. */
function scale(knob, [low, high]) {
  if (!isLog(knob)) return [Math.min(0, low), high + (high - low)];
  const least = Math.log10(low > 0 ? low : high / 1000);
  return [least - DECADES, Math.log10(high) + DECADES];
}

function show(knob, i, value, first) {
  const [low, high] = scale(knob, first);
  const there = isLog(knob) ? Math.log10(Math.max(value, Number.MIN_VALUE)) : value;
  const slider = knob.querySelector(`[data-slide="${i}"]`);
  slider.value = Math.round((PLACES * (there - low)) / (high - low));
  slider.setAttribute("aria-valuetext", value); // its own are places on a scale
}

function at(knob, place, first) {
  const [low, high] = scale(knob, first);
  const there = low + ((high - low) * place) / PLACES;
  return isLog(knob) ? 10 ** there : there;
}

const short = (value, knob) => ("whole" in knob.dataset ? Math.round(value) : Number(value.toPrecision(3)));
