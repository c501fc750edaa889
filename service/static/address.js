// What stands in the page's address behind the question mark: it can be linked to, and a reload keeps it.

/** Returns it. */
export const asked = () => new URLSearchParams(location.search);

/** Puts it there; the commas of a list stay readable. */
export function remember(query) {
  const text = query.toString().replaceAll("%2C", ",");
  history.replaceState(null, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
}
