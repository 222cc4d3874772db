"use strict";
const cards = [...document.querySelectorAll(".card")];
const { sheet, check } = document.body.dataset;
const key = `review:${sheet}`;
const marks = new Map();
const done = [];
let current = 0;

// A browser may refuse to store anything for a page from disk: the marks then last as long as the page.
const load = () => {
  try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
};
const store = () => {
  try { localStorage.setItem(key, JSON.stringify(Object.fromEntries(marks))); } catch { /* see load */ }
};
const show = () => {
  for (const card of cards) {
    const verdict = marks.get(card.dataset.id) ?? "";
    card.dataset.verdict = verdict;
    for (const button of card.querySelectorAll("button")) button.ariaPressed = String(button.dataset.verdict === verdict);
  }
  const n = (verdict) => [...marks.values()].filter((one) => one === verdict).length;
  document.querySelector("#progress").textContent =
    `${marks.size} of ${cards.length} marked: ${n("keep")} keep, ${n("reject")} reject`;
  document.querySelector("#share").value = marks.size;
  document.querySelector("#undo").disabled = !done.length;
  document.querySelector("#save").disabled = !marks.size;
};
const go = (place) => {
  const old = cards[current];
  current = Math.max(0, Math.min(cards.length - 1, place));
  for (const [card, isCurrent] of [[old, false], [cards[current], true]]) {
    card.classList.toggle("current", isCurrent);
    card.tabIndex = isCurrent ? 0 : -1;
    for (const button of card.querySelectorAll("button")) button.tabIndex = isCurrent ? 0 : -1;
  }
  cards[current].focus();
};
const set = (place, verdict) => {
  const { id } = cards[place].dataset;
  done.push([place, marks.get(id)]);
  if (verdict) marks.set(id, verdict); else marks.delete(id);
  store();
  show();
};
const undo = () => {
  if (!done.length) return;
  const [place, before] = done[done.length - 1];
  set(place, before);
  done.splice(-2);
  show();
  go(place);
};
const columns = () => cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
const moves = {
  j: () => go(current + 1), k: () => go(current - 1),
  ArrowRight: () => go(current + 1), ArrowLeft: () => go(current - 1),
  ArrowDown: () => go(current + columns()), ArrowUp: () => go(current - columns()),
  " ": () => { set(current, "keep"); go(current + 1); },
  x: () => { set(current, "reject"); go(current + 1); },
  u: undo,
};
document.addEventListener("keydown", (event) => {
  const move = moves[event.key];
  // On a button the space bar presses it.
  if (!move || event.ctrlKey || event.metaKey || event.altKey || (event.key === " " && event.target.closest("button"))) return;
  event.preventDefault();
  move();
});
for (const [place, card] of cards.entries()) {
  card.addEventListener("click", (event) => {
    const verdict = event.target.closest("button")?.dataset.verdict;
    if (verdict) set(place, verdict);
    go(place);
  });
}
// As skincare.tables writes cells: nothing that a spreadsheet would compute.
const cell = (text) => {
  const shown = /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
};
document.querySelector("#undo").addEventListener("click", undo);
document.querySelector("#save").addEventListener("click", () => {
  const rows = cards.filter((card) => marks.has(card.dataset.id))
    .map(({ dataset: { id, value } }) => [sheet, check, id, value, marks.get(id)]);
  const text = [["sheet", "check", "image_id", "value", "verdict"], ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `review_${check}_marks.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
});
const known = new Set(cards.map((card) => card.dataset.id));
for (const [id, verdict] of Object.entries(load())) {
  if (known.has(id) && (verdict === "keep" || verdict === "reject")) marks.set(id, verdict);
}
show();
const firstOpen = cards.findIndex((card) => !marks.has(card.dataset.id));
if (cards.length) go(Math.max(0, firstOpen));
