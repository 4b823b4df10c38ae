"use strict";
// The page reads well without this: it only opens and closes what is folded away.
const codes = document.querySelectorAll("details.code");
const button = document.getElementById("all-code");
button.hidden = false;
button.addEventListener("click", () => {
  const open = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(open));
  codes.forEach((code) => { code.open = open; });
});
// A link into a folded part opens it.
function reveal() {
  let element = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const target = element;
  for (; element; element = element.parentElement) {
    if (element.tagName === "DETAILS") { element.open = true; }
  }
  if (target) { target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
if (location.hash) { reveal(); }
// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
});
