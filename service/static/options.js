// How a plot is drawn, as its form says; kept in the page's address, so that it can be linked to.
import { asked, remember } from "./address.js";
import { redraw, refresh } from "./plots.js";

/** Sets every [data-options] form as the address says, and follows what the reader changes. */
export function wireOptions() {
  for (const form of document.querySelectorAll("[data-options]")) {
    const place = document.getElementById(form.dataset.options);
    const said = asked();
    for (const field of form.elements) {
      if (!said.has(field.name)) continue;
      if (field.type === "checkbox") field.checked = true;
      else field.value = said.get(field.name);
    }
    apply(form, place);
    form.addEventListener("input", (event) => {
      apply(form, place);
      keep(form);
      if (event.target.name === "x") refresh(place);
      else redraw(place);
    });
  }
}

function apply(form, place) {
  const { x, logx, logy, smooth } = form.elements;
  place.dataset.x = x.value || "step";
  place.dataset.log = (logx.checked ? "x" : "") + (logy.checked ? "y" : "");
  place.dataset.smooth = smooth.value;
}

function keep(form) {
  const query = asked();
  for (const field of form.elements) {
    const plain = field.type === "checkbox" ? !field.checked : field.value === field.dataset.plain;
    if (plain) query.delete(field.name);
    else query.set(field.name, field.value);
  }
  remember(query);
}
