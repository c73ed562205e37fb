"use strict";
// Sorting by the buttons of the header cells, and filters; without this script everything is shown.
const value = (row, i) => row.children[i].dataset.value;
function sort(cell) {
  const table = cell.closest("table"), i = Number(cell.dataset.sort);
  const down = cell.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th[data-sort]")) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0], rows = [...body.rows];
  rows.sort((a, b) => {
    const x = value(a, i), y = value(b, i);
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not known stands last
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
}
for (const cell of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = cell.textContent.trim();
  button.addEventListener("click", () => sort(cell));
  cell.replaceChildren(button);
}
const selects = [...document.querySelectorAll("select[data-filter]")];
const tabs = [...document.querySelectorAll("a[data-tab]")];
function filter() {
  const wanted = Object.fromEntries(selects.map((s) => [s.dataset.filter, s.value]));
  const chosen = tabs.find((a) => a.hash === location.hash) || tabs[0];
  for (const tab of tabs)
    if (tab === chosen) tab.setAttribute("aria-current", "true"); else tab.removeAttribute("aria-current");
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== chosen.dataset.tab;
  let n = 0;
  for (const part of document.querySelectorAll("div[data-system]")) {
    const rows = [...part.querySelectorAll("tr[data-division]")];
    for (const row of rows)
      row.hidden = ["division", "knowledge", "device"].some((k) => wanted[k] !== "" && row.dataset[k] !== wanted[k]);
    const left = rows.filter((row) => !row.hidden).length;
    part.hidden = part.previousElementSibling.hidden = left === 0;
    n += part.closest("[hidden]") ? 0 : left;
  }
  document.getElementById("count").textContent = n + " rows shown";
}
addEventListener("hashchange", filter);
for (const select of selects) select.addEventListener("change", filter);
if (selects.length) { document.querySelector(".filters").hidden = false; filter(); }
