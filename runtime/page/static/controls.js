// The operator's controls: the threshold, live and in the bundle, and the software trigger.

import { element, score, write } from "./format.js";

const LOCK_AFTER_MS = 60_000; // against touching the slider by accident
const slider = element("slider");
const exact = element("exact");
const adjust = element("adjust");
const adjusting = element("adjusting");
let threshold = null;
let wanted = null; // not yet confirmed by the device
let sending = false;
let lock = 0;

export function toast(text, bad = false) {
  const line = element("toast");
  line.hidden = false;
  line.classList.toggle("bad", bad);
  write(line, text);
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (line.hidden = true), bad ? 8000 : 3500);
}

async function send(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  throw new Error(typeof content.detail === "string" ? content.detail : `the device answered ${answer.status}`);
}

export function updateThreshold(fresh, range) {
  if (sending || wanted !== null) return;
  threshold = fresh;
  write(element("threshold"), score(fresh.value));
  write(element("promise"), fresh.promise);
  const saved = fresh.value === fresh.saved;
  const badge = element("threshold-badge");
  badge.classList.toggle("unsaved", !saved);
  write(badge, saved ? "as in the bundle" : `not saved; bundle: ${score(fresh.saved)}`);
  write(element("back"), `Back to bundle’s ${score(fresh.saved)}`);
  element("back").disabled = saved;
  element("save").hidden = !fresh.can_save;
  element("save").disabled = saved;
  if (document.activeElement !== exact) exact.value = Number(fresh.value.toFixed(2));
  if (document.activeElement === slider && slider.matches(":active")) return;
  const low = Math.min(range.low, fresh.saved);
  const high = Math.max(range.high, fresh.saved);
  slider.min = low;
  slider.max = high;
  slider.value = fresh.value;
}

export const currentThreshold = () => wanted ?? threshold?.value ?? 0;

async function apply(value) {
  wanted = value;
  write(element("threshold"), score(value));
  keepOpen();
  if (sending) return;
  sending = true;
  try {
    while (wanted !== null) {
      const next = wanted;
      threshold = await send("PUT", "/api/threshold", { value: next });
      if (wanted === next) wanted = null;
    }
  } catch (error) {
    wanted = null;
    toast(`Threshold not changed: ${error.message}`, true);
  }
  sending = false;
  updateThreshold(threshold, { low: Number(slider.min), high: Number(slider.max) });
}

function setOpen(open) {
  adjusting.hidden = !open;
  adjust.setAttribute("aria-expanded", String(open));
  adjust.textContent = open ? "Done" : "Adjust";
  clearTimeout(lock);
  if (open) keepOpen();
}

function keepOpen() {
  clearTimeout(lock);
  lock = setTimeout(() => setOpen(false), LOCK_AFTER_MS);
}

adjust.addEventListener("click", () => {
  setOpen(adjusting.hidden);
  if (!adjusting.hidden) slider.focus({ preventScroll: true });
});
slider.addEventListener("input", () => {
  exact.value = slider.value = Math.round(slider.value * 10) / 10;
  apply(Number(slider.value));
});
exact.addEventListener("change", () => {
  if (exact.value !== "" && Number.isFinite(exact.valueAsNumber)) apply(exact.valueAsNumber);
});
element("back").addEventListener("click", () => apply(threshold.saved));
element("save").addEventListener("click", () => {
  write(
    element("question-text"),
    `Save the threshold ${score(threshold.value)} to the bundle? It replaces ${score(threshold.saved)} in every run from now on; what was promised for the old threshold no longer holds.`,
  );
  element("question").returnValue = "no";
  element("question").showModal();
});
element("question").addEventListener("close", async () => {
  if (element("question").returnValue !== "yes") return;
  try {
    threshold = await send("POST", "/api/threshold/save");
    toast(`Threshold ${score(threshold.saved)} saved to the bundle; ${threshold.promise}`);
    setOpen(false);
  } catch (error) {
    toast(`Not saved: ${error.message}`, true);
  }
});
element("trigger").addEventListener("click", async () => {
  try {
    await send("POST", "/api/trigger");
  } catch (error) {
    toast(`Not triggered: ${error.message}`, true);
  }
});
