// Builds elements; text is only ever text.

const PRESSED = 50; // between two looks at what is held down [ms]
const LONGEST = 2000; // a click takes less; then the page goes on [ms]

/** Returns a new element: `make("td", { className: "n" }, "3", child)`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Shows a short message that goes away by itself, and that a screen reader says. */
export function toast(text, bad = false) {
  const message = make("p", { className: bad ? "toast bad" : "toast" }, text);
  document.getElementById("toasts").append(message);
  setTimeout(() => message.remove(), bad ? 9000 : 5000);
}

/** Resolves once no pointer is down: what is swapped or moved between press and release hears no click. */
export async function released() {
  const end = performance.now() + LONGEST;
  while (document.querySelector("body:active") && performance.now() < end) {
    await new Promise((done) => setTimeout(done, PRESSED));
  }
}
