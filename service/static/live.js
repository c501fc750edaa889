// Keeps a page fresh: pushed events, polling where they are cut off, never faster than it can draw.
const PERIOD = 1000; // between two redraws at least [ms]
const SHARE = 4; // a redraw that takes long waits this many times as long before the next
const POLL = 5000; // between two polls while events are cut off [ms]
const REOPEN = 10000; // before events are tried again after the server refused them [ms]

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Returns a function that asks for a redraw; redraws also on every pushed change.
 *  `tell` hears "live", "polling" or "lost". */
export function follow(url, redraw, tell) {
  let wanted = false;
  let running = false;
  let open = false;

  async function now() {
    wanted = true;
    if (running) return;
    running = true;
    while (wanted && !document.hidden) {
      wanted = false;
      const start = performance.now();
      try {
        await redraw();
        if (!open) tell("polling");
      } catch (error) {
        if (!(error instanceof Error) || error.name !== "Offline") console.warn(error);
        tell("lost");
      }
      await sleep(Math.max(PERIOD, SHARE * (performance.now() - start)));
    }
    running = false;
  }

  function connect() {
    const source = new EventSource(url);
    source.addEventListener("open", () => {
      open = true;
      tell("live");
    });
    source.addEventListener("changed", now);
    source.addEventListener("error", () => {
      open = false;
      tell("lost");
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, REOPEN);
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  }

  document.addEventListener("visibilitychange", () => !document.hidden && now());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  setInterval(() => !open && now(), POLL);
  connect();
  now();
  return now;
}
