// Recent anomalies: thumbnails, and a viewer that shows them in full size.

import { clockTime, count, element, score, write } from "./format.js";
import { writeLegend } from "./heat.js";

const thumbnails = element("thumbnails");
const viewer = element("viewer");
let anomalies = [];
let shown = { newest: -1, kept: -1 };
let open = 0;
let manyCameras = false;

export async function updateGallery(gallery, cameras) {
  manyCameras = cameras > 1;
  thumbnails.classList.toggle("many", manyCameras);
  write(element("gallery-note"), noteOf(gallery));
  if (gallery.newest === shown.newest && gallery.kept === shown.kept) return;
  shown = { ...gallery };
  try {
    const answer = await fetch("/api/anomalies");
    if (answer.ok) show(await answer.json());
    else shown.newest = -1;
  } catch {
    shown.newest = -1; // try again with the next status
  }
}

function noteOf({ kept, skipped }) {
  if (!kept) return "";
  const missed = skipped ? `; ${count(skipped)} without a picture, because they came too fast` : "";
  return `${count(kept)} kept${missed}`;
}

function show(fresh) {
  anomalies = fresh;
  const there = new Map([...thumbnails.children].map((item) => [item.dataset.id, item]));
  const wanted = anomalies.map((anomaly) => there.get(String(anomaly.id)) ?? itemOf(anomaly));
  for (const item of thumbnails.children) if (!wanted.includes(item)) item.remove();
  wanted.forEach((item, i) => {
    if (thumbnails.children[i] !== item) thumbnails.insertBefore(item, thumbnails.children[i] ?? null);
  });
  element("nothing").hidden = anomalies.length > 0;
  if (viewer.open) enableSteps();
}

function itemOf(anomaly) {
  const item = document.createElement("li");
  item.dataset.id = anomaly.id;
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Anomaly at ${clockTime(anomaly.captured)}, ${anomaly.camera}, score ${score(anomaly.score)}`);
  const image = new Image();
  image.src = `/api/anomalies/${anomaly.id}/small.jpg`;
  image.alt = "";
  image.addEventListener("error", () => item.remove()); // the gallery no longer holds it
  const line = document.createElement("span");
  const worst = document.createElement("b");
  worst.textContent = score(anomaly.score);
  line.append(clockTime(anomaly.captured), worst);
  const camera = document.createElement("span");
  camera.className = "from";
  camera.textContent = camera.title = anomaly.camera;
  button.append(image, line, camera);
  button.addEventListener("click", () => view(anomaly.id));
  item.append(button);
  return item;
}

function view(id) {
  const anomaly = anomalies.find((candidate) => candidate.id === id);
  if (!anomaly) return;
  open = id;
  const image = element("viewer-image");
  image.src = `/api/anomalies/${id}.jpg`;
  image.alt = `Frame ${anomaly.frame} with heat map and outlines`;
  const parts = [
    clockTime(anomaly.captured),
    manyCameras ? anomaly.camera : "",
    `frame ${count(anomaly.frame)}`,
    `score ${score(anomaly.score)} > ${score(anomaly.threshold)}`,
    anomaly.regions === 1 ? "1 region" : `${count(anomaly.regions)} regions`,
  ];
  writeLegend(element("viewer-heat"), anomaly.threshold);
  write(element("viewer-caption"), parts.filter(Boolean).join("  ·  "));
  enableSteps();
  if (!viewer.open) viewer.showModal();
}

const position = () => anomalies.findIndex((anomaly) => anomaly.id === open);
const step = (by) => {
  const next = anomalies[position() + by];
  if (next && position() >= 0) view(next.id);
};

function enableSteps() {
  element("newer").disabled = position() <= 0;
  element("older").disabled = position() < 0 || position() === anomalies.length - 1;
  // A focused button that is disabled would swallow the arrow keys.
  if (document.activeElement.disabled) element("viewer-close").focus();
}

element("newer").addEventListener("click", () => step(-1));
element("older").addEventListener("click", () => step(1));
element("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
viewer.addEventListener("close", () => thumbnails.querySelector(`[data-id="${open}"] button`)?.focus());
