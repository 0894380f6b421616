// The study page: inviting annotators, their links and access, and the end of the study.
import { $, api, post } from "./page.js";

const path = `/studies/${document.querySelector("[data-study]").dataset.study}`;
const form = $("invite");
const invited = $("invited");
const question = $("question");

let answer = () => {}; // to the question that was asked last

/** Whether the reader agrees; after Escape nothing follows. */
function agreed(title, text, yes) {
  $("question-title").textContent = title;
  $("question-text").textContent = text;
  $("question-yes").textContent = yes;
  question.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

question.querySelector("form").addEventListener("submit", ({ submitter }) => answer(submitter.value === "yes"));

/** One request at a time; what goes wrong is said on the page. */
async function carryOut(button, work) {
  const place = $("study-error");
  button.disabled = true;
  try {
    await work();
    place.hidden = true;
  } catch (problem) {
    place.textContent = problem instanceof TypeError ? "The service does not answer. Try again in a moment." : problem.message;
    place.hidden = false;
  } finally {
    button.disabled = false;
  }
}

/** A link is in one answer alone, so it stays on the screen until it is sent. */
function showLink({ name, link }) {
  $("invited-name").textContent = name;
  const anchor = $("invited-link");
  anchor.textContent = link;
  anchor.href = link;
  if (form) form.hidden = true;
  invited.hidden = false;
  $("reload").focus();
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const asked = { name: fields.get("name"), subsets: fields.getAll("subsets") };
  carryOut(form.querySelector("button"), async () => showLink(await post(`${path}/annotators`, asked)));
});

for (const button of document.querySelectorAll("[data-renew]")) {
  button.addEventListener("click", async () => {
    const { renew, name } = button.dataset;
    const text = "The old link, and the browsers that opened it, stop at once. Votes stay.";
    if (!(await agreed(`New link for ${name}?`, text, "Make a new link"))) return;
    await carryOut(button, async () => showLink(await post(`${path}/annotators/${renew}/link`)));
  });
}

for (const button of document.querySelectorAll("[data-revoke]")) {
  button.addEventListener("click", async () => {
    const { revoke, name } = button.dataset;
    const text = "Their access ends at once and for good. Votes stay; pairs that they did not rate are free for others.";
    if (!(await agreed(`Revoke ${name}?`, text, "Revoke"))) return;
    await carryOut(button, async () => {
      await api(`${path}/annotators/${revoke}`, { method: "DELETE", headers: { Accept: "application/json" } });
      location.reload();
    });
  });
}

$("unblind")?.addEventListener("click", async () => {
  const text = "No vote is taken or undone after this. It cannot be taken back, and it stands on the audit log.";
  if (!(await agreed("Unblind and close the study?", text, "Unblind and close"))) return;
  await carryOut($("unblind"), async () => {
    await post(`${path}/unblind`);
    location.reload();
  });
});

$("look")?.addEventListener("click", async () => {
  const text = "It shows who wins so far, uses up one of the planned looks, and stands on the audit log.";
  if (!(await agreed("Take the next look?", text, "Look"))) return;
  await carryOut($("look"), async () => {
    await post(`${path}/looks`);
    location.reload();
  });
});

$("make-dataset")?.addEventListener("click", () => carryOut($("make-dataset"), async () => {
  const dataset = await post("/datasets", { study: path.split("/").at(-1) });
  location.assign(`/datasets/${dataset.id}/view`);
}));

$("reload").addEventListener("click", () => location.reload());
