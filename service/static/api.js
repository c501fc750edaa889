// Requests to our own server. A failed one throws an Error whose message a person can read.

/** The server did not answer. */
class Offline extends Error {
  name = "Offline";
}

async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    throw new Offline("the server does not answer", { cause: error });
  }
  if (answer.status === 401 || (answer.redirected && new URL(answer.url).pathname === "/login")) {
    location.assign("/login");
    throw new Offline("signed out");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail || `the server answered ${answer.status}`);
}

/** Returns the JSON at the address. */
export async function getJson(url) {
  return (await ask(url, { headers: { Accept: "application/json" } })).json();
}

/** Returns the page at the address, parsed and not shown. */
export async function getPage(url) {
  const answer = await ask(url, { headers: { Accept: "text/html" } });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** Posts without a body. */
export async function post(url) {
  await ask(url, { method: "POST", headers: { Accept: "application/json" } });
}
