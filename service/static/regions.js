// Swaps the parts of a page that carry data-live for those of the page as it is now.
import { getPage } from "./api.js";
import { released } from "./dom.js";

const before = new WeakMap(); // region -> the markup it was last filled with
let asked = 0; // how often the page was asked for again
let shown = 0; // which of its answers is shown

/** Remembers the regions as they were sent: what has not changed is not swapped. */
export function rememberRegions() {
  for (const region of document.querySelectorAll("[data-live]")) before.set(region, region.innerHTML);
}

/** Asks for the page again and swaps what has changed; keeps focus and what is folded open. */
export async function swapRegions() {
  const mine = ++asked;
  const fresh = await getPage(location.href);
  await released();
  if (mine < shown) return; // a later answer has overtaken this one
  shown = mine;
  for (const region of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(region.id);
    if (!next || before.get(region) === next.innerHTML) continue;
    before.set(region, next.innerHTML);
    const focused = region.contains(document.activeElement) ? document.activeElement : null;
    const path = focused && pathTo(focused, region);
    for (const open of region.querySelectorAll("details[open][id]")) {
      next.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
    }
    region.replaceChildren(...next.childNodes);
    if (path) find(region, path)?.focus({ preventScroll: true });
  }
}

/** Returns the indices that lead from the region down to the element. */
function pathTo(element, region) {
  const path = [];
  for (let here = element; here !== region; here = here.parentElement) {
    path.unshift([...here.parentElement.children].indexOf(here));
  }
  return path;
}

const find = (region, path) => path.reduce((here, index) => here?.children[index], region);
