"use strict";
const cards = [...document.querySelectorAll("article")];
const chips = [...document.querySelectorAll("nav button")];
const find = document.getElementById("find");
const sort = document.getElementById("sort");
const tip = document.getElementById("tip");
let kind = "all";

function fits(card) {
  const people = card.dataset.people;
  const wanted =
    kind === "all" ||
    (kind === "failed" && people === undefined) ||
    (kind === "5" ? Number(people) >= 5 : people === kind);
  return wanted && card.dataset.name.toLowerCase().includes(find.value.toLowerCase());
}

function show() {
  let shown = 0;
  for (const card of cards) {
    card.hidden = !fits(card);
    shown += card.hidden ? 0 : 1;
  }
  for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.value === kind));
  document.getElementById("count").textContent = `${shown} of ${cards.length}`;
  document.getElementById("none").hidden = shown > 0;
}

function order() {
  const key = sort.value;
  const value = (card) => Number(card.dataset[key] ?? -1);
  const sorted = [...cards];
  if (key === "name") sorted.sort((a, b) => a.dataset.name.localeCompare(b.dataset.name));
  else if (key) sorted.sort((a, b) => value(b) - value(a));
  document.querySelector("main").append(...sorted);
}

for (const chip of chips)
  chip.addEventListener("click", () => {
    kind = chip.value;
    show();
  });
find.addEventListener("input", show);
sort.addEventListener("change", order);

document.addEventListener("pointerover", (event) => {
  const text = event.target instanceof SVGCircleElement && event.target.dataset.text;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const spot = event.target.getBoundingClientRect();
  const right = Math.max(4, Math.min(spot.right + 8, innerWidth - tip.offsetWidth - 4));
  tip.style.left = `${right}px`;
  tip.style.top = `${Math.max(4, spot.top - tip.offsetHeight - 4)}px`;
});

for (const figure of document.querySelectorAll("figure")) {
  const turn = () => figure.setAttribute("aria-expanded", String(figure.closest("article").classList.toggle("wide")));
  figure.addEventListener("click", turn);
  figure.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      turn();
    }
  });
}
show();
