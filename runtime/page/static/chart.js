// Five minutes of scores and the threshold, drawn as SVG. A step is half a second:
// [number, lowest, highest, threshold, inspected, anomalous].

import { element, score } from "./format.js";

const STEPS = 600;
const STEP_S = 0.5;
const JOINED = 20; // the line bridges a gap of so many steps
const MARK = 12; // width of an anomaly's mark, in pixels
const MARGIN = { left: 8, right: 8, top: 10, bottom: 22 };
const svg = element("chart");
let size = { width: 0, height: 0 };
let latest = null;

new ResizeObserver(([entry]) => {
  size = { width: Math.round(entry.contentRect.width), height: Math.round(entry.contentRect.height) };
  if (latest) drawChart(...latest);
}).observe(svg);

export function drawChart(steps, now, threshold) {
  latest = [steps, now, threshold];
  const { width, height } = size;
  if (!width || !height) return;
  const seen = steps.filter((step) => step[0] > now - STEPS);
  const range = shownRange(seen, threshold);
  const ticks = ticksOf(range, height);
  const left = MARGIN.left + 7.5 * Math.max(3, ...ticks.map((tick) => label(tick).length));
  const x = (number) => width - MARGIN.right - ((now - number) / STEPS) * (width - left - MARGIN.right);
  const y = (value) => MARGIN.top + ((range.high - within(value, range)) / (range.high - range.low)) * (height - MARGIN.top - MARGIN.bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    ...ticks.flatMap((tick) => [
      node("path", { class: "grid", d: `M${left} ${y(tick)}H${width - MARGIN.right}` }),
      node("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, label(tick)),
    ]),
    ...minutes(x, now, height),
    node("path", { class: "band", d: seen.map((s) => `M${at(x(s[0]), y(s[1]))}V${y(s[2]).toFixed(1)}`).join("") }),
    node("path", { class: "scores", d: lineOf(seen, x, y) }),
    node("path", { class: "limit", d: limitOf(seen, threshold, x, y, left, width - MARGIN.right) }),
    node("path", { class: "anomalies", d: runsOf(seen.filter((s) => s[5]), x).map((run) => markOf(run, x, y)).join("") }),
    ...beyond(seen, range, left),
  );
}

const within = (value, { low, high }) => Math.min(Math.max(value, low), high);

// The range around the threshold. The peaks of anomalies are cut off; they would flatten the scores of good frames.
function shownRange(steps, threshold) {
  const range = rangeOf(steps, threshold);
  const distances = steps.filter((s) => !s[5]).flatMap((s) => [threshold - s[1], threshold - s[2]].map(Math.abs)).sort((a, b) => a - b);
  if (!distances.length) return range;
  const reach = Math.max(2 * distances[Math.floor(0.95 * (distances.length - 1))], 4);
  return { low: Math.max(range.low, threshold - reach), high: Math.min(range.high, threshold + reach) };
}

// A label says how far the cut-off scores reach.
function beyond(steps, { high }, left) {
  const highest = Math.max(...steps.map((s) => s[2]));
  if (!(highest > high)) return [];
  return [node("text", { class: "beyond", x: left + 4, y: MARGIN.top + 2 }, `↑ up to ${score(highest)}`)];
}

// Anomalies whose marks would overlap share one.
function runsOf(anomalous, x) {
  const runs = [];
  for (const step of anomalous) {
    const last = runs.at(-1);
    if (last && x(step[0]) - x(last.at(-1)[0]) < MARK) last.push(step);
    else runs.push([step]);
  }
  return runs;
}

function markOf(run, x, y) {
  const [first, last] = [x(run[0][0]), x(run.at(-1)[0])];
  const top = y(Math.max(...run.map((s) => s[2])));
  if (last - first < MARK) return triangle((first + last) / 2, top);
  return `M${at(first - 3, Math.max(top - 5, 1))}H${(last + 3).toFixed(1)}v5H${(first - 3).toFixed(1)}z`;
}

export function rangeOf(steps, threshold) {
  let low = threshold;
  let high = threshold;
  for (const step of steps) {
    low = Math.min(low, step[1]);
    high = Math.max(high, step[2]);
  }
  const room = Math.max((high - low) * 0.08, 1);
  return { low: low - room, high: high + room };
}

function ticksOf({ low, high }, height) {
  const wanted = (high - low) / Math.max(3, Math.floor(height / 45));
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= wanted);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  return ticks;
}

const label = (tick) => (Number.isInteger(tick) ? score(tick).slice(0, -2) : score(tick));
const at = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;
const triangle = (x, y) => `M${at(x, y - 7)}l6 11h-12z`;

function lineOf(steps, x, y) {
  let before = -Infinity;
  return steps
    .map((step) => {
      const joined = step[0] - before <= JOINED;
      before = step[0];
      return `${joined ? "L" : "M"}${at(x(step[0]), y(step[2]))}${joined ? "" : "h0.01"}`;
    })
    .join("");
}

function limitOf(steps, threshold, x, y, left, right) {
  if (!steps.length) return `M${left} ${y(threshold)}H${right}`;
  const parts = [`M${at(x(steps[0][0]), y(steps[0][3]))}`];
  for (let i = 1; i < steps.length; i++)
    if (steps[i][3] !== steps[i - 1][3]) parts.push(`H${x(steps[i][0]).toFixed(1)}V${y(steps[i][3]).toFixed(1)}`);
  return `${parts.join("")}H${x(steps[steps.length - 1][0]).toFixed(1)}V${y(threshold).toFixed(1)}H${right}`;
}

function minutes(x, now, height) {
  return (size.width < 480 ? [0, 2, 4] : [0, 1, 2, 3, 4, 5]).map((minute) =>
    node(
      "text",
      { x: x(now - (minute * 60) / STEP_S), y: height - 5, "text-anchor": minute === 0 ? "end" : minute === 5 ? "start" : "middle" },
      minute === 0 ? "now" : `−${minute} min`,
    ),
  );
}

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
