// The live page: requests news from the device, shows them, requests again. Nothing is sent without a request.

import { drawChart, rangeOf } from "./chart.js";
import { currentThreshold, updateThreshold } from "./controls.js";
import { drifts, showDrift } from "./drift.js";
import { clockTime, count, duration, element, score, write } from "./format.js";
import { updateGallery } from "./gallery.js";
import { writeLegend } from "./heat.js";
import { updateNumbers } from "./numbers.js";

const HOLD_S = 1; // an anomaly stays visible at least so long
const ANSWER_WITHIN_MS = 6000;
const STEPS = 600;

let socket = null;
let asked = 0;
let offlineSince = null;
let retryMs = 500;
let camera = localStorage.getItem("camera");
let steps = [];
let picture = 0;
let awaited = null; // a message whose picture has not arrived yet

if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
  socket.binaryType = "blob";
  socket.onopen = () => {
    forget();
    ask();
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? numbersCame(JSON.parse(data)) : pictureCame(data));
  socket.onclose = disconnected;
  asked = performance.now();
}

function ask() {
  if (socket.readyState !== WebSocket.OPEN) return;
  asked = performance.now();
  socket.send(JSON.stringify({ camera, picture, since: steps.at(-1)?.[0] ?? 0 }));
}

// A hidden tab gets no animation frames, so it sends no requests.
const askWhenSeen = () => requestAnimationFrame(ask);

function forget() {
  steps = [];
  picture = 0;
  awaited = null;
}

async function disconnected() {
  socket.onmessage = null;
  offlineSince ??= Date.now() / 1000;
  showOffline();
  setTimeout(connect, retryMs);
  retryMs = Math.min(retryMs * 2, 4000);
  try {
    if ((await fetch("/api/status")).status === 401) location.reload();
  } catch {
    // the device is unreachable; connect() tries again
  }
}

setInterval(() => {
  const waiting = socket.readyState <= WebSocket.OPEN && document.visibilityState === "visible";
  if (waiting && performance.now() - asked > ANSWER_WITHIN_MS) {
    socket.onclose = null;
    socket.close();
    disconnected();
  }
}, 1000);

function numbersCame(message) {
  offlineSince = null;
  retryMs = 500;
  if (message.picture) {
    awaited = message;
    return;
  }
  show(message);
  askWhenSeen();
}

async function pictureCame(blob) {
  const message = awaited;
  awaited = null;
  if (message === null) return;
  try {
    const bitmap = await createImageBitmap(blob);
    if (message.camera === camera) paint(bitmap, message.picture);
  } finally {
    show(message);
    askWhenSeen();
  }
}

function paint(bitmap, about) {
  const canvas = element("picture");
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  picture = about.number;
  bitmap.close();
  element("heat").hidden = !about.anomalous; // a good frame has no colours
  writeLegend(element("heat"), about.threshold);
  canvas.setAttribute("aria-label", `Frame ${about.frame} with heat map and outlines`);
  write(element("caption"), `${clockTime(about.captured)}  ·  frame ${count(about.frame)}  ·  score ${score(about.score)}`);
}

function show({ camera: answered, status, steps: fresh }) {
  const chosen = status.cameras.find((one) => one.name === camera) ?? status.cameras[0];
  showCameras(status.cameras, chosen);
  element("trigger").hidden = !status.trigger;
  updateGallery(status.gallery, status.cameras.length);
  if (!chosen) return;
  if (chosen.name !== camera) choose(chosen.name);
  // The answer may belong to the camera that was chosen before.
  if (answered === camera && fresh.length) steps = [...steps.filter((step) => step[0] < fresh[0][0]), ...fresh].slice(-STEPS);
  showDecision(chosen, status);
  showDrift(chosen, steps.filter((step) => step[0] > status.step - 120));
  updateThreshold(status.threshold, rangeOf(steps, status.threshold.value));
  drawChart(steps, status.step, currentThreshold());
  updateNumbers(status, chosen);
}

function choose(name) {
  camera = name;
  localStorage.setItem("camera", name);
  forget();
  write(element("caption"), "");
  element("heat").hidden = true;
}

function decisionOf(one) {
  if (one.status === "lost" || one.status === "hung") return { state: "lost", word: `CAMERA ${one.status.toUpperCase()}` };
  if (one.status === "ended") return { state: "waiting", word: "ENDED" };
  if (!one.last) return { state: "waiting", word: "WAITING" };
  if (one.stale) return { state: "lost", word: "NO VERDICT" };
  if (one.last.anomalous || (one.anomaly_age_s !== null && one.anomaly_age_s < HOLD_S)) return { state: "anomaly", word: "ANOMALY" };
  return { state: "good", word: "GOOD" };
}

function reasonOf(one, decision) {
  const since = one.since === null ? "" : `since ${clockTime(one.since)}`;
  if (one.status === "lost" || one.status === "hung") return since;
  if (decision.word === "NO VERDICT") return `for ${duration(one.age_s)}`;
  if (!one.last) return "for the first frame";
  if (decision.state === "anomaly" && !one.last.anomalous) return `${duration(one.anomaly_age_s)} ago`;
  return `score ${score(one.last.score)} ${one.last.anomalous ? ">" : "≤"} ${score(one.last.threshold)}`;
}

function showDecision(one, status) {
  const decision = decisionOf(one);
  const reason = reasonOf(one, decision);
  setLamp(decision.state, decision.word, reason);
  const loud = decision.state === "lost" ? `${decision.word} ${reason}` : "";
  setAlarm(loud, [one.since && one.status !== "running" ? `${duration(status.now - one.since)} ago` : "", one.detail].filter(Boolean).join(": "));
  document.querySelector(".picture").classList.toggle("stale", one.stale);
  document.querySelector(".picture").classList.toggle("empty", picture === 0);
  document.title = `${{ good: "●", anomaly: "▲", lost: "■", waiting: "○" }[decision.state]} ${decision.word} · ${one.name}`;
}

function showOffline() {
  const since = `since ${clockTime(offlineSince)}`;
  setLamp("lost", "OFFLINE", since);
  for (const pip of document.querySelectorAll(".pip")) pip.dataset.state = "lost";
  setAlarm(`NO CONNECTION ${since}`, "The page shows old data. Is the device switched on and connected to the network?");
  document.querySelector(".picture").classList.add("stale");
  document.title = "■ OFFLINE · uflow-edge";
}

function setLamp(state, word, reason) {
  const lamp = element("lamp");
  if (lamp.dataset.state !== state) lamp.dataset.state = state;
  if (element("word").textContent !== word) {
    write(element("word"), word);
    fit();
  }
  write(element("reason"), reason);
}

// Shrink the word until it fits into the lamp; fonts differ between devices.
function fit() {
  const word = element("word");
  word.style.fontSize = "";
  const room = word.clientWidth / word.scrollWidth;
  if (room < 1) word.style.fontSize = `${Math.floor(parseFloat(getComputedStyle(word).fontSize) * room)}px`;
}
new ResizeObserver(fit).observe(element("lamp"));

function setAlarm(text, detail) {
  const alarm = element("alarm");
  alarm.hidden = text === "";
  if (alarm.firstChild?.textContent !== text) alarm.replaceChildren(text, document.createElement("small"));
  if (text) write(alarm.querySelector("small"), detail);
}

function showCameras(cameras, chosen) {
  const list = element("cameras");
  if (list.children.length !== cameras.length) list.replaceChildren(...cameras.map(() => tabOf()));
  list.classList.toggle("many", cameras.length > 1);
  cameras.forEach((one, i) => {
    const tab = list.children[i];
    tab.dataset.name = one.name;
    tab.tabIndex = cameras.length === 1 ? -1 : 0;
    tab.setAttribute("aria-selected", String(one === chosen));
    const decision = decisionOf(one);
    tab.dataset.state = tab.firstChild.dataset.state = decision.state;
    tab.toggleAttribute("data-drift", drifts(one));
    write(tab.lastChild, decision.state === "lost" ? `${one.name}: ${decision.word}` : one.name);
    tab.title = one.name;
    tab.setAttribute("aria-label", `${one.name}: ${decision.word}${drifts(one) ? ", drift" : ""}`);
  });
}

function tabOf() {
  const tab = document.createElement("button");
  tab.type = "button";
  tab.className = "camera";
  tab.setAttribute("role", "tab");
  const pip = document.createElement("i");
  pip.className = "pip";
  tab.append(pip, document.createElement("span"));
  tab.addEventListener("click", () => tab.dataset.name !== camera && choose(tab.dataset.name));
  return tab;
}

connect();
