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
  const said = problem.detail || `the server answered ${answer.status}`;
  throw Object.assign(new Error(said), { errors: problem.errors });
}

/** Returns the JSON at the address. */
export async function getJson(url) {
  return (await ask(url, { headers: { Accept: "application/json" } })).json();
}

/** Returns the JSON at the address and the version that it says it is, if it does. */
export async function getVersioned(url) {
  const answer = await ask(url, { headers: { Accept: "application/json" } });
  return { version: answer.headers.get("ETag"), body: await answer.json() };
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

/** Uploads a text file; returns what the server has of it. */
export async function upload(file) {
  if (!crypto.subtle) throw new Error("a browser uploads only over HTTPS or from localhost; use `lmtune data add FILE`");
  const content = await file.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const address = `/api/v1/data/${sha256}?${new URLSearchParams({ name: file.name })}`;
  return (await ask(address, { method: "PUT", body: content })).json();
}

/** Sends a body as JSON; returns the answer's. */
export async function sendJson(url, method, body) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return (await ask(url, { method, headers, body: JSON.stringify(body) })).json();
}
