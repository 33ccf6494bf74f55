for (const fader of document.querySelectorAll(".fader")) {
  fader.hidden = false;
  const slider = fader.querySelector("input");
  const target = fader.closest(".target");
  const fade = () => target.style.setProperty("--fade", slider.value / 100);
  slider.addEventListener("input", fade);
  fade();
}
