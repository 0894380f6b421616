// Jobs, experiments, datasets and studies: lists that stay fresh, and forms that add jobs and datasets.
import { $, Problem, api, attempt, element, number, pager, poll, post, replaceRows, showError, status, time } from "./page.js";

const jobs = pager(() => "/jobs", $("job-rows"), $("more-jobs"), (job) => element("tr", {},
  element("td", { class: "text" }, element("a", { href: `/jobs/${job.id}/dashboard` }, job.name)),
  element("td", {}, job.kind),
  element("td", {}, status(job.status)),
  element("td", {}, job.stage || ""),
  element("td", {}, time(job.created_at)),
), "No job yet: upload a dataset, then send a job.");

const datasets = pager(() => "/datasets", $("dataset-rows"), $("more-datasets"), (dataset) => element("tr", {},
  element("td", { class: "text" }, element("a", { href: `/datasets/${dataset.id}/view` }, dataset.name)),
  element("td", {}, status(dataset.status)),
  element("td", {}, dataset.format || ""),
  element("td", { class: "number" }, number(dataset.samples)),
  element("td", { class: "number" }, number(dataset.rejected)),
  element("td", { class: "id" }, element("code", {}, dataset.id)),
), "No dataset yet.");

const experiments = pager(() => "/experiments?limit=5", $("experiment-rows"), $("more-experiments"), (experiment) => element("tr", {},
  element("td", { class: "text" }, element("a", { href: `/experiments/${experiment.id}/view` }, experiment.name)),
  element("td", {}, status(experiment.status)),
  element("td", { class: "number" }, number(experiment.arms.length)),
  element("td", { class: "number" }, number(experiment.seeds.length)),
  element("td", {}, time(experiment.created_at)),
), "No experiment yet: POST /experiments, or deft experiments create.");

async function loadStudies() {
  const rows = (await api("/studies")).data.map((study) => element("tr", {},
    element("td", { class: "text" }, element("a", { href: `/studies/${study.id}/view` }, study.name)),
    element("td", {}, time(study.created_at)),
  ));
  const none = element("tr", {}, element("td", { class: "empty", colspan: 2 }, "No study yet: it compares two evaluated jobs."));
  replaceRows($("study-rows"), rows.length ? rows : [none]);
}

function readSpec() {
  try {
    return JSON.parse($("spec").value);
  } catch (error) {
    throw new Problem(0, { detail: `The spec is not JSON: ${error.message}` });
  }
}

$("job-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("job-error"), async () => {
    const job = await post("/jobs", readSpec());
    location.assign(`/jobs/${job.id}/dashboard`);
  });
});

$("dry-run").addEventListener("click", () => attempt($("job-error"), async () => {
  const estimate = await post("/jobs?dry_run=true", readSpec());
  $("estimate").hidden = false;
  $("estimate").textContent = JSON.stringify(estimate, null, 2);
}));

$("upload-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const file = $("file").files[0];
  const form = new FormData();
  form.append("name", $("upload-name").value || file.name);
  form.append("file", file);
  const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
  const bar = $("upload-progress");
  bar.hidden = false;
  showError($("upload-error"), null);
  request.upload.addEventListener("progress", (e) => { bar.value = e.total ? e.loaded / e.total : 0; });
  request.addEventListener("loadend", () => {
    bar.hidden = true;
    if (request.status === 201) {
      event.target.reset();
      datasets.reload();
      return;
    }
    let body = { detail: "The upload was cut off; send it again." };
    try { body = JSON.parse(request.responseText); } catch { /* the text above says it */ }
    showError($("upload-error"), new Problem(request.status, body));
  });
  request.open("POST", "/datasets");
  request.send(form);
});

poll(async () => {
  await Promise.all([
    jobs.atFirstPage ? jobs.reload() : null,
    experiments.atFirstPage ? experiments.reload() : null,
    datasets.atFirstPage ? datasets.reload() : null,
    loadStudies(),
  ]);
  return true;
}, 3);
