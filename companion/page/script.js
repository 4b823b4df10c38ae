"use strict";
// The page reads well without this: it opens and closes what is folded away, and sorts the claims.
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
// The contents are open where they stand beside the page.
const wide = matchMedia("(min-width: 64rem)");
const fold = () => { document.querySelector("details.contents").open = wide.matches; };
wide.addEventListener("change", fold);
fold();
// A press on a head sorts by it, numbers before words; the next one turns the order round.
const heads = [...document.querySelectorAll("#ledger thead th")];
heads.forEach((head, column) => {
  const press = document.createElement("button");
  press.type = "button";
  press.append(...head.childNodes);
  head.append(press);
  press.addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
    const body = document.querySelector("#ledger tbody");
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, text, number: parseFloat(text) };
    });
    keyed.sort((a, b) => isNaN(a.number) - isNaN(b.number) || turn * (isNaN(a.number)
      ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number));
    body.append(...keyed.map((each) => each.row));
  });
});
