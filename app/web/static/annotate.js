// The rater's page: fetch a pair, show it as text, send the choice, fetch the next.

const rating = document.getElementById("rating");
const study = rating.dataset.study;
const memory = `voted:${study}`; // this tab's votes, for undo; survives a reload
const choices = [...document.querySelectorAll("[data-choice]")];
const undoButton = document.getElementById("undo");
const comment = document.getElementById("comment");

const KEYS = {
  1: "left", ArrowLeft: "left",
  2: "tie", ArrowDown: "tie",
  3: "right", ArrowRight: "right",
};
const SAID = { left: "Left is better", tie: "Tie", right: "Right is better" };
const ROLES = { user: "Person", assistant: "Assistant", system: "Instructions to the assistant" };

let shown = null; // the pair on the screen
let busy = true;

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.status = status;
    this.code = problem.code;
  }
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function turn({ role, content }) {
  const block = element("div", "turn", "");
  const said = element("div", "said", content);
  said.dir = "auto";
  block.append(element("span", "role", ROLES[role] ?? role), said);
  return block;
}

function write(id, text) {
  const target = document.getElementById(id);
  target.textContent = text;
  target.scrollTop = 0;
}

function show(pair, news) {
  shown = pair;
  document.getElementById("pair").hidden = pair === null;
  document.getElementById("finished").hidden = pair !== null;
  if (pair === null) {
    write("finished", "All your pairs are rated. Thank you! You can close this page.");
    write("count", "All pairs rated");
    const bar = document.getElementById("progress");
    bar.value = bar.max;
    write("status", news);
    return;
  }
  const prompt = document.getElementById("prompt");
  prompt.replaceChildren(...pair.prompt.map(turn));
  prompt.scrollTop = prompt.scrollHeight; // the last turn is what the answers answer
  write("left", pair.left);
  write("right", pair.right);
  write("criteria", pair.criteria);
  write("count", `${pair.done} of ${pair.total} rated`);
  const bar = document.getElementById("progress");
  bar.max = pair.total;
  bar.value = pair.done;
  window.scrollTo(0, 0);
  write("status", `${news} Pair ${pair.done + 1} of ${pair.total}.`.trim());
}

function explain(problem) {
  if (!(problem instanceof Refused)) return "The service does not answer. Nothing is lost: try again in a moment.";
  if (problem.status === 401) return "Your session has ended. Open your personal link again; your votes are kept.";
  if (problem.code === "study_closed") return "This study is closed; no more votes are taken. Thank you!";
  return problem.message;
}

// One request after another: while one is under way, keys and buttons do nothing.
async function alone(work) {
  busy = true;
  refresh();
  try {
    await work();
    document.getElementById("error").hidden = true;
  } catch (problem) {
    write("error", explain(problem));
    document.getElementById("error").hidden = false;
  } finally {
    busy = false;
    refresh();
  }
}

function refresh() {
  rating.setAttribute("aria-busy", String(busy));
  for (const button of choices) button.disabled = busy || shown === null;
  undoButton.disabled = busy || voted().length === 0;
}

function voted() {
  return JSON.parse(sessionStorage.getItem(memory) ?? "[]");
}

function remember(ids) {
  sessionStorage.setItem(memory, JSON.stringify(ids));
}

async function next(news) {
  show(await post(`/studies/${study}/assignments:next`), news);
}

async function vote(choice) {
  const { id } = shown;
  if (!voted().includes(id)) { // else the vote is kept, and only the next pair did not come
    const body = comment.value === "" ? { choice } : { choice, comment: comment.value };
    try {
      await post(`/assignments/${id}`, body);
    } catch (problem) {
      if (problem.code !== "vote_stands") throw problem;
      remember([...voted(), id]); // another tab voted on it
      await next("");
      throw problem;
    }
    remember([...voted(), id]);
    comment.value = "";
  }
  await next(`Voted: ${SAID[choice]}.`);
}

async function undo() {
  const ids = voted();
  const last = ids.pop();
  try {
    show(await post(`/assignments/${last}/undo`), "Vote taken back.");
  } catch (problem) {
    if (problem.code === "not_voted") remember(ids); // another tab took it back
    throw problem;
  }
  remember(ids);
}

// Arrows scroll a text that has the focus and does not fit; everywhere else they vote.
function scrolls(target, key) {
  return key.startsWith("Arrow") && target.matches?.(".text") && target.scrollHeight > target.clientHeight;
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target === comment) return;
  if (scrolls(event.target, event.key)) return;
  if (event.key === "u" && !undoButton.disabled) {
    event.preventDefault();
    alone(undo);
  } else if (event.key in KEYS) {
    event.preventDefault();
    if (!busy && shown !== null) alone(() => vote(KEYS[event.key]));
  }
});
for (const button of choices) button.addEventListener("click", () => alone(() => vote(button.dataset.choice)));
undoButton.addEventListener("click", () => alone(undo));

history.replaceState(null, "", "/annotate"); // the personal link leaves the address bar
alone(() => next(""));
