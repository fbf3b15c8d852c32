// Counts and latencies.

import { count, duration, element, milliseconds, percent, write } from "./format.js";

export function updateNumbers(status, camera) {
  const counts = status.counts;
  const many = status.cameras.length > 1;
  const verdicts = ({ inspected, anomalous }) => [
    ["Inspected", count(inspected)],
    ["Anomalies", count(anomalous), percent(anomalous, inspected)],
  ];
  const rate = ["Rate", `${camera.verdicts_per_second.toFixed(1)}`, "/s"];
  const rest = [
    ["Dropped", count(counts.dropped), percent(counts.dropped, counts.captured)],
    ["Reconnects", count(counts.reconnects), "", counts.reconnects > 0],
    ...(counts.unreadable ? [["Unreadable", count(counts.unreadable), "", true]] : []),
    ...lostBy(counts.undelivered),
  ];
  const ofCamera = many ? [rate, ...verdicts(camera)] : [rate, ...verdicts(counts), ...rest];
  element("facts").replaceChildren(...ofCamera.map(factOf));
  element("line-facts").replaceChildren(...(many ? [...verdicts(counts), ...rest].map(factOf) : []));
  for (const title of ["camera-facts-title", "line-facts-title"]) element(title).hidden = !many;
  write(element("camera-facts-title"), camera.name);
  const { bundle, digest, engine, uptime_s: uptime } = status.line;
  write(element("about"), [bundle && `${bundle} (${digest.slice(0, 8)})`, engine, `running for ${duration(uptime)}`].filter(Boolean).join("  ·  "));
  const total = camera.stages.at(-1)?.p50_ms || 1;
  element("stages").replaceChildren(...camera.stages.map((stage) => stageOf(stage, total)));
}

function lostBy(undelivered) {
  const losers = Object.entries(undelivered).filter(([, lost]) => lost > 0);
  if (!losers.length) return [["Not delivered", "0"]];
  return losers.map(([sink, lost]) => [`Not delivered to ${sink}`, count(lost), "", true]);
}

function factOf([name, value, note = "", bad = false]) {
  const fact = document.createElement("div");
  fact.classList.toggle("bad", bad);
  const term = document.createElement("dt");
  term.textContent = name;
  const figure = document.createElement("dd");
  const small = document.createElement("small");
  small.textContent = note && ` ${note}`;
  figure.append(value, small);
  fact.append(term, figure);
  return fact;
}

function stageOf({ stage, p50_ms: median, p95_ms: high }, total) {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = stage;
  const share = document.createElement("td");
  share.className = "share";
  const bar = document.createElement("i");
  bar.style.setProperty("--share", Math.min((100 * median) / total, 100).toFixed(1));
  share.append(bar);
  row.append(name, share, ...[median, high].map(cellOf));
  return row;
}

function cellOf(value) {
  const cell = document.createElement("td");
  cell.textContent = milliseconds(value);
  return cell;
}
