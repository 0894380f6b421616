// What stands on the rater's screen. Texts of a study are shown as text, or as the markup that the service made of
// their Markdown and cleaned.

const ROLES = { user: "Person", assistant: "Assistant", system: "Instructions to the assistant" };
const UNFOLDED = "rating-earlier-turns"; // options of this browser
const TOGETHER = "rating-scroll-together";
const $ = (id) => document.getElementById(id);
const panes = [$("left"), $("right")];
const together = $("together");

function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

function fill(target, text, html) {
  target.classList.toggle("rendered", html !== undefined);
  if (html === undefined) target.textContent = text;
  else target.innerHTML = html;
}

function turn({ role, content }, html) {
  const said = element("div", "said");
  said.dir = "auto";
  fill(said, content, html);
  return element("div", "turn", element("span", "role", ROLES[role] ?? role), said);
}

// The last human turn and what follows it are open; what was said before is folded.
function conversation(turns, html) {
  const last = Math.max(turns.findLastIndex(({ role }) => role === "user"), 0);
  const all = turns.map((one, at) => turn(one, html?.[at]));
  const [earlier, open] = [all.slice(0, last), all.slice(last)];
  if (earlier.length === 0) return open;
  const count = earlier.length === 1 ? "1 earlier turn" : `${earlier.length} earlier turns`;
  const summary = element("summary", "", `${count} `, element("kbd", "", "e"));
  const fold = element("details", "earlier", summary, ...earlier);
  fold.open = localStorage.getItem(UNFOLDED) === "yes"; // as the rater left the pair before
  fold.addEventListener("toggle", () => localStorage.setItem(UNFOLDED, fold.open ? "yes" : "no"));
  return [fold, ...open];
}

export function foldEarlier() {
  const earlier = document.querySelector(".earlier");
  if (earlier !== null) earlier.open = !earlier.open;
}

function write(id, text) {
  const target = $(id);
  if (target.textContent !== text) target.textContent = text;
}

function reveal(id, visible) {
  $(id).hidden = !visible;
}

let seen = false;

export function showPair(pair) {
  reveal("finished", false);
  reveal("pair", true);
  $("prompt").replaceChildren(...conversation(pair.prompt, pair.html?.prompt));
  fill($("left"), pair.left, pair.html?.left);
  fill($("right"), pair.right, pair.html?.right);
  write("criteria", pair.criteria);
  for (const pane of [$("prompt"), ...panes]) pane.scrollTop = 0;
  if (seen) $("pair").scrollIntoView(); // on a phone what stands above is read once
  seen = true;
}

export function showNothing() {
  reveal("pair", false);
  reveal("finished", false);
}

export function showFinished() {
  reveal("pair", false);
  reveal("finished", true);
  write("finished", "All your pairs are rated. Thank you! You can close this page.");
  write("count", "All pairs rated");
  $("progress").value = $("progress").max;
  say("All your pairs are rated.");
}

export function showProgress(done, total) {
  write("count", `${done} of ${total} rated`);
  $("progress").max = total;
  $("progress").value = done;
}

/** What a screen reader says next, and what stands below the choices. */
export const say = (news) => write("status", news);

export function showError(text) {
  write("error", text);
  reveal("error", text !== "");
}

/** `lost`: null while the service answers, else how many answers wait, and whether pairs are held to go on with. */
export function showWaiting(lost) {
  reveal("waiting", lost !== null);
  if (lost === null) return write("waiting", "");
  const votes = lost.count === 1 ? "1 vote waits" : `${lost.count} votes wait`;
  const what = lost.count === 0 ? "The service does not answer." : `${votes} for the network, kept in this browser.`;
  write("waiting", `${what} ${lost.pairs ? "You can go on." : "This page goes on by itself when it is back."}`);
}

export function pause(paused) {
  $("rating").classList.toggle("resting", paused);
  reveal("paused", paused);
  if (paused) $("go-on").focus();
  else document.activeElement?.blur();
}

// Answers of different length scroll in proportion, so that both ends are seen together.
function follow(leader, follower) {
  const room = leader.scrollHeight - leader.clientHeight;
  if (!together.checked || room <= 0) return;
  const goal = Math.round((leader.scrollTop / room) * (follower.scrollHeight - follower.clientHeight));
  if (Math.abs(follower.scrollTop - goal) > 1) follower.scrollTop = goal;
}

let leading = null; // the pane that the rater moves; the other's own scroll events are echoes
for (const [pane, other] of [panes, [...panes].reverse()]) {
  for (const hand of ["wheel", "pointerdown", "touchstart", "keydown", "focus"]) {
    pane.addEventListener(hand, () => { leading = pane; }, { passive: true });
  }
  pane.addEventListener("scroll", () => {
    if (leading === null || leading === pane) follow(pane, other);
  }, { passive: true });
}
together.checked = localStorage.getItem(TOGETHER) !== "no";
together.addEventListener("change", () => {
  localStorage.setItem(TOGETHER, together.checked ? "yes" : "no");
});
