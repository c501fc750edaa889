// How a page says numbers, durations and times: numbers as the server does, times in the reader's zone.
const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** Returns a number in five significant digits, nothing as a dash, anything else as it is. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const short = Math.abs(value) >= 1e-4 && Math.abs(value) < 1e6;
  return short ? String(Number(value.toPrecision(5))) : value.toExponential(2);
}

/** Returns a duration [s] in its two largest units. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const [d, h, m] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  const two = (value) => String(value).padStart(2, "0");
  if (d) return `${d}d ${two(h)}h`;
  if (h) return `${h}h ${two(m)}m`;
  return m ? `${m}m ${two(whole % 60)}s` : `${whole}s`;
}

function ago(moment) {
  const seconds = (moment - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? [];
  return unit ? AGO.format(Math.round(seconds / size), unit) : "just now";
}

/** Returns the time of day, with the date where that is not today's. */
function clock(moment) {
  return (moment.toDateString() === new Date().toDateString() ? TIME : CLOCK).format(moment);
}

/** Says every <time> below the root in the reader's zone and language. */
export function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const text = time.dataset.style === "time" ? clock(moment) : ago(moment);
    if (time.textContent !== text) time.textContent = text;
    time.title = CLOCK.format(moment);
  }
}

/** Counts every running duration on by a second. */
export function tick() {
  for (const node of document.querySelectorAll("[data-seconds]")) {
    node.dataset.seconds = Math.max(0, Number(node.dataset.seconds) + Number(node.dataset.step));
    node.textContent = duration(Number(node.dataset.seconds));
  }
}
