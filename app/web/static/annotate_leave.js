// The quick exit: nothing stays on the screen, and the page is no place to come back to by the Back button.

const TWICE_WITHIN = 1000; // milliseconds between two presses of Escape, with no other key between them
let pressed = -Infinity;

export function leave() {
  document.body.replaceChildren();
  document.title = "Blank page";
  location.replace("/blank");
}

document.getElementById("leave").addEventListener("click", leave);
document.addEventListener("keydown", (event) => {
  if (event.repeat) return;
  const again = event.timeStamp - pressed < TWICE_WITHIN;
  pressed = event.key === "Escape" ? event.timeStamp : -Infinity;
  if (again && event.key === "Escape") leave();
}, { capture: true }); // also while a dialog is open, which the first Escape closes
