// The form of a new study: what it says is checked while one writes, drawn from, and shown as a file.
import { sendJson, upload } from "./api.js";
import { make, toast } from "./dom.js";
import { bodyOf, clear, tell, unmark } from "./forms.js";
import { duration } from "./format.js";
import { wireSlider, wireSliders } from "./sliders.js";

const PAUSE = 300; // after the last letter [ms]
const NAME = "new-study"; // while it has none
let timer = 0;

/** Wires form[data-draft]; nothing where the page has none. */
export function wireDraft() {
  const form = document.querySelector("[data-draft]");
  if (!form) return;
  const file = document.getElementById("file-text");
  form.querySelectorAll("[data-knob]").forEach(applyMode);
  wireSliders(form);
  form.addEventListener("input", (event) => {
    if (event.target === file) return;
    unmark(event.target);
    const knob = event.target.closest("[data-knob]");
    if (event.target.matches("[data-modes]")) applyMode(knob);
    clearTimeout(timer);
    timer = setTimeout(() => check(form, file), PAUSE);
  });
  form.querySelector("#upload").addEventListener("change", (event) => sendText(form, event.target.files[0]));
  form.querySelector("#take-file").addEventListener("click", () => ofFile(form, file, take));
  form.querySelector("#create-file").addEventListener("click", () => ofFile(form, file, create));
  wireDrop(file);
  check(form, file);
}

/** A knob is fixed or searched: only the fields of its mode are sent. */
function applyMode(knob) {
  const mode = knob.querySelector("[data-modes]")?.value ?? "fixed";
  knob.dataset.mode = mode;
  const ranged = mode === "log" || mode === "uniform";
  const wanted = { fixed: mode === "fixed", range: ranged, choice: mode === "choice" };
  Object.assign(wanted, { step: mode === "uniform", points: ranged, when: mode !== "fixed" });
  for (const [part, shown] of Object.entries(wanted)) {
    for (const field of knob.querySelectorAll(`.of.${part} :is(input, select)`)) {
      field.disabled = !shown;
      if (ranged && field.dataset.end) field.name = `search.${knob.dataset.knob}.${mode}.${field.dataset.end}`;
    }
  }
}

let asked = 0; // how often a draft was checked

async function check(form, file) {
  const mine = ++asked;
  const said = document.getElementById("cost");
  const spec = bodyOf(form);
  spec.name ||= NAME;
  try {
    const draft = await sendJson(form.dataset.draft, "POST", { spec });
    if (mine !== asked) return; // a later one is on its way
    file.value = draft.yaml;
    said.textContent = cost(draft);
    note(draft.notes);
    for (const place of form.querySelectorAll("[data-preview]")) bars(place, draft.sampled[place.dataset.preview] ?? []);
  } catch (error) {
    if (mine !== asked) return;
    note([]);
    said.textContent = `Not right yet, so the file below is as it was before. ${error.message}`;
  }
}

/** Says which knobs are searched in vain. */
function note(notes) {
  const list = make("ul", { className: "notice" }, ...notes.map((text) => make("li", {}, text)));
  document.getElementById("notes").replaceChildren(...(notes.length ? [list] : []));
}

function cost({ trials, tokens, tokens_per_second: speed, seconds }) {
  const count = new Intl.NumberFormat();
  const most = `${count.format(trials)} trials, at most ${count.format(tokens)} tokens`;
  if (!seconds) return `${most}. How long that takes is known once a study of this kind of model has reported here.`;
  return `${most}: about ${duration(seconds)} of one worker, at ${count.format(Math.round(speed))} tokens a second.`;
}

function bars(place, sampled) {
  const most = Math.max(1, ...sampled.map((bar) => bar.count));
  const width = 120 / (sampled.length || 1);
  place.replaceChildren(
    ...sampled.map(({ label, count }, i) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = (27 * count) / most;
      const shape = { x: i * width + 0.5, y: 28 - height, width: Math.max(width - 1, 1), height };
      for (const [name, value] of Object.entries(shape)) bar.setAttribute(name, value);
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${label}: ${count}`;
      bar.append(title);
      return bar;
    }),
  );
}

async function ofFile(form, file, use) {
  clear(form);
  try {
    await use(form, (await sendJson(form.dataset.draft, "POST", { yaml: file.value })).spec);
  } catch (error) {
    tell(form, inForm(error), file);
  }
}

/** Where a text is missing: says how the form is given one, in place of the command. */
function inForm(error) {
  for (const one of error.errors ?? []) {
    if (["data.path", "data.sha256"].includes(one.field)) {
      one.remedy = "take the file into the form, and choose the text there at “Upload a text of your own”";
    }
  }
  return error;
}

async function create(_, spec) {
  const { name } = await sendJson("/api/v1/studies", "POST", spec);
  location.assign(`/studies/${name}`);
}

/** Fills the form with a document. */
async function take(form, spec) {
  const own = Object.keys(spec.search ?? {}).filter((name) => !form.querySelector(`[data-knob="${name}"]`));
  const made = own.map(makeOwn);
  for (const knob of form.querySelectorAll("[data-knob]")) takeKnob(knob, spec.search?.[knob.dataset.knob]);
  made.forEach(wireSlider);
  for (const field of form.elements) {
    if (field.name && !field.disabled && !field.name.startsWith("search.")) field.value = written(spec, field);
  }
  check(form, document.getElementById("file-text"));
}

/** Makes the place of a name that only a script knows. */
function makeOwn(name) {
  const knob = document.getElementById("own-name").content.firstElementChild.cloneNode(true);
  for (const node of [knob, ...knob.querySelectorAll("*")]) {
    for (const attribute of node.attributes) attribute.value = attribute.value.replaceAll("{name}", name);
  }
  knob.querySelector(".name").textContent = name;
  const section = document.getElementById("section-own");
  section.append(knob);
  section.hidden = false;
  return knob;
}

function takeKnob(knob, entry) {
  const modes = knob.querySelector("[data-modes]");
  if (!modes) return;
  modes.value = ["log", "uniform", "choice"].find((mode) => entry?.[mode]) ?? "fixed";
  for (const field of knob.querySelectorAll(".extra input")) {
    const said = entry?.[field.name.split(".").pop()] ?? null;
    field.value = said === null ? "" : JSON.stringify(said);
  }
  applyMode(knob);
  const said = entry?.[modes.value];
  if ("own" in knob.dataset) knob.toggleAttribute("data-whole", [...(said ?? []), entry?.step].every(Number.isInteger));
  if (modes.value === "choice") knob.querySelector(".choice input").value = said.map((v) => JSON.stringify(v)).join(", ");
  else if (said) knob.querySelectorAll("[data-end]").forEach((field, i) => (field.value = said[i]));
  knob.dispatchEvent(new Event("input")); // its sliders follow
}

function written(spec, field) {
  if (field.id === "data") return textOf(field, spec.data);
  const value = field.name.split(".").reduce((here, part) => here?.[part], spec);
  return value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

/** Returns the choice of the text that a study names; of a file elsewhere: the text that is chosen. */
function textOf(field, { sha256, builtin, path }) {
  if (path) {
    toast(`The form keeps the text that is chosen there: upload ${path} if it is to be that.`);
    return field.value;
  }
  const same = ({ value }) => value && JSON.parse(value).sha256 === sha256 && JSON.parse(value).builtin === builtin;
  const known = [...field.options].find(same);
  if (known) return known.value;
  const value = JSON.stringify({ sha256, builtin });
  field.append(new Option(sha256?.slice(0, 12) ?? builtin, value));
  return value;
}

function wireDrop(file) {
  file.addEventListener("dragover", (event) => event.preventDefault());
  file.addEventListener("drop", async (event) => {
    const [dropped] = event.dataTransfer.files;
    if (!dropped) return;
    event.preventDefault();
    file.value = await dropped.text();
  });
}

async function sendText(form, text) {
  if (!text) return;
  try {
    const { sha256, bytes } = await upload(text);
    const said = `${text.name} (${new Intl.NumberFormat().format(bytes)} bytes)`;
    form.querySelector("#data").append(new Option(said, JSON.stringify({ sha256 }), true, true));
    form.dispatchEvent(new Event("input"));
    toast(`Uploaded ${text.name}.`);
  } catch (error) {
    toast(error.message, true);
  }
}
