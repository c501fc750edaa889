// The overview's search: what is asked for stands in the address, and the list follows while one types.
const PAUSE = 200; // between two letters of one word [ms]

/** Follows the form [data-filter]; `redraw` shows the page of the present address. */
export function wireFilter(redraw) {
  const form = document.querySelector("[data-filter]");
  let timer = 0;
  const follow = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    redraw();
  };
  form?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(follow, PAUSE);
  });
  form?.addEventListener("submit", (event) => (event.preventDefault(), follow()));
}
