// Keeps a page fresh: pushed events, polling where they are cut off, never faster than it can draw.
// A hidden page listens to nothing: a browser grants one host six connections for all its tabs.
const PERIOD = 1000; // between two redraws at least [ms]
const SHARE = 4; // a redraw that takes long waits this many times as long before the next ...
const LONGEST = 10000; // ... but no longer than this [ms]
const POLL = 5000; // between two polls while events are cut off, and after a failed redraw [ms]

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Returns a function that asks for a redraw; redraws also on every pushed change.
 *  `tell` hears "live", "polling" or "lost"; `hear` gets what a pushed change says, at once,
 *  and returns whether the page is to be drawn again.
 *  The browser itself sends the id of the last event when it connects again, and hears the rest. */
export function follow(url, redraw, tell, hear) {
  let wanted = false; // something has changed since the last redraw began
  let running = false;
  let source = null;
  const open = () => source?.readyState === EventSource.OPEN;

  async function now() {
    wanted = true;
    if (running) return;
    running = true;
    while (wanted && !document.hidden) {
      wanted = false;
      const start = performance.now();
      const drawn = await attempt();
      const spent = performance.now() - start;
      await sleep(drawn ? Math.min(Math.max(PERIOD, SHARE * spent), LONGEST) : POLL);
      wanted ||= !drawn;
    }
    running = false;
  }

  async function attempt() {
    try {
      await redraw();
      tell(open() ? "live" : "polling");
      return true;
    } catch (error) {
      if (error.name !== "Offline") console.warn(error);
      tell("lost");
      return false;
    }
  }

  function listen() {
    source?.close();
    source = document.hidden ? null : new EventSource(url);
    source?.addEventListener("open", () => tell("live"));
    source?.addEventListener("changed", (event) => hear(JSON.parse(event.data)) && now());
    source?.addEventListener("error", () => tell("lost"));
  }

  function poll() {
    if (document.hidden || open()) return;
    if (source?.readyState === EventSource.CLOSED) listen(); // refused, not cut: try again
    now();
  }

  document.addEventListener("visibilitychange", () => (listen(), now()));
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  setInterval(poll, POLL);
  listen();
  now();
  return now;
}
