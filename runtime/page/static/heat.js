// The legend of heat maps: the colour scale, labelled from the threshold upwards.

import { score } from "./format.js";

const STEPS = ["+1", "+10", "+100", "+1000"]; // see uflow_edge.runtime.heat

export function writeLegend(legend, threshold) {
  const labels = [score(threshold), ...STEPS];
  if (!legend.firstChild) {
    const bar = new Image();
    bar.src = "/api/colours.png";
    bar.alt = "Colours of the score, from the threshold upwards";
    const line = document.createElement("p");
    line.append(...labels.map(() => document.createElement("span")));
    legend.append(bar, line);
  }
  labels.forEach((label, i) => (legend.lastChild.children[i].textContent = label));
}
