// Warnings: good frames no longer look as they did at calibration, or nearly all frames are anomalous.

import { clockTime, element, write } from "./format.js";

const FEW = 20; // fewer frames give no warning
const MOST = 0.9; // share of anomalous frames

export const drifts = (camera) => camera.drift?.status === "warning";

export function showDrift(camera, lastMinute) {
  const strip = element("drift");
  const total = (column) => lastMinute.reduce((sum, step) => sum + step[column], 0);
  const [inspected, anomalous] = [total(4), total(5)];
  const hardlyGood = inspected >= FEW && anomalous > MOST * inspected;
  strip.hidden = !hardlyGood && !drifts(camera);
  if (hardlyGood) {
    write(element("drift-title"), "Nearly all frames are anomalous");
    write(
      element("drift-detail"),
      `${anomalous} of the last ${inspected}. Is this the right product? Check focus, light and the camera's position. If the change is permanent, calibrate again.`,
    );
  } else if (drifts(camera)) {
    const { statistic, shift, direction, since } = camera.drift;
    const what = statistic === "score" ? "Their score" : `Their energy at scale ${Number(statistic.split("_")[1]) + 1}`;
    write(element("drift-title"), `Good frames look different since ${clockTime(since)}`);
    write(
      element("drift-detail"),
      `${what} is ${Math.abs(shift).toFixed(1)} standard deviations ${direction} than at calibration. ` +
        "Check focus, light and the camera's position. If the change is permanent, calibrate again.",
    );
  }
}
