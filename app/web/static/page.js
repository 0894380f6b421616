// What every page needs: requests to the API, elements without markup from data, and polite polling.

/** A problem+json answer, as an exception. */
export class Problem extends Error {
  constructor(status, body) {
    const places = (body.errors || []).map((e) => `${e.pointer || (e.line ? `line ${e.line}` : "")}: ${e.detail}`);
    super([body.detail || body.title || `HTTP ${status}`, ...places].join("\n"));
    this.status = status;
  }
}

/** JSON of an API request; a lost session leads to the login page. */
export async function api(path, options = {}) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    throw new Problem(401, { detail: "The session has ended." });
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = { detail: text.slice(0, 300) };
  }
  if (!response.ok) throw new Problem(response.status, body || {});
  return body;
}

/** POST of a JSON body, with an idempotency key so that a double click does nothing twice. */
export function post(path, body) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  if (body !== undefined) headers["Idempotency-Key"] = key();
  return api(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

export const $ = (id) => document.getElementById(id);

/** An element; texts are texts, never markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function status(value) {
  return element("span", { class: `status ${value}` }, value);
}

export function time(value) {
  return value ? new Date(value).toLocaleString() : "";
}

const COARSE = ["reward", "reward_raw", "bleu", "bleu_pro_char", "length", "perplexity"];

/** Decimals of a figure: the coarse ones are percents and the like, the others shares and nats. */
export function decimals(figure) {
  return COARSE.includes(figure) ? 2 : 4;
}

export function number(value, digits = 2) {
  if (value === null || value === undefined) return "-";
  return typeof value === "number" ? value.toLocaleString(undefined, { maximumFractionDigits: digits }) : String(value);
}

export function showError(place, error) {
  place.hidden = !error;
  place.textContent = error ? error.message || String(error) : "";
}

/** Does `work`; what goes wrong is said in its place. */
export async function attempt(errorPlace, work) {
  showError(errorPlace, null);
  try {
    await work();
  } catch (error) {
    showError(errorPlace, error);
  }
}

/** Calls `work` again and again, with `seconds` between, while it returns true and the page is visible. */
export async function poll(work, seconds) {
  for (;;) {
    let goOn = true;
    try {
      goOn = await work();
      $("notice").textContent = "";
    } catch (error) {
      if (error.status && error.status < 500) {
        $("notice").textContent = error.message;
        return;
      }
      $("notice").textContent = "The service does not answer; trying again.";
    }
    if (!goOn) return;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

/** Puts rows in the place of older ones. Equal ones stay as they are, and a focused link keeps the focus. */
export function replaceRows(body, rows) {
  if (body.innerHTML === rows.map((row) => row.outerHTML).join("")) return;
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

/** Rows of a paged list, with a button for what is older. */
export function pager(path, body, button, row, emptyText) {
  let last = null;
  async function load(reset) {
    if (reset) last = null;
    const url = new URL(path(), location.origin);
    if (last !== null) url.searchParams.set("after", last);
    const list = await api(url.pathname + url.search);
    const rows = list.data.map(row);
    if (reset) replaceRows(body, rows.length ? rows : [empty(body, emptyText)]);
    else body.append(...rows);
    if (list.data.length) last = list.data.at(-1).id ?? list.data.at(-1).line;
    button.hidden = !list.has_more;
    return list;
  }
  button.addEventListener("click", () => load(false));
  return { reload: () => load(true), get atFirstPage() { return body.childElementCount <= 20; } };
}

function empty(body, text) {
  if (body.tagName !== "TBODY") return element("p", { class: "empty" }, text);
  const columns = body.parentElement.querySelectorAll("th").length;
  return element("tr", {}, element("td", { class: "empty", colspan: columns }, text));
}

/** A conversation or a text, as a definition list's entry. */
export function turns(messages) {
  return messages.map((message) => `${message.role}: ${message.content}`).join("\n\n");
}

export function pair(entries) {
  return element("dl", { class: "pair" }, ...entries.flatMap(([name, text]) => [
    element("dt", {}, name), element("dd", { dir: "auto" }, text),
  ]));
}
