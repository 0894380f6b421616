// One experiment: arms and their seeds, tables that fill while it runs, curves over one another, answers side by side.
import { chart, drawCurves } from "./charts.js";
import { $, api, decimals, element, number, poll, post, replaceRows, showError, status, time, turns } from "./page.js";

const id = $("experiment").dataset.id;
const SHOWN = [["bleu", "BLEU"], ["reward", "Reward"], ["divergence", "Divergence"], ["perplexity", "Perplexity"]];
const FIRST = ["reward", "bleu"];
const CURVES = ["loss", "rewards/margins", "rewards/accuracies", "deft/r_dis", "grad_norm"];
const ALPHA = 0.05;
const PAIRS = 5; // shown at a time
const ENDED = ["succeeded", "failed", "cancelled"];
const MIB = 2 ** 20;
const charts = new Map();
const answers = new Map(); // job -> its generations, read once
let arms = [];
let table = null;

// -- arms

function seed(job) {
  const name = job.seed === null ? "as it is" : `seed ${job.seed}`;
  const stage = ENDED.includes(job.status) || !job.stage ? "" : ` ${job.stage}`;
  return element("a", { href: `/jobs/${job.id}/dashboard` }, `${name} `, status(job.status), stage);
}

function showArms(experiment) {
  arms = experiment.arms;
  $("status").className = `status ${experiment.status}`;
  $("status").textContent = experiment.status;
  $("cancel").hidden = ENDED.includes(experiment.status) || experiment.status === "cancelling";
  $("times").textContent = [time(experiment.created_at), experiment.finished_at ? `to ${time(experiment.finished_at)}` : ""].join(" ");
  const { runs, trained_tokens: tokens, seconds } = experiment.cost;
  $("cost").textContent = `${number(runs)} stage runs, ${number(tokens)} trained tokens, ${number(seconds, 0)} s`;
  $("spec").textContent = JSON.stringify(experiment.spec, null, 2);
  replaceRows($("arm-rows"), arms.map((arm) => element("tr", {},
    element("td", { class: "text" }, arm.name),
    element("td", {}, element("span", { class: "seeds" }, ...arm.jobs.map(seed))),
    element("td", {}, arm.baseline || ""))));
}

$("cancel").addEventListener("click", async () => {
  try {
    showArms(await post(`/experiments/${id}/cancel`));
  } catch (error) {
    showError($("error"), error);
  }
});

// -- tables

function heading(text, attributes = {}) {
  return element("th", { scope: "col", ...attributes }, text);
}

function cell(...content) {
  return element("td", { class: "number" }, ...content);
}

function interval(ends, name) {
  return ends ? ends.map((end) => number(end, decimals(name))).join(" to ") : "-";
}

function shownFigure(figure, name) {
  if (!figure || figure.value === null) return element("td", { class: "number", title: figure?.reason || null }, "-");
  const clear = figure.difference?.p_corrected < ALPHA && figure.difference.p_corrected !== null;
  return element("td", { class: "number", title: `95%: ${interval(figure.interval, name)}, n = ${figure.n}, ${figure.seeds} seeds` },
    figure.value.toFixed(decimals(name)),
    figure.sd === null ? "" : element("span", { class: "spread" }, ` ±${figure.sd.toFixed(decimals(name))}`), clear ? "*" : "");
}

/** The names of all figures, those that a reader asks for first at their head. */
function figureNames() {
  const names = new Set(table.arms.flatMap((arm) => Object.keys(arm.total)));
  return [...new Set([...FIRST.filter((name) => names.has(name)), ...names])];
}

function showTable() {
  const names = figureNames();
  $("results").hidden = !names.length;
  if (!names.length) return;
  const paper = SHOWN.filter(([name]) => names.includes(name));
  const shown = paper.length ? paper : names.map((name) => [name, name]);
  const subsets = [...new Set(table.arms.flatMap((arm) => Object.keys(arm.subsets)))].sort();
  const groups = [...subsets.map((name) => [name, (arm) => arm.subsets[name] || {}]), ["Total", (arm) => arm.total]];
  const missing = table.arms.reduce((sum, arm) => sum + arm.missing, 0);
  $("progress").textContent = missing ? `${missing} jobs are not evaluated.` : "";
  $("results-table").replaceChildren(
    element("thead", {},
      element("tr", {}, heading("Arm", { rowspan: 2 }), heading("% of data", { rowspan: 2 }),
        ...groups.map(([name]) => heading(name, { colspan: shown.length }))),
      element("tr", {}, ...groups.flatMap(() => shown.map(([, text]) => heading(text, { class: "number" }))))),
    element("tbody", {}, ...table.arms.map((arm) => element("tr", {}, element("td", {}, arm.name),
      cell(arm.cost.trained_share === null ? "-" : number(100 * arm.cost.trained_share)),
      ...groups.flatMap(([, figures]) => shown.map(([name]) => shownFigure(figures(arm)[name], name)))))),
  );
  offer($("figure"), names.map((name) => [name, name]));
  showDifferences();
}

function showDifferences() {
  const name = $("figure").value;
  const titles = ["Arm", name, "95% interval", "n", "seeds", "difference", "95% interval", "p corrected",
    "trained tokens", "seconds", "core seconds", "peak MiB"];
  $("difference-table").replaceChildren(
    element("thead", {}, element("tr", {}, ...titles.map((text, i) => heading(text, i ? { class: "number" } : {})))),
    element("tbody", {}, ...table.arms.map((arm) => {
      const figure = arm.total[name];
      const compared = figure?.difference;
      const { trained_tokens: tokens, seconds, cpu_seconds: cores, peak_memory_bytes: peak } = arm.cost;
      const change = compared && compared.value !== null
        ? [`${number(compared.value, decimals(name))} to ${compared.baseline}`, interval(compared.interval, name), number(compared.p_corrected, 4)]
        : [compared?.reason || "", "", ""];
      return element("tr", {}, element("td", {}, arm.name), ...[
        number(figure?.value, decimals(name)), interval(figure?.interval, name), number(figure?.n), number(figure?.seeds), ...change,
        number(tokens, 0), number(seconds, 1), number(cores, 1), number(peak === null ? null : peak / MIB, 0),
      ].map((text) => cell(text)));
    })),
  );
  const signatures = new Set(table.arms.map((arm) => arm.total[name]?.signature).filter(Boolean));
  $("signature").textContent = [...signatures].join("; ");
}

/** Options of a select, kept as chosen. */
function offer(select, options) {
  const shown = JSON.stringify(options);
  if (select.dataset.shown === shown) return;
  const chosen = select.value;
  select.dataset.shown = shown;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

$("figure").addEventListener("change", showDifferences);

async function showResults() {
  table = await api(`/experiments/${id}/results`);
  $("warnings").hidden = !table.warnings.length;
  $("warnings").replaceChildren(...table.warnings.map((text) => element("li", {}, text)));
  showTable();
}

// -- curves

async function showCurves() {
  const wanted = encodeURIComponent(CURVES.join());
  const lists = await Promise.all(arms.map((arm) => api(`/jobs/${arm.jobs[0].id}/metrics?max_points=300&name=${wanted}`)));
  for (const name of CURVES) {
    const series = lists.map((list, i) => ({ name: arms[i].name, look: i, points: list.data.find((each) => each.name === name).points }))
      .filter((each) => each.points.length);
    if (!series.length) continue;
    $("training").hidden = false;
    if (!charts.has(name)) charts.set(name, chart($("charts"), name));
    drawCurves(charts.get(name), series);
  }
}

// -- answers

async function generations(job) {
  if (!answers.has(job)) {
    const response = await fetch(`/jobs/${job}/artifacts/generations.jsonl`);
    if (!response.ok) throw new Error(`generations.jsonl: HTTP ${response.status}`);
    const lines = (await response.text()).split("\n").filter(Boolean);
    answers.set(job, lines.map((line) => JSON.parse(line)));
  }
  return answers.get(job);
}

function side(name, response) {
  return element("div", {}, element("h4", {}, name), element("p", { dir: "auto" }, response));
}

async function showPairs(count) {
  try {
    const chosen = [$("left"), $("right")].map((select) => ({ job: select.value, name: select.selectedOptions[0].text }));
    const [left, right] = await Promise.all(chosen.map(({ job }) => generations(job)));
    const other = new Map(right.map((row) => [row.sample_id, row]));
    const both = left.filter((row) => other.has(row.sample_id));
    $("pairs").replaceChildren(...both.slice(0, count).map((row) => element("div", { class: "pair" },
      element("p", { class: "prompt", dir: "auto" }, turns(row.prompt)),
      element("div", { class: "sides" }, side(chosen[0].name, row.response), side(chosen[1].name, other.get(row.sample_id).response)))));
    $("more-pairs").hidden = both.length <= count;
    showError($("error"), null);
  } catch (error) {
    showError($("error"), error);
  }
}

async function offerAnswers() {
  const done = arms.flatMap((arm) => arm.jobs.filter((job) => job.status === "succeeded")
    .map((job) => [job.id, job.seed === null ? arm.name : `${arm.name}, seed ${job.seed}`, arm.name]));
  if (!done.length) return;
  const first = $("answers").hidden;
  for (const select of [$("left"), $("right")]) offer(select, done.map(([job, text]) => [job, text]));
  if (!first) return;
  $("answers").hidden = false;
  const second = done.findIndex(([, , name]) => name !== done[0][2]);
  if (second > 0) $("right").selectedIndex = second;
  await showPairs(PAIRS);
}

for (const select of [$("left"), $("right")]) select.addEventListener("change", () => showPairs(PAIRS));
$("more-pairs").addEventListener("click", () => showPairs($("pairs").childElementCount + PAIRS));

poll(async () => {
  const experiment = await api(`/experiments/${id}`);
  showArms(experiment);
  await Promise.all([showResults(), showCurves(), offerAnswers()]);
  return !ENDED.includes(experiment.status);
}, 3);
