// The overview's search: what is asked for stands in the address, and the list follows while one types.
import { remember } from "./address.js";

const PAUSE = 200; // between two letters of one word [ms]

/** Follows the form [data-filter]; `redraw` shows the page of the present address. */
export function wireFilter(redraw) {
  const form = document.querySelector("[data-filter]");
  let timer = 0;
  const follow = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    remember(query);
    redraw();
  };
  form?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(follow, PAUSE);
  });
  form?.addEventListener("submit", (event) => (event.preventDefault(), follow()));
}
