// The form that invites an annotator; the link is in the answer, this once.

const { study } = document.querySelector("[data-study]").dataset;
const form = document.getElementById("invite");
const error = document.getElementById("invite-error");
const invited = document.getElementById("invited");

function complain(text) {
  error.textContent = text;
  error.hidden = text === "";
}

async function invite(fields) {
  const response = await fetch(`/studies/${study}/annotators`, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name: fields.get("name"), subsets: fields.getAll("subsets") }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const { name, link } = await invite(new FormData(form));
    complain("");
    document.getElementById("invited-name").textContent = name;
    const anchor = document.getElementById("invited-link");
    anchor.textContent = link;
    anchor.href = link;
    form.hidden = true;
    invited.hidden = false;
    invited.querySelector("button").focus();
  } catch (problem) {
    complain(problem instanceof TypeError ? "The service does not answer. Try again in a moment." : problem.message);
  } finally {
    button.disabled = false;
  }
});
document.getElementById("reload").addEventListener("click", () => location.reload());
