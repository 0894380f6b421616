// The form that makes a study: its jobs, checks, rules and planned looks, and what it could see.
import { $, Problem, api, attempt, element, number, post } from "./page.js";

async function offerEvaluatedJobs() {
  const done = (await api("/jobs?status=succeeded&limit=100")).data;
  const evaluated = done.filter((job) => job.stages.some((stage) => stage.name === "generate"));
  for (const select of [$("study-a"), $("study-b")]) {
    select.replaceChildren(...evaluated.map((job) => element("option", { value: job.id }, job.name)));
  }
  if (evaluated.length > 1) $("study-b").selectedIndex = 1;
}

/** What is typed in a field as a number; null where nothing is. */
function typed(id, unit = 1) {
  return $(id).value === "" ? null : Number($(id).value) / unit;
}

/** The file's gold pairs; the service checks what a pair is made of. */
async function readGold() {
  const file = $("gold-file").files[0];
  if (!file) return [];
  const lines = (await file.text()).split("\n").map((line, place) => [place + 1, line.trim()]);
  return lines.filter(([, line]) => line).map(([place, line]) => {
    try {
      return JSON.parse(line);
    } catch (error) {
      throw new Problem(0, { detail: `Gold, line ${place} is not JSON: ${error.message}` });
    }
  });
}

async function askedStudy() {
  const rigorous = $("protocol").value === "rigorous";
  return {
    name: $("study-name").value,
    a: $("study-a").value,
    b: $("study-b").value,
    per_subset: typed("per-subset"),
    protocol: $("protocol").value,
    ...(rigorous && {
      raters_per_pair: typed("raters-per-pair"),
      repeats: typed("repeats", 100),
      gold: await readGold(),
      gold_share: typed("gold-share", 100),
      tutorial: typed("tutorial"),
    }),
    exclusion: {
      min_gold_accuracy: typed("min-gold-accuracy", 100),
      min_repeat_consistency: typed("min-repeat-consistency", 100),
      min_seconds: typed("min-seconds"),
      max_left_rate_deviation: typed("max-left-rate-deviation", 100),
    },
    results: $("study-results").value,
    interim_looks: typed("interim-looks"),
    boundary: $("boundary").value,
  };
}

function offerWhatFits() {
  const checks = $("rigorous-only");
  checks.hidden = $("protocol").value !== "rigorous";
  checks.disabled = checks.hidden; // what nobody sees cannot be wrong
}

$("protocol").addEventListener("change", offerWhatFits);
offerWhatFits(); // a browser keeps what was chosen over a reload

$("study-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("study-error"), async () => {
    const study = await post("/studies", await askedStudy());
    location.assign(`/studies/${study.id}/view`);
  });
});

$("plan-study").addEventListener("click", () => attempt($("study-error"), async () => {
  if (!$("study-form").reportValidity()) return;
  const { power, subsets } = await post("/studies?dry_run=true", await askedStudy());
  const pairs = Object.values(subsets).reduce((sum, size) => sum + size, 0);
  const least = power.total.win_rate === null ? "no win rate" : `a win rate of ${number(100 * power.total.win_rate, 1)}% and more`;
  $("study-plan").hidden = false;
  $("study-plan").textContent = `${number(pairs)} pairs show ${least} with 80% power, when ${number(100 * power.ties)}% of the votes are ties. `
    + `A win rate of ${number(100 * power.win_rate)}% needs ${number(power.pairs_needed)} pairs.`;
}));

$("study-form").closest("details").addEventListener("toggle", () => offerEvaluatedJobs());
