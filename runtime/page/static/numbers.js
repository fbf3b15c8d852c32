// Counts and latencies.

import { count, element, milliseconds, percent } from "./format.js";

export function updateNumbers(status, camera) {
  const counts = status.counts;
  const facts = [
    ["Rate", `${camera.verdicts_per_second.toFixed(1)}`, "/s"],
    ["Inspected", count(counts.inspected)],
    ["Anomalies", count(counts.anomalous), percent(counts.anomalous, counts.inspected)],
    ["Dropped", count(counts.dropped), percent(counts.dropped, counts.captured)],
    ["Reconnects", count(counts.reconnects), "", counts.reconnects > 0],
    ...(counts.unreadable ? [["Unreadable", count(counts.unreadable), "", true]] : []),
    ...lostBy(counts.undelivered),
  ];
  element("facts").replaceChildren(...facts.map(factOf));
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
