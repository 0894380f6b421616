// Asks why a pair is skipped: a number or a click for the usual reasons, words for others.

const dialog = document.getElementById("skipping");
const form = dialog.querySelector("form");
const reasons = [...dialog.querySelectorAll("[data-reason]")];
let give = () => {};

/** Open the dialog; `then(reason)` is called unless the rater thinks better of it. */
export function askReason(then) {
  give = then;
  form.reset();
  dialog.showModal();
}

function close(reason) {
  dialog.close();
  give(reason);
}

for (const button of reasons) button.addEventListener("click", () => close(button.dataset.reason));
document.getElementById("skip-cancel").addEventListener("click", () => dialog.close());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const reason = form.elements.other.value.trim();
  if (reason !== "") close(reason);
});
dialog.addEventListener("keydown", (event) => {
  if (!dialog.open) return; // closed, but the focus leaves it with the next frame only
  if (event.target.matches("input") || event.ctrlKey || event.altKey || event.metaKey) return;
  const chosen = reasons[Number(event.key) - 1];
  if (chosen === undefined) return;
  event.preventDefault();
  event.stopPropagation(); // the dialog is closed when the page sees the key
  chosen.click();
});
