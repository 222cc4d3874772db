"use strict";
const gallery = document.querySelector(".gallery");
const filters = document.querySelector(".filters");
if (gallery && filters) {
  const items = [...gallery.children];
  const shown = document.querySelector("#shown");
  const selects = [...filters.querySelectorAll("select")];
  const apply = () => {
    let n = 0;
    for (const item of items) {
      item.hidden = selects.some((one) => one.value && item.dataset[one.name] !== one.value);
      n += item.hidden ? 0 : 1;
    }
    shown.textContent = `${n} of ${items.length} images`;
  };
  const set = (values) => {
    for (const one of selects) one.value = values[one.name] ?? "";
    apply();
  };
  filters.addEventListener("change", apply);
  filters.querySelector("button").addEventListener("click", () => set({}));
  // Without this script a cell's link still leads to the gallery.
  for (const cell of document.querySelectorAll(".matrix a")) {
    cell.addEventListener("click", () => set({ truth: cell.dataset.truth, [cell.dataset.when]: cell.dataset.answer }));
  }
  filters.hidden = false;
  apply();
}
