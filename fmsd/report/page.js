"use strict";

const root = document.documentElement;
root.classList.add("scripts");
const kept = {  // a page opened from a file may be refused a memory
  get: () => { try { return localStorage.getItem("fmsd-theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("fmsd-theme", value); } catch { /* it lasts as long as the page */ } },
};
if (["light", "dark"].includes(kept.get())) root.dataset.theme = kept.get();
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  kept.set(root.dataset.theme);
});

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim().replaceAll(",", "");
  return text === "-" || text === "" ? null : /^[-+]?[\d.]+([eE][-+]?\d+)?( ?%)?$/.test(text) ? parseFloat(text) : text;
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);  // what is missing stays below
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * collator.compare(String(one), String(other));
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...[...table.tHead.rows].at(-1).cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const body = table.tBodies[0];
    const order = head.getAttribute("aria-sort") === (column ? "descending" : "ascending") ? (column ? "ascending" : "descending") : (column ? "descending" : "ascending");
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    rows.sort((one, other) => compare(one[0], other[0], sign));
    body.append(...rows.map(([, row]) => row));
  }));
}

for (const choice of document.querySelectorAll(".choice")) {
  const selects = [...choice.querySelectorAll("select")];
  const show = () => {
    const key = selects.map((select) => select.value).join(" ");
    for (const pane of choice.querySelectorAll(":scope > .pane")) pane.hidden = !(pane.open = pane.dataset.key === key);
  };
  selects.forEach((select) => select.addEventListener("change", show));
  show();
}

for (const scroll of document.querySelectorAll(".scroll")) {  // what is cut off shows that it is
  const mark = () => {
    scroll.toggleAttribute("data-left", scroll.scrollLeft > 1);
    scroll.toggleAttribute("data-right", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 1);
  };
  scroll.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(scroll);
}

const folds = [...document.querySelectorAll("details:not(.pane)")];
const unfold = document.getElementById("unfold");
const name = () => { unfold.textContent = folds.every((fold) => fold.open) ? "close all" : "open all"; };
if (unfold !== null) {
  unfold.hidden = false;
  unfold.addEventListener("click", () => {
    const open = !folds.every((fold) => fold.open);
    for (const fold of folds) fold.open = open;
  });
  for (const fold of folds) fold.addEventListener("toggle", name);
}

function openLinked() {  // a link to a folded section opens it
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = linked?.querySelector(":scope > details");
  if (fold) fold.open = true;
}
addEventListener("hashchange", openLinked);
openLinked();

let opened = [];  // paper has no clicks: everything is printed
addEventListener("beforeprint", () => {
  opened = folds.filter((fold) => !fold.open);
  for (const fold of opened) fold.open = true;
});
addEventListener("afterprint", () => { for (const fold of opened) fold.open = false; });

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard for files in this browser: select, so that the keys do it
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      return;
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
