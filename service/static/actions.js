// What people do on a page: steer a study, copy a text, open a row or a dialog.
import { post } from "./api.js";
import { toast } from "./dom.js";

/** Hears clicks on everything that carries data-act, data-copy, data-href, data-opens or data-closes. */
export function wireActions(redraw) {
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-act], [data-copy], [data-opens], a, button, input, label, summary, [data-href]");
    if (!target) return;
    if (target.dataset.act) act(target, redraw);
    else if (target.dataset.opens) document.getElementById(target.dataset.opens).showModal();
    else if ("closes" in target.dataset) target.closest("dialog").close();
    else if (target.dataset.copy) copy(document.getElementById(target.dataset.copy), target);
    else if (target.dataset.href && !String(getSelection())) location.assign(target.dataset.href);
  });
}

async function act(button, redraw) {
  const { act: url, ask, done } = button.dataset;
  if (ask && !(await confirm(ask, button.textContent))) return;
  button.disabled = true;
  try {
    await post(url);
    toast(done);
  } catch (error) {
    toast(error.message, true);
  }
  button.disabled = false; // where it is to stay so, the page says it anew
  redraw();
}

/** Returns whether the reader said yes. */
function confirm(question, yes) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("[value=yes]").textContent = yes;
  document.getElementById("confirm-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}

async function copy(source, button) {
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    copySelected(source); // no clipboard without TLS beyond localhost
  }
  const said = button.textContent;
  if (said === "Copied") return;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = said), 1500);
}

function copySelected(source) {
  const folded = source.closest("details:not([open])");
  if (folded) folded.open = true;
  getSelection().selectAllChildren(source);
  document.execCommand("copy");
}
