// Format numbers and times.

const decimals = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en");

export const score = (value) => decimals.format(value).replace("-", "−");
export const count = (value) => whole.format(value);
export const milliseconds = (value) => (value < 9.95 ? value.toFixed(1) : count(Math.round(value)));
export const clockTime = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export function duration(seconds) {
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const percent = (part, total) => (total ? `${((100 * part) / total).toFixed(part && part / total < 0.01 ? 2 : 1)} %` : "");

export const element = (id) => document.getElementById(id);

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
