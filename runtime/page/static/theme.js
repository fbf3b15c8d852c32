// Set the light or dark theme before the first paint: the user's choice, or else the device's setting.
"use strict";
(() => {
  const order = ["auto", "light", "dark"];
  const device = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => (order.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");

  function apply() {
    const choice = chosen();
    document.documentElement.dataset.theme = choice === "auto" ? (device.matches ? "dark" : "light") : choice;
    const button = document.getElementById("theme");
    if (button) button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[choice];
  }

  apply();
  device.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      localStorage.setItem("theme", order[(order.indexOf(chosen()) + 1) % order.length]);
      apply();
    });
  });
})();
