// The quick exit: nothing stays on the screen, and the page is no place to come back to by the Back button.

const TWICE_WITHIN = 1500; // milliseconds between two presses of Escape
let pressed = -Infinity;

export function leave() {
  document.body.replaceChildren();
  document.title = "Blank page";
  location.replace("/blank");
}

document.getElementById("leave").addEventListener("click", leave);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.repeat) return;
  if (event.timeStamp - pressed < TWICE_WITHIN) leave();
  pressed = event.timeStamp;
}, { capture: true }); // also while a dialog is open, which the first Escape closes
