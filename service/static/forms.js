// Forms that send JSON. A field's name is its path in the body, as search.learning_rate.log.0; what is
// left empty is left out. What the server finds wrong stands at the field that it names.
import { sendJson } from "./api.js";
import { make, toast } from "./dom.js";

/** Hears every form[data-send]; data-method is POST unless it says otherwise. Once it is sent, data-done is
 *  said, and what the page, drawn anew, says in the element of the id data-adds. */
export function wireForms(redraw) {
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-send]");
    if (!form) return;
    event.preventDefault();
    submit(form, redraw);
  });
}

async function submit(form, redraw) {
  const { send, method, done, leads, adds } = form.dataset;
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  clear(form);
  try {
    const answer = await sendJson(send, method || "POST", bodyOf(form));
    const said = (text) => text.replace(/\{(\w+)\}/g, (_, key) => answer[key]);
    form.closest("dialog")?.close();
    if (leads) return location.assign(said(leads));
    const drawn = redraw();
    if (adds) await drawn;
    const more = document.getElementById(adds)?.textContent ?? "";
    toast(`${said(done)} ${more}`.trim());
  } catch (error) {
    tell(form, error);
  } finally {
    button.disabled = false;
  }
}

/** Returns what the form says, nested as its fields' names are. */
export function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    if (field.type === "checkbox") put(body, field.name, listed(form, field.name));
    else if (field.value.trim() || field.dataset.empty) put(body, field.name, valueOf(field));
  }
  return body;
}

const listed = (form, name) =>
  [...form.querySelectorAll(`[name="${CSS.escape(name)}"]:checked`)].map((box) => JSON.parse(box.value));

function valueOf(field) {
  const text = field.value.trim();
  if (!text) return JSON.parse(field.dataset.empty);
  if (field.dataset.kind === "json") return parsed(text);
  if (field.dataset.kind === "list") return listOf(text);
  const number = Number(text);
  return field.dataset.kind === "number" && Number.isFinite(number) ? number : text; // else the server says
}

/** Returns what the text says as JSON; as it is where it is none, and the server judges. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Returns what stands between commas; a text in quotes may hold one. */
function listOf(text) {
  const whole = parsed(`[${text}]`);
  return Array.isArray(whole) ? whole : text.split(",").map((part) => parsed(part.trim()));
}

function put(body, path, value) {
  const parts = path.split(".");
  const last = parts.pop();
  let here = body;
  parts.forEach((part, i) => (here = here[part] ??= /^\d+$/.test(parts[i + 1] ?? last) ? [] : {}));
  here[last] = value;
}

/** Takes away what was wrong. */
export function clear(form) {
  for (const said of form.querySelectorAll(".wrong")) said.remove();
  form.querySelectorAll("[aria-invalid]").forEach(unmark);
}

/** Takes an error from its field. */
export function unmark(field) {
  if (!field.hasAttribute("aria-invalid")) return;
  document.getElementById(field.getAttribute("aria-describedby"))?.remove();
  field.removeAttribute("aria-invalid");
  field.removeAttribute("aria-describedby");
}

/** Shows each error at its field, and at the form's end, or at `place`, what no field stands for. */
export function tell(form, error, place) {
  const rest = [];
  for (const { field, message, remedy } of error.errors?.length ? error.errors : [{ message: error.message }]) {
    const named = [...form.elements].filter((one) => field && one.name && !one.disabled);
    const at = place ? null : (named.find(({ name }) => name === field) ?? named.find(({ name }) => related(name, field)));
    const text = remedy ? `${message}: ${remedy}` : message;
    if (!at) rest.push(field ? `${field}: ${text}` : text);
    else mark(at, text);
  }
  for (const text of rest) {
    const said = make("p", { className: "wrong", role: "alert" }, text);
    if (place) place.after(said);
    else form.append(said);
  }
  (form.querySelector("[aria-invalid]") ?? form.querySelector(".wrong")).scrollIntoView({ block: "nearest" });
  form.querySelector("[aria-invalid]")?.focus();
}

const related = (name, field) => name === field || name.startsWith(`${field}.`) || field.startsWith(`${name}.`);

function mark(field, text) {
  const id = `wrong-${field.id || field.name}`;
  if (document.getElementById(id)) return;
  field.closest("details")?.setAttribute("open", "");
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
  (field.closest("label, fieldset") ?? field).after(make("p", { id, className: "wrong" }, text));
}
