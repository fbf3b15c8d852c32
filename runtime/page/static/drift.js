// The warning that good frames no longer look as they did at calibration.

import { clockTime, element, write } from "./format.js";

export const drifts = (camera) => camera.drift?.status === "warning";

export function showDrift(camera) {
  const strip = element("drift");
  const warns = drifts(camera);
  strip.hidden = !warns;
  if (!warns) return;
  const { statistic, shift, direction, since } = camera.drift;
  const what = statistic === "score" ? "Their score" : `Their energy at scale ${Number(statistic.split("_")[1]) + 1}`;
  write(element("drift-since"), `since ${clockTime(since)}`);
  write(
    element("drift-detail"),
    `${what} is ${Math.abs(shift).toFixed(1)} standard deviations ${direction} than at calibration. ` +
      "Check focus, light and the camera's position; if this is to stay, calibrate again.",
  );
}
