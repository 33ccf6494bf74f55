const filter = document.querySelector(".filter");
const cells = [...document.querySelectorAll(".cell-entry")];
const words = filter.querySelector("input");
const verdict = filter.querySelector("select");
const shown = filter.querySelector("output");
const sift = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const cell of cells) {
    const fits = (!verdict.value || cell.dataset.verdict === verdict.value) && wanted.every((word) => cell.dataset.words.includes(word));
    cell.hidden = !fits;
    count += fits;
  }
  shown.textContent = `${count} of ${cells.length} cells`;
};
const open = () => {
  const entry = location.hash && document.getElementById(location.hash.slice(1));
  if (entry && entry.matches(".cell-entry")) {
    if (entry.hidden) {
      words.value = verdict.value = "";
      sift();
    }
    entry.open = true;
    entry.scrollIntoView();
  }
};
filter.hidden = false;
words.addEventListener("input", sift);
verdict.addEventListener("input", sift);
window.addEventListener("hashchange", open);
document.addEventListener("click", (event) => event.target.closest('a[href^="#cell-"]') && setTimeout(open));
sift();
open();
