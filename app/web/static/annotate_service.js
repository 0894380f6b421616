// Requests of the rater's page, and what its refusals mean to a rater.

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.status = status;
    this.code = problem.code;
  }

  /** Whether the same request may succeed later: the service is down or overloaded, or the session ended. */
  get passes() {
    return this.status >= 500 || [401, 408, 429].includes(this.status);
  }
}

/** JSON of an answer, null for 204. Rejects with Refused, or as fetch does without a network. */
export async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout?.(30_000),
  });
  if (response.status === 204) return null;
  let answer;
  try {
    answer = await response.json();
  } catch (problem) { // a proxy's page instead of ours
    if (response.ok) throw problem;
    answer = { detail: "" };
  }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const post = (path, body) => ask("POST", path, body);
export const get = (path) => ask("GET", path);

export function explain(problem) {
  if (!(problem instanceof Refused) || problem.status >= 500) {
    return "The service does not answer. Nothing is lost; try again in a moment.";
  }
  if (problem.status === 401) return "Your session has ended. Open your personal link again; your votes are kept.";
  if (problem.code === "study_closed") return "This study is closed; no more votes are taken. Thank you!";
  return problem.message;
}
