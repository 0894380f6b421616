// The rater's page. An answer leaves the screen at once for the next pair, which is held already; it is sent
// behind the rater's back, in order, again and again until it has arrived.

import "./annotate_leave.js";
import { Outbox } from "./annotate_outbox.js";
import { Pairs } from "./annotate_pairs.js";
import * as screen from "./annotate_screen.js";
import { Refused, explain, get, post } from "./annotate_service.js";
import { askReason } from "./annotate_skipping.js";
import { Stopwatch } from "./annotate_stopwatch.js";

const rating = document.getElementById("rating");
const { study, rater, texts } = rating.dataset;
const choices = [...document.querySelectorAll("[data-choice]")];
const tools = Object.fromEntries(
  ["undo", "skip", "flag", "pause", "help"].map((id) => [id, document.getElementById(id)]),
);
const commenting = document.getElementById("commenting");
const comment = document.getElementById("comment");

const KEYS = {
  1: "left", ArrowLeft: "left",
  2: "tie", ArrowDown: "tie",
  3: "right", ArrowRight: "right",
};
const SAID = { left: "Left is better", tie: "Tie", right: "Right is better" };
const FIRST_WAIT = 500; // milliseconds until a lost network is tried again; doubled each time
const LONGEST_WAIT = 30_000;
const REMEMBERED = 10; // more than can be answered without the network

const outbox = new Outbox(rater);
const pairs = new Pairs(study, texts);
const watch = new Stopwatch();
const awaited = new Set(); // assignments answered here of which nothing has come back yet
const answered = []; // the last pairs answered here, to show one again that was not sent yet
let displayed = null; // id of the pair on the screen
let taking = null; // the assignment whose answer is being taken back
let working = false; // an answer is being taken back
let ended = false; // the session or the study has ended
let paused = false;
let wait = FIRST_WAIT;
let retry = null;

function refresh() {
  const done = pairs.done + outbox.size;
  const open = displayed !== null && !working && !ended && !paused;
  rating.setAttribute("aria-busy", String(working || (displayed === null && !pairs.finished)));
  rating.dataset.held = pairs.size;
  for (const button of [...choices, tools.skip, tools.flag]) button.disabled = !open;
  tools.undo.disabled = working || ended || paused || (done === 0 && !pairs.finished);
  tools.pause.disabled = displayed === null && !paused;
  if (pairs.total > 0 && !pairs.finished) screen.showProgress(pairs.done, pairs.total); // what has arrived
}

// Bring the screen up to the pairs held.
function settle(news) {
  if (pairs.shown !== null && pairs.shown.id === displayed) return refresh();
  displayed = pairs.shown?.id ?? null;
  comment.value = "";
  commenting.open = false;
  tools.flag.setAttribute("aria-pressed", "false");
  watch.restart();
  if (paused) watch.stop();
  refresh();
  if (pairs.finished) screen.showFinished();
  else if (displayed === null) screen.showNothing();
  else {
    screen.showPair(pairs.shown);
    screen.say(`${news} Pair ${pairs.done + outbox.size + 1} of ${pairs.total}.`.trim());
  }
}

// Requests go one after another: sending, reading ahead, taking back.
let line = Promise.resolve();

function inLine(work) {
  line = line.then(async () => {
    clearTimeout(retry);
    try {
      await work();
      wait = FIRST_WAIT;
      screen.showWaiting(null);
    } catch (problem) {
      fail(problem);
    }
    settle("");
  });
}

function fail(problem) {
  ended ||= problem.code === "study_closed" || problem.status === 401;
  const lost = !ended && (!(problem instanceof Refused) || problem.passes);
  screen.showWaiting(lost ? { count: outbox.size, pairs: pairs.shown !== null } : null);
  if (ended) screen.say("");
  if (!lost) return screen.showError(explain(problem));
  retry = setTimeout(sync, wait);
  wait = Math.min(2 * wait, LONGEST_WAIT);
}

let syncing = false; // waits in the line already

function sync() {
  if (syncing || ended) return;
  syncing = true;
  inLine(async () => {
    syncing = false;
    let refusal = null;
    await outbox.send(arrived, (problem, id) => {
      awaited.delete(id);
      refusal = problem;
    });
    if (pairs.shown === null || refusal !== null || sentElsewhere()) await look();
    settle("");
    while (outbox.size === 0 && await pairs.readAhead()) settle("");
    if (outbox.size > 0) sync(); // answered meanwhile
    if (refusal === null) return;
    tabs.postMessage(explain(refusal)); // it may be another tab's answer that this one has sent
    throw refusal;
  });
}

const tabs = new BroadcastChannel(`rating-refusals:${rater}`);
tabs.addEventListener("message", ({ data }) => {
  screen.showError(data);
  if (!ended) inLine(look);
});

// An answer has arrived; the tutorial says something to it.
function arrived({ feedback }, id) {
  awaited.delete(id);
  pairs.done += 1;
  refresh();
  if (feedback?.agreed) screen.say("Practice: your answer to the pair before is the expected one.");
  else if (feedback) screen.say(`Practice: to the pair before, “${SAID[feedback.better]}” was expected.`);
}

// Whether another tab has sent what was answered here, so that the count here stands still.
function sentElsewhere() {
  const gone = [...awaited].filter((id) => !outbox.holds(id));
  for (const id of gone) awaited.delete(id);
  return gone.length > 0;
}

// Ask what is open: another tab or device may have answered what this one holds.
function look() {
  return pairs.refresh(() => outbox.size === 0);
}

function answer(path, body, news) {
  const pair = pairs.leave();
  answered.push(pair);
  answered.splice(0, answered.length - REMEMBERED);
  outbox.add(pair.id, path, body);
  awaited.add(pair.id);
  displayed = null;
  screen.showError("");
  settle(news);
  sync();
}

function flagged() {
  return tools.flag.getAttribute("aria-pressed") === "true" ? { harmful: true } : {};
}

function vote(choice) {
  const said = comment.value === "" ? {} : { comment: comment.value };
  answer("", { choice, ...said, ...flagged(), seconds: watch.seconds }, `Voted: ${SAID[choice]}.`);
}

function skip(reason) {
  answer("/skip", { reason, ...flagged() }, "Skipped.");
}

function undo() {
  screen.showError("");
  const entry = outbox.takeBack(({ id }) => answered.some((pair) => pair.id === id));
  if (entry !== null) {
    awaited.delete(entry.id);
    pairs.putBack(answered.find(({ id }) => id === entry.id));
    settle("Taken back.");
    return;
  }
  working = true;
  refresh();
  inLine(async () => {
    try {
      await outbox.send(arrived, (problem) => { throw problem; });
      await takeBack();
    } catch (problem) {
      screen.showError(explain(problem));
      throw problem;
    } finally {
      working = false;
    }
    settle("Taken back.");
  });
}

async function takeBack() {
  taking ??= (await get(`/studies/${study}/assignments:last`))?.id ?? null;
  if (taking === null) return;
  try {
    await pairs.reopen(await post(`/assignments/${taking}/undo`));
  } catch (problem) {
    if (problem.code !== "not_voted") throw problem;
    await look(); // it was taken back already, so it is the first open pair
  }
  taking = null;
}

function flag() {
  const pressed = tools.flag.getAttribute("aria-pressed") !== "true";
  tools.flag.setAttribute("aria-pressed", String(pressed));
  screen.say(pressed ? "Flagged as harmful; the flag goes with your answer." : "Flag removed.");
}

function rest() {
  paused = !paused;
  if (paused) watch.stop();
  else watch.start();
  screen.pause(paused);
  refresh();
  screen.say(paused ? "Paused." : "");
}

function startComment() {
  commenting.open = true;
  comment.focus();
}

const COMMANDS = new Map([
  ["u", [tools.undo, undo]],
  ["s", [tools.skip, () => askReason(skip)]],
  ["f", [tools.flag, flag]],
  ["p", [tools.pause, rest]],
  ["?", [tools.help, () => document.getElementById("helping").showModal()]],
  ["c", [choices[0], startComment]],
  ["e", [choices[0], screen.foldEarlier]],
  ...Object.entries(KEYS).map(([key, choice]) => [key, [choices[0], () => vote(choice)]]),
]);
for (const [name, button] of Object.entries(tools)) {
  const [, work] = [...COMMANDS.values()].find(([one]) => one === button) ?? [];
  if (work === undefined) throw new Error(`no command for ${name}`);
  button.addEventListener("click", work);
}
document.getElementById("go-on").addEventListener("click", rest);
for (const button of choices) button.addEventListener("click", () => vote(button.dataset.choice));

// Arrows scroll a text that has the focus and does not fit; everywhere else they vote.
function scrolls(target, key) {
  return key.startsWith("Arrow") && target.matches?.(".text") && target.scrollHeight > target.clientHeight;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target === comment) {
    if (event.key === "Escape") comment.blur();
    return;
  }
  if (document.querySelector("dialog[open]") || scrolls(event.target, event.key)) return;
  const command = COMMANDS.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (command === undefined) return;
  event.preventDefault();
  const [button, work] = command;
  if (!event.repeat && !button.disabled) work();
});

window.addEventListener("online", sync);
document.addEventListener("visibilitychange", () => {
  if (document.hidden || paused) watch.stop();
  else watch.start();
});

history.replaceState(null, "", "/annotate"); // the personal link leaves the address bar
sync();
