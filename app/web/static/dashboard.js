// One job: stages, curves that move while it trains, grading, Q_diff, generations and results.
import { chart, drawCurves, drawHistogram } from "./charts.js";
import { $, api, decimals, element, number, pair, poll, post, replaceRows, showError, time, turns } from "./page.js";

const id = $("job").dataset.id;
const CURVES = [
  ["Loss", ["loss"]],
  ["Rewards", ["rewards/chosen", "rewards/rejected"]],
  ["Margin", ["rewards/margins"]],
  ["Accuracy", ["rewards/accuracies"]],
  ["Log-probabilities", ["logps/chosen", "logps/rejected"]],
  ["SFT term", ["nll_loss"]],
  ["RRHF's rank loss", ["rrhf/rank_loss"]],
  ["PRO's rounds", ["pro/rank_1_loss", "pro/rank_2_loss", "pro/rank_3_loss", "pro/rank_4_loss"]],
  ["Distribution reward", ["deft/r_dis"]],
  ["Its share of the gradient", ["deft/grad_share"]],
  ["Learning rate", ["learning_rate"]],
  ["Gradient norm", ["grad_norm"]],
  ["Tokens per second", ["tokens_per_second"]],
];
const GENERATIONS = { open: 2, first: 6, more: 12 };
const GENERATION_BYTES = 200_000;
const places = new Map();
const loaded = new Set();

// -- the job itself

const MOVES = {
  queued: ["pause", "cancel"], running: ["pause", "cancel"], pausing: ["cancel"], paused: ["resume", "cancel"],
};

function showMoves(job) {
  const shown = (MOVES[job.status] || []).join();
  if ($("moves").dataset.shown === shown) return;
  $("moves").dataset.shown = shown;
  $("moves").replaceChildren(...(MOVES[job.status] || []).map((move) => element("button", {
    class: "quiet",
    onclick: async () => {
      try {
        show(await post(`/jobs/${id}/${move}`));
      } catch (error) {
        $("notice").textContent = error.message;
      }
    },
  }, move)));
}

function showStages(job) {
  $("stages").replaceChildren(...job.stages.map((stage) => {
    const current = job.progress && job.progress.stage === stage.name && stage.status === "running";
    const bar = element("progress", { "aria-label": stage.name, max: 1 });
    let note = stage.reused ? "reused" : "";
    if (stage.status === "succeeded") bar.value = 1;
    else if (current && job.progress.total) {
      bar.value = job.progress.step / job.progress.total;
      note = `${number(job.progress.step)} of ${number(job.progress.total)}`;
      if (job.progress.eta_s) note += `, ${number(job.progress.eta_s, 0)} s left`;
    } else if (stage.status !== "running") bar.value = 0;
    return element("li", {}, element("span", {}, stage.name),
      element("span", { class: `status ${stage.status}` }, stage.status),
      element("span", { class: "hint" }, bar, note));
  }));
}

function show(job) {
  $("status").className = `status ${job.status}`;
  $("status").textContent = job.status;
  $("kind").textContent = job.kind;
  $("times").textContent = [time(job.created_at), job.finished_at ? `to ${time(job.finished_at)}` : ""].join(" ");
  const error = job.error;
  showError($("error"), error ? { message: [error.message, error.hint].filter(Boolean).join("\n") } : null);
  $("spec").textContent = JSON.stringify(job.spec, null, 2);
  showMoves(job);
  showStages(job);
  showResults(job.result || {});
}

function showResults(result) {
  const warnings = [...new Set([...(result.warnings || []), ...((result.train || {}).warnings || [])])];
  $("warnings").hidden = !warnings.length;
  $("warnings").replaceChildren(...warnings.map((text) => element("li", {}, text)));
  const evaluation = result.evaluate || result.reward_quality;
  if (!evaluation) return;
  const figures = Object.keys(evaluation.total);
  const rows = [...Object.entries(evaluation.subsets), ["Total", evaluation.total]];
  $("results").hidden = false;
  $("results-table").replaceChildren(
    element("thead", {}, element("tr", {}, element("th", {}, "Subset"), element("th", { class: "number" }, "n"),
      ...figures.map((name) => element("th", { class: "number" }, name)))),
    element("tbody", {}, ...rows.map(([name, row]) => element("tr", {}, element("td", { class: "text" }, name),
      element("td", { class: "number" }, number(Math.max(...figures.map((figure) => row[figure].n)))),
      ...figures.map((figure) => element("td", { class: "number", title: row[figure].reason || null }, number(row[figure].value, decimals(figure))))))),
  );
  $("signatures").textContent = figures.map((name) => `${name}: ${evaluation.total[name].signature}`).join("; ");
}

// -- curves

async function showCurves() {
  const names = CURVES.flatMap(([, wanted]) => wanted).join();
  const list = await api(`/jobs/${id}/metrics?max_points=600&name=${encodeURIComponent(names)}`);
  const series = new Map(list.data.filter((each) => each.points.length).map((each) => [each.name, each]));
  if (!series.size) return;
  $("training").hidden = false;
  for (const [title, wanted] of CURVES) {
    const found = wanted.map((name) => series.get(name)).filter(Boolean);
    if (!found.length) continue;
    if (!places.has(title)) places.set(title, chart($("charts"), title));
    drawCurves(places.get(title), found, title === "Learning rate" ? { tickformat: ".1e" } : {});
  }
}

// -- what the stages made

async function text(name, bytes) {
  const headers = bytes ? { Range: `bytes=0-${bytes - 1}` } : {};
  const response = await fetch(`/jobs/${id}/artifacts/${name}`, { headers });
  if (!response.ok) throw new Error(`${name}: HTTP ${response.status}`);
  return [await response.text(), response.status === 206];
}

async function showGrading() {
  const [body] = await text("grading.json");
  $("grading").hidden = false;
  for (const [subset, histogram] of Object.entries(JSON.parse(body))) {
    drawHistogram(chart($("histograms"), `${subset} (${number(histogram.n)})`), histogram);
  }
}

async function showTokens() {
  const tokens = JSON.parse((await text("qdiff_tokens.json"))[0]);
  $("tokens").hidden = false;
  for (const [place, rows] of [["positive", tokens.top_positive], ["negative", tokens.top_negative]]) {
    const largest = Math.max(...rows.map((row) => Math.abs(row.q_diff)), Number.MIN_VALUE);
    $(place).replaceChildren(...rows.slice(0, 25).map((row) => {
      const bar = element("i");
      bar.style.width = `${(100 * Math.abs(row.q_diff)) / largest}%`;
      return element("tr", {}, element("td", { class: "token" }, JSON.stringify(row.token ?? row.text).slice(1, -1)),
        element("td", { class: "bar" }, bar), element("td", { class: "number" }, row.q_diff.toExponential(2)));
    }));
  }
}

/** A sample's answer, folded unless it is to be open; what it is about stands in the line that unfolds it. */
function generation(row, open) {
  const [about] = row.prompt.at(-1).content.trim().split("\n");
  return element("details", { class: "generation", open: open ? "" : null },
    element("summary", {}, `${row.subset}: ${about}`),
    pair([[row.subset, turns(row.prompt)], ["answer", row.response], ["reference", row.reference]]));
}

async function showGenerations() {
  const [body, cut] = await text("generations.jsonl", GENERATION_BYTES);
  const lines = body.split("\n").filter(Boolean);
  if (cut && !body.endsWith("\n")) lines.pop();
  const button = $("more-generations");
  const add = (count) => {
    const open = GENERATIONS.open - $("generation-list").childElementCount;
    const added = lines.splice(0, count).map((line, position) => generation(JSON.parse(line), position < open));
    $("generation-list").append(...added);
    button.hidden = !lines.length;
    return added;
  };
  button.addEventListener("click", () => add(GENERATIONS.more)[0].firstElementChild.focus());
  add(GENERATIONS.first);
  $("generations").hidden = false;
}

const SHOWN = { "grading.json": showGrading, "qdiff_tokens.json": showTokens, "generations.jsonl": showGenerations };

function link(name) {
  const href = `/jobs/${id}/artifacts/${encodeURI(name)}`;
  return name === "report.html" ? { href } : { href, download: name.split("/").at(-1) };
}

async function showArtifacts() {
  const list = (await api(`/jobs/${id}/artifacts`)).data;
  replaceRows($("artifact-list"), list.map((artifact) => element("li", {},
    element("a", link(artifact.name), artifact.name),
    ` ${number(artifact.size)} bytes`)));
  for (const { name } of list) {
    if (!SHOWN[name] || loaded.has(name)) continue;
    loaded.add(name);
    await SHOWN[name]();
  }
}

// -- the log, read when it is opened

$("log").addEventListener("toggle", async () => {
  if (!$("log").open) return;
  const logs = await api(`/jobs/${id}/logs`);
  $("log-lines").textContent = logs.data.map((line) => `${time(line.time)}  ${line.stage || ""}  ${line.message}`).join("\n") || "Nothing yet.";
});

poll(async () => {
  const job = await api(`/jobs/${id}`);
  show(job);
  await showCurves();
  await showArtifacts();
  return !["succeeded", "failed", "cancelled"].includes(job.status);
}, 1.5);
