// Trials that are chosen to be compared: kept in the page's address, so that the choice can be linked to.
import { asked, remember } from "./address.js";

const MOST = 6; // beside each other

/** Returns the chosen numbers, in the order in which they were chosen. */
export function picked() {
  return (asked().get("pick") ?? "").split(",").filter((part) => /^\d{1,9}$/.test(part)).map(Number);
}

/** Returns whether one more may be chosen. */
export const room = () => picked().length < MOST;

/** Chooses a trial, or no longer. */
export function pick(number, wanted) {
  const rest = picked().filter((other) => other !== number);
  const chosen = wanted ? [...rest, number] : rest;
  const said = asked();
  if (chosen.length) said.set("pick", chosen.join(","));
  else said.delete("pick");
  remember(said);
}

/** Shows the link that compares what is chosen; hidden below two. */
export function showLink(link) {
  const chosen = picked();
  link.hidden = chosen.length < 2;
  link.textContent = `Compare ${chosen.length} trials`;
  link.href = `${location.pathname}/compare?trials=${chosen.join(",")}`;
}
