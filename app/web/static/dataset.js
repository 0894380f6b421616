// One dataset: its counts, the ledger of rows not used, and samples by level and subset.
import { $, api, element, number, pager, pair, poll, showError, turns } from "./page.js";

const id = $("dataset").dataset.id;

const ledger = pager(() => `/datasets/${id}/validation`, $("ledger"), $("more-ledger"), (entry) => element("tr", {},
  element("td", { class: "number" }, String(entry.line)),
  element("td", {}, entry.code),
  element("td", { class: "text" }, entry.detail),
), "Every row was used.");

function samplesPath() {
  const query = new URLSearchParams({ limit: "10" });
  if ($("subset").value) query.set("subset", $("subset").value);
  if ($("level").value) query.set("level", $("level").value);
  return `/datasets/${id}/samples?${query}`;
}

const samples = pager(samplesPath, $("samples"), $("more-samples"), (sample) => pair([
  [`${sample.subset}, line ${sample.line}, ${sample.id}`, turns(sample.prompt)],
  ...sample.responses.map((response, rank) => [
    `response ${rank + 1}${response.reward === null ? "" : `, score ${number(response.reward, 4)}`}`, response.text,
  ]),
]), "No sample fits.");

async function reloadSamples() {
  showError($("samples-error"), null);
  try {
    await samples.reload();
  } catch (error) {
    showError($("samples-error"), error);
  }
}

function show(dataset) {
  $("status").className = `status ${dataset.status}`;
  $("status").textContent = dataset.status;
  showError($("error"), dataset.error ? { message: [dataset.error.message, dataset.error.hint].filter(Boolean).join("\n") } : null);
  const perSample = Object.entries(dataset.responses_per_sample || {}).map(([l, n]) => `${l}: ${number(n)}`).join(", ");
  const facts = [
    ["Format", dataset.format], ["Rows", number(dataset.rows)], ["Samples", number(dataset.samples)],
    ["Rows not used", number(dataset.rejected)], ["Responses per sample", perSample], ["SHA-256", dataset.sha256],
  ];
  $("summary").replaceChildren(...facts.flatMap(([name, value]) => [
    element("dt", {}, name), element("dd", {}, value || "-"),
  ]));
  const subsets = Object.entries(dataset.subsets || {});
  $("subsets").replaceChildren(...subsets.map(([name, n]) => element("tr", {},
    element("td", { class: "text" }, name), element("td", { class: "number" }, number(n)))));
  const chosen = $("subset").value;
  $("subset").replaceChildren(element("option", { value: "" }, "all"), ...subsets.map(([name]) => element("option", {}, name)));
  $("subset").value = chosen;
}

poll(async () => {
  const dataset = await api(`/datasets/${id}`);
  show(dataset);
  if (dataset.status === "processing") return true;
  if (dataset.status === "ready") {
    await ledger.reload();
    await reloadSamples();
  }
  return false;
}, 1);

for (const select of [$("subset"), $("level")]) select.addEventListener("change", reloadSamples);
